"""Weights trained with PyTorch give the same outputs here, or an error message in one line."""

import json
import os
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from minidl import Tensor, no_grad
from r2unet.network.interop import load_state_dict, pytorch_names, read_pytorch
from r2unet.network.model import AttentionUNet, R2AttentionUNet, R2UNet, UNet
from tests.r2unet.refusal import refusal

TESTS = Path(__file__).parents[2]
NETWORKS = {"U_Net": UNet, "R2U_Net": R2UNet, "AttU_Net": AttentionUNet, "R2AttU_Net": R2AttentionUNet}
ALL_NETWORKS = pytest.mark.parametrize("name", NETWORKS)
TOLERANCE = 1e-4


def logits(model, x):
    with no_grad():
        return model(Tensor(x)).numpy()


def write_npz(path, state):
    np.savez(path, **state)
    return path


def safetensors(state, **dtypes):
    """Return a safetensors file's bytes, with the dtypes of NumPy, or `dtypes` for those that NumPy lacks."""
    codes = {"float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int8": "I8"}
    header, numbers = {"__metadata__": {"format": "pt"}}, b""
    for name, a in state.items():
        offsets = [len(numbers), len(numbers) + a.nbytes]
        dtype = dtypes.get(name) or codes[a.dtype.name]
        header[name] = {"dtype": dtype, "shape": list(a.shape), "data_offsets": offsets}
        numbers += a.tobytes()
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + numbers


class TestOutputs:
    @ALL_NETWORKS
    def test_equal_the_stored_outputs_of_pytorch(self, name, lee_reference, lee_state, tmp_path):
        model = read_pytorch(write_npz(tmp_path / "weights.npz", lee_state(name)))
        assert type(model) is NETWORKS[name] and model.widths == (3, 4, 6) and not model.training
        expected = lee_reference[f"{name}/logits"]
        np.testing.assert_allclose(logits(model, lee_reference["x"]), expected, rtol=0.0, atol=TOLERANCE)

    @ALL_NETWORKS
    def test_are_the_same_from_safetensors(self, name, lee_reference, lee_state, tmp_path):
        (tmp_path / "weights.safetensors").write_bytes(safetensors(lee_state(name)))
        model = read_pytorch(tmp_path / "weights.safetensors")
        expected = lee_reference[f"{name}/logits"]
        np.testing.assert_allclose(logits(model, lee_reference["x"]), expected, rtol=0.0, atol=TOLERANCE)

    def test_depend_on_the_steps_which_the_file_does_not_contain(self, lee_reference, lee_state, tmp_path):
        path = write_npz(tmp_path / "weights.npz", lee_state("R2U_Net"))
        found = logits(read_pytorch(path, steps=3), lee_reference["x"])
        assert np.abs(found - lee_reference["R2U_Net/logits"]).max() > 0.1

    @ALL_NETWORKS
    @pytest.mark.parametrize("steps", [2, 3])
    def test_equal_those_of_pytorch_at_five_levels(self, name, steps, rng, tmp_path, monkeypatch):
        pytest.importorskip("torch", reason="PyTorch is not installed; the stored numbers are compared")
        monkeypatch.setattr(sys, "path", [str(TESTS), *sys.path])
        from torch_lee import NETWORKS as THEIRS
        from torch_lee import Lee, outputs, randomised

        recurrent = THEIRS[name][0]
        theirs = randomised(Lee(*THEIRS[name], (4, 6, 8, 10, 12), t=steps), seed=2)
        path = write_npz(tmp_path / "w.npz", {n: a.numpy() for n, a in theirs.state_dict().items()})
        model = read_pytorch(path, **{"steps": steps} if recurrent else {})
        assert model.widths == (4, 6, 8, 10, 12)
        x = rng.normal(size=(2, 3, 48, 32)).astype(np.float32)
        expected = outputs(theirs, x)
        found = logits(model, x)
        assert np.abs(found - expected).max() <= TOLERANCE * max(1.0, np.abs(expected).max())


class TestNames:
    @ALL_NETWORKS
    def test_are_mapped_one_to_one(self, name, lee_state, tmp_path):
        model = read_pytorch(write_npz(tmp_path / "weights.npz", lee_state(name)))
        names = pytorch_names(model)
        assert list(names) == list(model.state_dict())
        theirs = [n for n in lee_state(name) if not n.endswith("num_batches_tracked")]
        assert sorted(names.values()) == sorted(theirs)

    def test_of_five_levels_are_those_of_lee_jun_hyun_s_code(self, rng):
        model = R2AttentionUNet(widths=(2,) * 5, up="nearest", norm="shared", rng=rng)
        names = pytorch_names(model)
        assert names["encoder.0.project.weight"] == "RRCNN1.Conv_1x1.weight"
        assert names["encoder.4.second.conv.bias"] == "RRCNN5.RCNN.1.conv.0.bias"
        assert names["encoder.1.first.norm.0.running_var"] == "RRCNN2.RCNN.0.conv.1.running_var"
        assert names["up.0.conv.weight"] == "Up5.up.1.weight"
        assert names["up.3.norm.bias"] == "Up2.up.2.bias"
        assert names["decoder.0.first.conv.weight"] == "Up_RRCNN5.RCNN.0.conv.0.weight"
        assert names["gates.0.from_below.weight"] == "Att5.W_g.0.weight"
        assert names["gates.3.psi_norm.running_mean"] == "Att2.psi.1.running_mean"
        assert names["head.bias"] == "Conv_1x1.bias"
        plain = pytorch_names(UNet(widths=(2,) * 5, up="nearest", norm="shared", rng=rng))
        assert plain["encoder.0.second.norm.weight"] == "Conv1.conv.4.weight"
        assert plain["decoder.3.second.conv.weight"] == "Up_conv2.conv.3.weight"

    def test_saved_from_data_parallel_lose_their_prefix(self, lee_reference, lee_state, tmp_path):
        parallel = {f"module.{n}": a for n, a in lee_state("U_Net").items()}
        model = read_pytorch(write_npz(tmp_path / "weights.npz", parallel))
        assert np.allclose(logits(model, lee_reference["x"]), lee_reference["U_Net/logits"], atol=TOLERANCE)

    def test_input_and_output_channels_are_read_from_the_shapes(self, rng, tmp_path):
        ours = R2UNet(1, 4, (2, 3), up="nearest", norm="shared", rng=rng)
        theirs = {pytorch_names(ours)[n]: a for n, a in ours.state_dict().items()}
        model = read_pytorch(write_npz(tmp_path / "weights.npz", theirs))
        assert logits(model, np.zeros((1, 1, 4, 4), np.float32)).shape == (1, 4, 4, 4)


class TestRefused:
    """In one line that names the file and, as in the file, the entries."""

    def changed(self, tmp_path, state, change):
        change(state)
        path = write_npz(tmp_path / "weights.npz", state)
        message = refusal(lambda: read_pytorch(path))
        assert message.startswith(f"{path}: ") and len(message) < 400
        return message

    def test_a_missing_entry(self, lee_state, tmp_path):
        message = self.changed(tmp_path, lee_state("U_Net"), lambda s: s.pop("Up3.up.1.bias"))
        assert "missing Up3.up.1.bias (4,); give the whole state_dict of one network" in message

    def test_an_unexpected_entry(self, lee_state, tmp_path):
        message = self.changed(tmp_path, lee_state("R2U_Net"), lambda s: s.update(extra=np.zeros(3)))
        assert ": unexpected extra (3,);" in message

    def test_an_entry_of_another_shape(self, lee_state, tmp_path):
        def transpose(s):
            s["Up_conv2.conv.0.weight"] = s["Up_conv2.conv.0.weight"].transpose(1, 0, 2, 3)

        message = self.changed(tmp_path, lee_state("AttU_Net"), transpose)
        assert "Up_conv2.conv.0.weight is (6, 3, 3, 3), expected (3, 6, 3, 3)" in message

    def test_of_many_problems_the_first_three_are_shown_and_the_others_counted(self, lee_state, tmp_path):
        def half(s):
            for name in [n for n in s if n.startswith("Up_RRCNN")]:
                del s[name]

        assert "and 25 more" in self.changed(tmp_path, lee_state("R2AttU_Net"), half)

    @pytest.mark.parametrize("missing", ["Conv2.conv.0.weight", "Conv_1x1.weight"])
    def test_a_missing_entry_that_determines_the_widths(self, missing, lee_state, tmp_path):
        message = self.changed(tmp_path, lee_state("U_Net"), lambda s: s.pop(missing))
        assert f"{missing} is missing" in message

    def test_another_network(self, tmp_path):
        message = self.changed(tmp_path, {"layer1.weight": np.zeros((2, 2))}, lambda s: None)
        assert "U_Net, R2U_Net, AttU_Net or R2AttU_Net; its first name is layer1.weight" in message
        assert "it is empty" in self.changed(tmp_path, {}, lambda s: None)

    @pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.complex64, "U3"])
    def test_an_entry_that_is_not_floating_point(self, lee_state, tmp_path, dtype):
        def convert(s):
            s["Conv1.conv.0.bias"] = np.ones(3, np.uint8).astype(dtype)

        assert "Conv1.conv.0.bias is " in self.changed(tmp_path, lee_state("U_Net"), convert)

    @pytest.mark.parametrize("shape", [(20_000, 3, 0, 3), (10**9, 3, 0, 3)])
    def test_shapes_of_a_huge_network_without_numbers(self, lee_state, tmp_path, shape):
        """An array without numbers may have any shape; the network of these shapes would take gigabytes."""
        state = {name: array for name, array in lee_state("U_Net").items() if "conv.0" not in name}
        state |= {f"Conv{n}.conv.0.weight": np.empty(shape, np.float32) for n in (1, 2, 3)}
        path = write_npz(tmp_path / "weights.npz", state)
        tracemalloc.start()
        message = refusal(lambda: read_pytorch(path))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert message.startswith(f"{path}: ") and len(message) < 500 and peak < 20_000_000

    def test_a_flipped_bit(self, lee_state, tmp_path):
        path = write_npz(tmp_path / "weights.npz", lee_state("U_Net"))
        content = bytearray(path.read_bytes())
        content[content.index(lee_state("U_Net")["Conv1.conv.0.weight"].tobytes()) + 30] ^= 1
        path.write_bytes(content)
        assert "Bad CRC-32" in refusal(lambda: read_pytorch(path))

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
    @pytest.mark.parametrize("name", ["weights.npz", "weights.safetensors"])
    def test_a_pipe(self, name, tmp_path):
        os.mkfifo(tmp_path / name)
        assert "not a regular file" in refusal(lambda: load_state_dict(tmp_path / name))

    def test_steps_for_a_network_without_recurrence(self, lee_state, tmp_path):
        path = write_npz(tmp_path / "weights.npz", lee_state("U_Net"))
        assert "has no recurrence" in refusal(lambda: read_pytorch(path, steps=3))

    def test_a_pickle_of_pytorch_with_a_command_to_convert_it(self, tmp_path):
        message = refusal(lambda: read_pytorch(tmp_path / "R2U_Net.pth"))
        assert "expected a .npz or .safetensors file" in message and "numpy.savez" in message

    @pytest.mark.parametrize("name", ["weights.npz", "weights.safetensors"])
    @pytest.mark.parametrize(
        "content", [b"", b"text", b"PK\x03\x04", b"\xff" * 64, b"\x02" + bytes(7) + b"[]"]
    )
    def test_a_damaged_file_and_a_missing_file(self, name, content, tmp_path):
        path = tmp_path / name
        assert refusal(lambda: load_state_dict(path)) == f"{path}: no such file; check the path"
        path.write_bytes(content)
        assert refusal(lambda: load_state_dict(path)).startswith(f"{path}: is not a {path.suffix} file")

    def test_an_array_of_objects_which_is_a_pickle(self, tmp_path):
        np.savez(tmp_path / "w.npz", a=np.array([{}], object))
        assert "is not a .npz file" in refusal(lambda: load_state_dict(tmp_path / "w.npz"))


class TestSafetensors:
    def read(self, tmp_path, content):
        (tmp_path / "w.safetensors").write_bytes(content)
        return load_state_dict(tmp_path / "w.safetensors")

    def test_a_minimal_file(self, tmp_path):
        header = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
        found = self.read(tmp_path, bytes([len(header), *bytes(7)]) + header + b"\0\0\x80\x3f\0\0\0\xc0")
        assert found.keys() == {"a"} and found["a"].tolist() == [1.0, -2.0]

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
    def test_keeps_dtype_shape_and_every_bit(self, dtype, rng, tmp_path):
        a, b = (100.0 * rng.normal(size=(2, 3, 4))).astype(dtype), np.array(7, dtype)
        found = self.read(tmp_path, safetensors({"a": a, "b": b}))
        for name, expected in (("a", a), ("b", b)):
            assert found[name].dtype == dtype
            np.testing.assert_array_equal(found[name], expected)

    def test_bfloat16_is_the_upper_half_of_a_float32(self, tmp_path):
        halves = np.array([0x3F80, 0xC000, 0x3EAB, 0x7F80], np.float64).astype("<u2")
        content = safetensors({"a": halves.view(np.float16)}, a="BF16")
        found = self.read(tmp_path, content)["a"]
        assert found.dtype == np.float32
        assert found.tolist() == [1.0, -2.0, 0.333984375, np.inf]

    def test_an_unsupported_dtype_is_refused_by_name(self, tmp_path):
        message = refusal(lambda: self.read(tmp_path, safetensors({"a": np.zeros(2, np.int8)})))
        assert "a is I8, expected one of F64, F32, F16, BF16, I64" in message

    @pytest.mark.parametrize(
        "entry",
        [
            {"shape": [3]},
            {"shape": [-1]},
            {"shape": [-1, -2]},
            {"data_offsets": [0, 16]},
            {"data_offsets": [8, 0]},
            {"data_offsets": [-8, 0]},
            {"data_offsets": [4, 12]},
        ],
        ids=str,
    )
    def test_a_shape_or_position_that_does_not_fit_is_refused(self, entry, tmp_path):
        header = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **entry}}
        text = json.dumps(header).encode()
        content = len(text).to_bytes(8, "little") + text + bytes(8)
        assert "w.safetensors: is not a .safetensors file" in refusal(lambda: self.read(tmp_path, content))

    def file(self, entries, numbers):
        """Return a file with any entries (name, offsets) of shape (2,), in this order."""
        texts = [
            f'"{name}":{{"dtype":"F32","shape":[2],"data_offsets":[{begin},{end}]}}'
            for name, begin, end in entries
        ]
        text = f"{{{','.join(texts)}}}".encode()
        return len(text).to_bytes(8, "little") + text + numbers

    @pytest.mark.parametrize(
        "entries, numbers, words",
        [
            ([("a", 0, 8), ("b", 0, 8)], 8, "b (2,) is in bytes 0 to 8, expected 8 to 16"),
            ([("a", 0, 8), ("b", 4, 12)], 12, "b (2,) is in bytes 4 to 12, expected 8 to 16"),
            ([("a", 0, 8), ("b", 16, 24)], 24, "b (2,) is in bytes 16 to 24, expected 8 to 16"),
            ([("a", 0, 8), ("a", 8, 16)], 16, "a is listed twice"),
            ([("a", 0, 8)], 16, "its tensors have 8 bytes, but the file has 16"),
            ([("a", 0, 8)], 4, "its tensors have 8 bytes, but the file has 4"),
        ],
        ids=["shared", "overlap", "gap", "duplicate", "more", "less"],
    )
    def test_tensors_that_do_not_cover_the_file_once_are_refused(self, tmp_path, entries, numbers, words):
        assert words in refusal(lambda: self.read(tmp_path, self.file(entries, bytes(numbers))))

    def test_tensors_in_another_order_than_their_numbers_are_read(self, tmp_path):
        numbers = np.array([1, 2, 3, 4], "<f4").tobytes()
        found = self.read(tmp_path, self.file([("b", 8, 16), ("a", 0, 8)], numbers))
        assert found["a"].tolist() == [1, 2] and found["b"].tolist() == [3, 4]

    def test_a_header_beyond_its_limit_is_refused(self, tmp_path):
        content = (2 * 1024**2).to_bytes(8, "little") + b"[" * 2 * 1024**2
        assert "more than the file or the limit" in refusal(lambda: self.read(tmp_path, content))

    def test_a_header_of_endless_nesting_is_refused(self, tmp_path):
        content = (500_000).to_bytes(8, "little") + b"[" * 500_000
        refusal(lambda: self.read(tmp_path, content))

    def test_a_truncated_file_is_refused(self, rng, tmp_path):
        content = safetensors({"a": rng.normal(size=9)})
        for length in (4, 20, len(content) - 1):
            refusal(lambda n=length: self.read(tmp_path, content[:n]))

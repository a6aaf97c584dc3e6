"""A checkpoint loads exactly as it was saved, is written atomically, and is rejected if it is damaged."""

import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from minidl import checkpoint
from minidl.checkpoint import CheckpointError

TREE = {
    "weights": np.random.default_rng(0).normal(size=(30, 40)).astype(np.float32),
    "nested": {"list": [1, 2.5, None, True, False, "text", [np.arange(3)], {}], "empty": []},
    "small": {"scalar": np.array(1.5), "nothing": np.zeros((0, 3), np.float32), "bytes": np.uint8([1, 255])},
    "flags": np.array([True, False]),
    "double": np.array([np.pi, -0.0, np.inf, np.nan]),
    "generator": np.random.default_rng(7).bit_generator.state,
    "unicode": "Läsion, 皮膚 \ud83d",
}


def equal(a, b):
    """Return whether two trees are equal, including types, dtypes and bits."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and a == b


@pytest.fixture
def path(tmp_path):
    return tmp_path / "last.npz"


@pytest.fixture
def saved(path):
    checkpoint.save(path, TREE)
    return path


class TestRoundTrip:
    def test_a_tree_loads_as_it_was_saved(self, saved):
        assert equal(checkpoint.load(saved), TREE)

    def test_the_text_takes_one_byte_for_each_character(self, path):
        checkpoint.save(path, {"a": ""})
        empty = path.stat().st_size
        checkpoint.save(path, {"a": "x" * 1000})
        assert path.stat().st_size == empty + 1000

    def test_a_text_that_numpy_stored_as_a_str_loads_too(self, path):
        """As earlier versions did."""
        text = '{"format": "minidl checkpoint 1", "tree": {"a": {"array": 0}, "b": "Läsion"}}'
        np.savez(path, tree=np.array(text), array0=np.ones(3))
        assert equal(checkpoint.load(path), {"a": np.ones(3), "b": "Läsion"})

    def test_a_path_may_be_a_string(self, path):
        checkpoint.save(str(path), {"a": 1})
        assert checkpoint.load(str(path)) == {"a": 1}

    @pytest.mark.parametrize(
        "array",
        [
            np.arange(6).reshape(2, 3).astype(dtype)
            for dtype in ("f2", "f4", "f8", "i1", "i8", "u8", "c16", ">f4", "?", "U3")
        ]
        + [np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(10)[::3], np.array(7), np.empty((0,))],
        ids=lambda a: f"{a.dtype}{a.shape}",
    )
    def test_arrays_keep_dtype_shape_and_bits(self, path, array):
        checkpoint.save(path, {"a": array})
        assert equal(checkpoint.load(path)["a"], array)

    def test_a_generator_resumes_from_its_saved_state(self, path):
        rng = np.random.default_rng(5)
        rng.normal(size=3)
        checkpoint.save(path, {"random": rng.bit_generator.state})
        other = np.random.default_rng(0)
        other.bit_generator.state = checkpoint.load(path)["random"]
        assert other.integers(2**63) == rng.integers(2**63)

    def test_numpy_numbers_become_python_numbers_tuples_become_lists_and_keys_become_strings(self, path):
        tree = {"a": np.float64(0.1), "b": np.int64(2**62), "c": np.bool_(True), "d": (1, (2,)), 5: "five"}
        checkpoint.save(path, tree)
        expected = {"a": 0.1, "b": 2**62, "c": True, "d": [1, [2]], "5": "five"}
        assert equal(checkpoint.load(path), expected)

    def test_arrays_of_any_device_load_as_numpy_arrays(self, path, put):
        checkpoint.save(path, {"a": put(np.arange(4.0))})
        assert equal(checkpoint.load(path), {"a": np.arange(4.0)})

    def test_the_tree_is_not_changed(self, path):
        tree = {"a": {"b": (np.arange(3),)}}
        checkpoint.save(path, tree)
        assert equal(tree["a"]["b"][0], np.arange(3))

    def test_the_same_tree_gives_the_same_bytes(self, saved, tmp_path):
        checkpoint.save(tmp_path / "again.npz", TREE)
        assert saved.read_bytes() == (tmp_path / "again.npz").read_bytes()
        with zipfile.ZipFile(saved) as file:  # both could have been written in the same second
            assert {part.date_time for part in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}

    def test_numpy_opens_it_without_pickle(self, saved):
        with np.load(saved, allow_pickle=False) as file:
            assert equal(file["array0"], TREE["weights"])
            assert all(not file[name].dtype.hasobject for name in file.files)


class TestNotSaved:
    def rejected(self, path, tree, kind, match):
        checkpoint.save(path, {"kept": 1})
        with pytest.raises(kind, match=match):
            checkpoint.save(path, tree)
        assert checkpoint.load(path) == {"kept": 1}
        assert [p.name for p in path.parent.iterdir()] == [path.name]

    def test_arrays_of_python_objects(self, path):
        self.rejected(path, {"a": np.array([{}, None])}, TypeError, "would need pickle")
        self.rejected(path, {"a": np.zeros(2, [("x", object)])}, TypeError, "would need pickle")

    def test_types_that_json_does_not_have(self, path):
        self.rejected(path, {"a": {1, 2}}, TypeError, "set")

    def test_a_dictionary_that_looks_like_a_reference_to_an_array(self, path):
        self.rejected(path, {"b": np.ones(2), "a": {"array": 0}}, ValueError, "use another key")

    def test_a_dictionary_with_more_keys_than_array_is_saved(self, path):
        tree = {"a": {"array": 0, "b": 1}, "b": [np.ones(2)]}
        checkpoint.save(path, tree)
        assert equal(checkpoint.load(path), tree)


class TestDamage:
    def rejected(self, path):
        with pytest.raises(CheckpointError) as fault:
            checkpoint.load(path)
        message = str(fault.value)
        assert message.startswith(f"{path}: ") and "\n" not in message
        assert "pickle" not in message  # NumPy's own message advises allow_pickle=True
        return message

    def test_any_changed_byte_is_either_rejected_or_harmless(self, path):
        """Dates and attributes in the zip file have no checksum, but they are not used."""
        tree = {"weights": np.arange(5.0), "settings": {"epochs": 40}}
        checkpoint.save(path, tree)
        whole = path.read_bytes()
        rng = np.random.default_rng(1)
        places, rejections = range(0, len(whole), 3), 0
        for place in places:
            damaged = bytearray(whole)
            damaged[place] ^= int(rng.integers(1, 256))
            path.write_bytes(damaged)
            try:
                assert equal(checkpoint.load(path), tree), f"byte {place} of {len(whole)}"
            except CheckpointError:
                rejections += 1
        assert rejections > len(places) / 2

    @pytest.mark.parametrize(
        ("before", "after"), [(b"(3000,)", b"(2000,)"), (b"<f8", b"<f4"), (b"<f8", b">f8")]
    )
    def test_a_changed_array_header_is_rejected(self, path, before, after):
        checkpoint.save(path, {"a": np.arange(3000.0)})
        whole = path.read_bytes()
        assert whole.count(before) == 1
        path.write_bytes(whole.replace(before, after))
        assert "Bad CRC-32" in self.rejected(path)

    def test_a_truncated_file_is_rejected_at_every_length(self, saved):
        whole = saved.read_bytes()
        for length in (*range(0, len(whole), 97), len(whole) - 1):
            saved.write_bytes(whole[:length])
            self.rejected(saved)

    def test_a_file_of_zeros_is_rejected(self, saved):
        saved.write_bytes(bytes(saved.stat().st_size))
        self.rejected(saved)

    @pytest.mark.parametrize(
        "content", [b"", b"epoch,loss\n1,0.5\n", b"\x80\x04N."], ids=["empty", "text", "pickle"]
    )
    def test_a_file_of_another_kind_is_rejected(self, path, content):
        path.write_bytes(content)
        assert "is not a checkpoint" in self.rejected(path)

    def test_other_npz_and_npy_files_are_rejected(self, path):
        np.savez(path, w=np.ones(3))
        self.rejected(path)
        np.savez(path, tree=np.ones(3))
        self.rejected(path)
        np.savez(path, tree=np.array('["a list"]'))
        self.rejected(path)
        np.savez(path, tree=np.array('{"format": "minidl checkpoint 1", "tree": {"array": 0}}'))
        self.rejected(path)  # array 0 is missing
        with open(path, "wb") as file:
            np.save(file, np.ones(3))
        self.rejected(path)

    def test_loading_runs_no_code_from_the_file(self, path, tmp_path):
        class Trap:
            def __reduce__(self):
                return (open, (str(tmp_path / "sprung"), "w"))

        np.savez(path, tree=np.array([Trap()]))
        with pytest.raises(CheckpointError, match="is not a checkpoint"):
            checkpoint.load(path)
        assert not (tmp_path / "sprung").exists()

    def document(self, path, tree, **arrays):
        """Write a checkpoint with any JSON text as its tree."""
        np.savez(path, tree=np.array(f'{{"format": "minidl checkpoint 1", "tree": {tree}}}'), **arrays)

    def test_an_array_with_two_places_in_the_tree_is_rejected(self, path):
        self.document(path, '{"a": {"array": 0}, "b": {"array": 0}}', array0=np.ones(3))
        assert "array0" in self.rejected(path)

    def test_endless_nesting_is_rejected(self, path):
        self.document(path, "[" * 100_000 + "]" * 100_000)
        self.rejected(path)

    def test_a_tree_that_is_too_long_is_rejected(self, path, monkeypatch):
        monkeypatch.setattr(checkpoint, "MAX_CHARACTERS", 1000)
        self.document(path, "[" + "[]," * 400 + "1]")
        assert "longer than 1,000 characters" in self.rejected(path)
        with pytest.raises(CheckpointError, match="longer than 1,000 characters"):
            checkpoint.save(path, {"a": "x" * 1000})
            checkpoint.load(path)

    def test_a_text_that_is_not_ascii_is_rejected(self, path):
        np.savez(path, tree=np.array('{"format": "minidl checkpoint 1", "tree": {"ä": 1}}'.encode()))
        assert "ascii" in self.rejected(path)

    def test_compressed_arrays_are_rejected(self, path):
        np.savez_compressed(path, tree=np.array("{}"), array0=np.zeros(1_000_000))
        assert "is compressed" in self.rejected(path)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
    def test_a_pipe_and_an_endless_device_are_rejected_at_once(self, path):
        os.mkfifo(path)
        assert "not a regular file" in self.rejected(path)
        with pytest.raises(CheckpointError, match="not a regular file"):
            checkpoint.load("/dev/zero")

    def test_the_error_for_another_format_names_both(self, path):
        np.savez(path, tree=np.array('{"format": "minidl checkpoint 2", "tree": {}}'))
        message = self.rejected(path)
        assert "'minidl checkpoint 2'" in message and "expected 'minidl checkpoint 1'" in message

    def test_a_folder_is_rejected(self, tmp_path):
        assert "directory" in self.rejected(tmp_path)

    def test_a_missing_file_raises_file_not_found(self, path):
        with pytest.raises(FileNotFoundError):
            checkpoint.load(path)


class TestAtomicWriting:
    def test_a_failed_write_leaves_only_the_old_file(self, saved, monkeypatch):
        def full(descriptor):
            raise OSError(28, "No space left on device")

        before = saved.read_bytes()
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            checkpoint.save(saved, {"new": np.zeros(1000)})
        assert saved.read_bytes() == before
        assert [p.name for p in saved.parent.iterdir()] == [saved.name]

    def test_ctrl_c_during_a_write_leaves_only_the_old_file(self, saved, monkeypatch):
        def interrupted(descriptor):
            raise KeyboardInterrupt

        before = saved.read_bytes()
        monkeypatch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(saved, {"new": np.zeros(1000)})
        assert saved.read_bytes() == before
        assert [p.name for p in saved.parent.iterdir()] == [saved.name]

    def test_a_full_disk_leaves_only_the_old_file(self, saved):
        resource = pytest.importorskip("resource", reason="file sizes can be limited on POSIX only")
        program = (
            "import resource, signal, sys, numpy\n"
            "from minidl import checkpoint\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
            "checkpoint.save(sys.argv[1], {'new': numpy.zeros(100_000)})\n"
        )
        assert resource.RLIMIT_FSIZE is not None
        before = saved.read_bytes()
        run = subprocess.run([sys.executable, "-c", program, str(saved)], capture_output=True, text=True)
        assert run.returncode == 1 and "OSError" in run.stderr
        assert saved.read_bytes() == before
        assert [p.name for p in saved.parent.iterdir()] == [saved.name]

    def test_saving_over_a_file_replaces_it(self, saved):
        checkpoint.save(saved, {"new": 2})
        assert checkpoint.load(saved) == {"new": 2}
        assert [p.name for p in saved.parent.iterdir()] == [saved.name]

    def test_a_missing_folder_raises_an_os_error(self, tmp_path):
        with pytest.raises(OSError, match="absent"):
            checkpoint.save(tmp_path / "absent" / "last.npz", {})

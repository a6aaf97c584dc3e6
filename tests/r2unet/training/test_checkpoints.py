"""Checkpoints: their content is plain arrays; other and damaged files are refused with a remedy."""

import dataclasses
import tracemalloc
import zipfile

import numpy as np
import pytest

from minidl import checkpoint
from r2unet.training.checkpoints import load_model, read_settings, read_state
from r2unet.training.settings import Settings
from tests.r2unet.refusal import refusal

REGRESSION = {
    "mean": np.zeros(2),
    "scale": np.ones(2),
    "weights": np.zeros((3, 2)),
    "biases": np.array([0.0, 1.0, -np.inf]),  # a class without training images
}
DIAGNOSIS = {
    "log_weights": np.zeros(3),
    "temperature": {"one view": 1.5, "eight views": 1.0},
    "shares": np.full(3, 1 / 3),
    "regression": REGRESSION,
}


class TestContent:
    def test_is_plain_arrays_and_no_pickle(self, trained):
        with np.load(trained / "last.npz", allow_pickle=False) as file:
            assert all(file[name].dtype.kind in "fiuS" for name in file.files)

    def test_settings_of_other_versions_are_accepted(self):
        settings = dataclasses.asdict(Settings())
        # An older version had none of these settings; their defaults describe its behaviour.
        for name in ("clip", "model", "share_weights", "skips", "up", "norm", "loss"):
            del settings[name]
        assert read_settings({"settings": {**settings, "colour": "blue"}}) == Settings()


class TestLoadModel:
    def test_a_model_is_loaded_in_evaluation_mode_with_its_settings(self, trained):
        model, settings, state = load_model(trained / "best.npz")
        assert settings == Settings(size=16, widths=(2, 4), batch_size=4, epochs=2, images=10)
        assert not model.training and model.widths == (2, 4)
        assert all(np.array_equal(state["model"][name], value) for name, value in model.state_dict().items())
        assert state["program"] == "r2unet" and state["version"]

    @pytest.mark.parametrize(
        "change, word",
        [
            ({"settings": {"widths": [2, 6]}}, "shape|expected"),
            ({"settings": {"widths": 8}}, ""),
            ({"settings": {"widths": [2, 4], "size": 7}}, "--size 7"),
            ({"settings": {"widths": [2, 4], "size": 16, "model": "unet"}}, "missing"),
            ({"settings": {"widths": [2, 4], "size": 16, "norm": "weird"}}, "--norm weird"),
            ({"settings": {}}, "widths"),
            ({"settings": None}, ""),
            ({"model": {}}, "missing"),
            ({"model": None}, ""),
        ],
    )
    def test_weights_that_do_not_fit_the_settings_are_refused(self, trained, tmp_path, change, word):
        file = tmp_path / "odd.npz"
        checkpoint.save(file, {**read_state(trained / "best.npz"), **change})
        message = refusal(lambda: load_model(file))
        assert message.startswith(f"{file}: its parts do not fit together") and len(message) < 400
        assert any(part in message for part in word.split("|"))

    @pytest.mark.parametrize(
        "name, value, word",
        [
            ("encoder.0.first.norm.0.running_var", -0.5, "contains -0.5, but a variance cannot be negative"),
            ("encoder.0.first.norm.0.running_mean", np.inf, "contains NaN or infinity"),
            ("head.weight", np.nan, "contains NaN or infinity"),
            ("head.weight", 1e300, "contains NaN or infinity"),
        ],
    )
    def test_one_wrong_weight_is_refused_by_name(self, trained, tmp_path, recwarn, name, value, word):
        state = read_state(trained / "best.npz")
        state["model"][name] = state["model"][name].astype(np.float64)
        state["model"][name].flat[0] = value
        checkpoint.save(tmp_path / "odd.npz", state)
        assert f"({name} {word})" in refusal(lambda: load_model(tmp_path / "odd.npz"))
        assert not recwarn

    @pytest.mark.parametrize("dtype", [np.complex64, np.uint8, np.int64, "U3", "M8[s]"])
    def test_weights_that_are_not_floating_point_are_refused_by_name(self, trained, tmp_path, dtype):
        state = read_state(trained / "best.npz")
        state["model"]["head.bias"] = np.ones(1, np.uint8).astype(dtype)
        checkpoint.save(tmp_path / "odd.npz", state)
        assert "head.bias is " in refusal(lambda: load_model(tmp_path / "odd.npz"))

    def test_settings_of_a_huge_network_are_refused_without_memory_for_it(self, trained, tmp_path):
        state = read_state(trained / "best.npz")
        state["settings"] |= {"widths": [4096] * 5, "size": 16, "steps": 20}
        checkpoint.save(tmp_path / "huge.npz", state)
        tracemalloc.start()
        message = refusal(lambda: load_model(tmp_path / "huge.npz"))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert "its parts do not fit together" in message and peak < 20_000_000

    @pytest.mark.parametrize(
        "change",
        [
            {"mean_mask": np.full((4, 4), 0.5)},
            {"mean_mask": np.zeros((4, 4, 3), np.uint8)},
            {"mean_mask": [["text"]]},
            {"prediction": {"tta": "yes"}},
            {"prediction": 3},
            {"licence": 3},
            {"diagnosis": {}},
            {"diagnosis": DIAGNOSIS | {"log_weights": np.zeros(2)}},
            {"diagnosis": DIAGNOSIS | {"shares": np.full(3, np.nan)}},
            {"diagnosis": DIAGNOSIS | {"shares": np.array([0.2, 3.4e38, 3.4e38])}},
            {"diagnosis": DIAGNOSIS | {"shares": np.array([1.5, -0.5, 0.0])}},
            {"diagnosis": DIAGNOSIS | {"temperature": {"one view": 0.0, "eight views": 1.0}}},
            {"diagnosis": DIAGNOSIS | {"temperature": {"one view": 1.0}}},
            {"diagnosis": DIAGNOSIS | {"regression": {"mean": np.zeros(2)}}},
            {"diagnosis": DIAGNOSIS | {"regression": REGRESSION | {"scale": np.array([1.0, 0.0])}}},
            {"diagnosis": DIAGNOSIS | {"regression": REGRESSION | {"mean": np.array([0.0, np.nan])}}},
            {"diagnosis": DIAGNOSIS | {"regression": REGRESSION | {"weights": np.full((3, 2), 1e300)}}},
            {"diagnosis": DIAGNOSIS | {"regression": REGRESSION | {"biases": np.full(3, -np.inf)}}},
            {"settings": {"widths": [2, 4], "size": 16, "steps": 10**400}},
            {"settings": {"widths": [2, 4], "size": 16, "lr": {}}},
            {"settings": {"widths": [np.zeros((3, 1)), 4], "size": 16}},
            {"settings": {"widths": [2, 4] + [1] * 100_000, "size": 16}},
        ],
        ids=lambda change: str(change)[:60],
    )
    def test_entries_that_prediction_or_scores_cannot_use_are_refused(self, trained, tmp_path, change):
        file = tmp_path / "odd.npz"
        checkpoint.save(file, {**read_state(trained / "best.npz"), **change})
        message = refusal(lambda: load_model(file))
        assert message.startswith(f"{file}: its parts do not fit together") and len(message) < 600

    def test_a_complete_diagnosis_is_accepted(self, trained, tmp_path):
        checkpoint.save(tmp_path / "a.npz", {**read_state(trained / "best.npz"), "diagnosis": DIAGNOSIS})
        assert load_model(tmp_path / "a.npz")[2]["diagnosis"]["temperature"]["one view"] == 1.5


class TestRefused:
    @pytest.mark.parametrize(
        "content", [b"", b"some text", b"PK\x03\x04", b"\x93NUMPY"], ids=["empty", "text", "zip", "npy"]
    )
    def test_other_files(self, tmp_path, content):
        file = tmp_path / "best.npz"
        file.write_bytes(content)
        message = refusal(lambda: read_state(file))
        assert message.startswith(f"{file}: ") and "give the best.npz" in message

    def test_a_folder_and_a_missing_file(self, tmp_path):
        assert f"{tmp_path}: " in refusal(lambda: read_state(tmp_path))
        assert "no such checkpoint" in refusal(lambda: read_state(tmp_path / "best.npz"))

    def test_archives_of_other_programs(self, tmp_path):
        np.savez(tmp_path / "arrays.npz", x=np.zeros(3))
        assert "is not a checkpoint" in refusal(lambda: read_state(tmp_path / "arrays.npz"))
        with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
            archive.writestr("a.txt", "hello")
        assert "is not a checkpoint" in refusal(lambda: read_state(tmp_path / "photos.zip"))
        for program in ("another", np.array(["r2unet", "r2unet"]), None):
            checkpoint.save(tmp_path / "other.npz", {"program": program})
            assert "is a checkpoint of another program" in refusal(lambda: read_state(tmp_path / "other.npz"))

    def test_a_damaged_checkpoint(self, trained, tmp_path):
        content = (trained / "best.npz").read_bytes()
        file = tmp_path / "best.npz"
        file.write_bytes(content[: len(content) // 2])
        assert str(file) in refusal(lambda: read_state(file))
        weights = read_state(trained / "best.npz")["model"]["encoder.1.first.conv.weight"].tobytes()
        place = content.index(weights) + 10
        damaged = bytearray(content)
        damaged[place] ^= 1
        file.write_bytes(damaged)
        assert str(file) in refusal(lambda: read_state(file))

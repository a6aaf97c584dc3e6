"""Checkpoints: their content is plain arrays; other and damaged files are refused with a remedy."""

import dataclasses
import zipfile

import numpy as np
import pytest

from minidl import checkpoint
from r2unet.training.checkpoints import load_model, read_settings, read_state
from r2unet.training.settings import Settings
from tests.r2unet.refusal import refusal


class TestContent:
    def test_is_plain_arrays_and_no_pickle(self, trained):
        with np.load(trained / "last.npz", allow_pickle=False) as file:
            assert all(file[name].dtype.kind in "fiuU" for name in file.files)

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
        checkpoint.save(tmp_path / "other.npz", {"program": "another"})
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

"""The folder that a run leaves: its checkpoints and histories, and what is refused."""

import csv
import dataclasses
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minidl import checkpoint
from r2unet.errors import InputError
from r2unet.training.run_folder import (
    begin,
    check_writable,
    load_datasets,
    load_model,
    read_settings,
    read_state,
    write_history,
)
from r2unet.training.settings import Settings


def refusal(call) -> str:
    """Return the one line that the call is refused with."""
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestDatasets:
    def test_generated_lesions_do_not_overlap_and_validation_stays(self):
        training, validation = load_datasets(Settings(images=10, size=16))
        assert (len(training), len(validation)) == (10, 2)
        pictures = {s.image.tobytes() for s in (*training, *validation)}
        assert len(pictures) == 12
        _, larger = load_datasets(Settings(images=20, size=16))
        assert np.array_equal(larger[1].image, validation[1].image)

    def test_one_image_still_has_one_to_validate_on(self):
        assert [len(data) for data in load_datasets(Settings(images=1, size=16))] == [1, 1]

    def test_a_folder_gives_its_official_splits(self, isic):
        training, validation = load_datasets(Settings(data=str(isic), size=8))
        assert (len(training), len(validation)) == (5, 3)
        assert validation[0].name == "ISIC_0000005" and validation[0].image.shape == (8, 8, 3)


class TestCheckpoints:
    def test_a_model_comes_back_in_evaluation_with_its_settings(self, trained):
        model, settings, state = load_model(trained / "best.npz")
        assert settings == Settings(size=16, widths=(2, 4), batch_size=4, epochs=2, images=10)
        assert not model.training and model.widths == (2, 4)
        assert all(np.array_equal(state["model"][name], value) for name, value in model.state_dict().items())
        assert state["program"] == "r2unet" and state["version"]

    def test_they_are_plain_arrays_and_no_pickle(self, trained):
        with np.load(trained / "last.npz", allow_pickle=False) as file:
            assert all(file[name].dtype.kind in "fiuU" for name in file.files)

    def test_a_setting_of_another_version_is_no_obstacle(self):
        settings = dataclasses.asdict(Settings())
        # Older than these: the default then was the default now.
        for name in ("clip", "model", "share_weights", "skips", "up", "norm", "loss"):
            del settings[name]
        assert read_settings({"settings": {**settings, "colour": "blue"}}) == Settings()

    @pytest.mark.parametrize(
        "content", [b"", b"some text", b"PK\x03\x04", b"\x93NUMPY"], ids=["empty", "text", "zip", "npy"]
    )
    def test_another_file_is_refused(self, tmp_path, content):
        file = tmp_path / "best.npz"
        file.write_bytes(content)
        message = refusal(lambda: read_state(file))
        assert message.startswith(f"{file}: ") and "give the best.npz" in message

    def test_a_folder_or_nothing_is_refused(self, tmp_path):
        assert f"{tmp_path}: " in refusal(lambda: read_state(tmp_path))
        assert "no such checkpoint" in refusal(lambda: read_state(tmp_path / "best.npz"))

    def test_a_foreign_archive_is_refused(self, tmp_path):
        np.savez(tmp_path / "arrays.npz", x=np.zeros(3))
        assert "is no checkpoint" in refusal(lambda: read_state(tmp_path / "arrays.npz"))
        with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
            archive.writestr("a.txt", "hello")
        assert "is no checkpoint" in refusal(lambda: read_state(tmp_path / "photos.zip"))
        checkpoint.save(tmp_path / "other.npz", {"program": "another"})
        assert "not of this program" in refusal(lambda: read_state(tmp_path / "other.npz"))

    def test_a_damaged_one_is_refused(self, trained, tmp_path):
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

    @pytest.mark.parametrize(
        "change, word",
        [
            ({"settings": {"widths": [2, 6]}}, "shape|want"),
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


class TestBegin:
    def test_a_fresh_folder_takes_what_was_given(self, tmp_path):
        for resume in (False, True):  # the same command may be repeated until the training is done
            settings, state = begin(tmp_path / "new", {"size": 64}, resume)
            assert settings == Settings(size=64) and state is None
        assert not (tmp_path / "new").exists()
        assert "--size 65" in refusal(lambda: begin(tmp_path, {"size": 65}, False))

    @pytest.mark.parametrize("left", ["last.npz", "best.npz"])
    def test_a_training_is_never_overwritten(self, trained, tmp_path, left):
        (tmp_path / left).write_bytes((trained / left).read_bytes())
        assert "go on with --resume" in refusal(lambda: begin(tmp_path, {}, False))
        settings, state = begin(tmp_path, {}, True)
        assert settings.widths == (2, 4) and len(state["history"]) >= 1

    def test_last_goes_before_best(self, trained, tmp_path):
        checkpoint.save(tmp_path / "last.npz", {**read_state(trained / "last.npz"), "mark": "last"})
        checkpoint.save(tmp_path / "best.npz", {**read_state(trained / "best.npz"), "mark": "best"})
        assert begin(tmp_path, {}, True)[1]["mark"] == "last"

    @pytest.mark.parametrize(
        "given, words",
        [
            ({"widths": (8, 16)}, "--widths 8,16: this training began with 2,4"),
            ({"lr": 0.1}, "--lr 0.1: this training began with 0.001"),
            ({"batch_size": 5}, "--batch-size 5: this training began with 4"),
            ({"model": "unet"}, "--model unet: this training began with r2unet"),
            ({"share_weights": False}, "--share-weights no: this training began with yes"),
        ],
    )
    def test_going_on_changes_nothing(self, trained, given, words):
        assert words in refusal(lambda: begin(trained, given, True))

    def test_what_is_repeated_may_stay_and_data_may_have_moved(self, trained):
        settings, _ = begin(trained, {"widths": (2, 4), "data": "elsewhere"}, True)
        assert settings.widths == (2, 4) and settings.data == "elsewhere"
        assert begin(trained, {}, True)[0].data is None


class TestFolder:
    def test_where_files_can_go_is_found_out_without_making_anything(self, tmp_path):
        check_writable("--out", tmp_path / "a" / "b")
        assert list(tmp_path.iterdir()) == []

    def test_a_file_in_the_way_is_named(self, tmp_path):
        file = tmp_path / "notes.txt"
        file.write_text("")
        for out in (file, file / "a" / "b"):
            message = refusal(lambda out=out: check_writable("--out", out))
            assert message == f"--out {out}: {file} is a file; choose a folder"

    @pytest.mark.skipif(
        not Path("/proc/self").exists(), reason="needs a folder where even root may not write"
    )
    def test_a_folder_without_permission_is_named(self):
        message = refusal(lambda: check_writable("--out", Path("/proc/self/x")))
        assert message == "--out /proc/self/x: no permission to write into /proc/self; choose another folder"

    def test_history_is_a_table_and_a_picture(self, tmp_path):
        rows = [{"epoch": n, "train_loss": 1 / n, "validation_jaccard": 0.1 * n} for n in (1, 2, 3)]
        write_history(tmp_path / "new", rows)
        with open(tmp_path / "new" / "history.csv", newline="") as file:
            read = list(csv.DictReader(file))
        assert [{name: float(value) for name, value in row.items()} for row in read] == rows
        with Image.open(tmp_path / "new" / "curves.png") as picture:
            assert picture.format == "PNG"

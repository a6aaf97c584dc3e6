"""The folder of a run: data sets, starting and resuming; invalid input is refused."""

import os
import shutil

import numpy as np
import pytest

from minidl import checkpoint
from r2unet.training.checkpoints import read_state
from r2unet.training.run_folder import KeptFile, load_datasets, start_or_resume
from r2unet.training.settings import Settings
from tests.r2unet.refusal import refusal


class TestDatasets:
    def test_generated_sets_do_not_overlap_and_validation_does_not_depend_on_their_number(self):
        training, validation = load_datasets(Settings(images=10, size=16))
        assert (len(training), len(validation)) == (10, 2)
        pictures = {s.image.tobytes() for s in (*training, *validation)}
        assert len(pictures) == 12
        _, larger = load_datasets(Settings(images=20, size=16))
        assert np.array_equal(larger[1].image, validation[1].image)

    def test_one_training_image_comes_with_one_validation_image(self):
        assert [len(data) for data in load_datasets(Settings(images=1, size=16))] == [1, 1]

    def test_a_folder_is_read_with_its_official_splits(self, isic):
        training, validation = load_datasets(Settings(data=str(isic), size=8))
        assert (len(training), len(validation)) == (5, 3)
        assert validation[0].name == "ISIC_0000005" and validation[0].image.shape == (8, 8, 3)


class TestLabels:
    """What the task needs is found: masks for the outline, labels for the diagnosis."""

    @pytest.fixture
    def labels(self, isic):
        table = isic.parent / "labels.csv"
        rows = [f"ISIC_{number:07},{('benign', 'malignant')[number % 2]}\n" for number in range(8)]
        table.write_text("".join(rows))
        return table

    def test_given_labels_are_read(self, isic, labels):
        settings = Settings(data=str(isic), labels=str(labels), task="both", size=8)
        validation = load_datasets(settings)[1]
        diagnoses = [validation[i].diagnosis for i in range(3)]
        assert diagnoses == ["malignant", "benign", "malignant"]

    @pytest.mark.parametrize("task", ["both", "diagnosis"])
    def test_a_diagnosis_needs_labels(self, isic, task):
        words = refusal(lambda: load_datasets(Settings(data=str(isic), task=task, size=8)))
        assert "(and 4 more): this image has no diagnosis" in words and "--labels" in words
        assert len(load_datasets(Settings(data=str(isic), task="outline", size=8))[0]) == 5

    @pytest.mark.parametrize("task", ["both", "outline"])
    def test_an_outline_needs_masks(self, isic, labels, task):
        shutil.rmtree(isic / "ISIC-2017_Training_Part1_GroundTruth")
        given = {"data": str(isic), "labels": str(labels), "size": 8}
        assert "Part1_GroundTruth: this folder of ISIC 2017 is missing" in refusal(
            lambda: load_datasets(Settings(**given, task=task))
        )
        training, validation = load_datasets(Settings(**given, task="diagnosis"))
        assert not training[0].mask.any() and validation[0].mask.any()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_named_like_the_best_state_is_an_error(tmp_path):
    os.mkfifo(tmp_path / "best.npz")
    with pytest.raises(OSError, match="not a regular file"), KeptFile(tmp_path / "best.npz"):
        pass


class TestStartOrResume:
    def test_a_new_folder_takes_the_given_settings(self, tmp_path):
        for resume in (False, True):  # so the same command can be repeated until training is finished
            settings, state = start_or_resume(tmp_path / "new", {"size": 64}, resume)
            assert settings == Settings(size=64) and state is None
        assert not (tmp_path / "new").exists()
        assert "--size 65" in refusal(lambda: start_or_resume(tmp_path, {"size": 65}, False))

    @pytest.mark.parametrize("left", ["last.npz", "best.npz"])
    def test_an_existing_run_is_never_overwritten(self, trained, tmp_path, left):
        (tmp_path / left).write_bytes((trained / left).read_bytes())
        assert "add --resume" in refusal(lambda: start_or_resume(tmp_path, {}, False))
        settings, state = start_or_resume(tmp_path, {}, True)
        assert settings.widths == (2, 4) and len(state["history"]) >= 1

    def test_last_is_preferred_to_best(self, trained, tmp_path):
        checkpoint.save(tmp_path / "last.npz", {**read_state(trained / "last.npz"), "mark": "last"})
        checkpoint.save(tmp_path / "best.npz", {**read_state(trained / "best.npz"), "mark": "best"})
        assert start_or_resume(tmp_path, {}, True)[1]["mark"] == "last"

    @pytest.fixture
    def best_with(self, trained, tmp_path):
        """A function that copies the run, and gives its best.npz another setting."""

        def copy(name, value):
            shutil.copy(trained / "last.npz", tmp_path)
            state = read_state(trained / "best.npz")
            checkpoint.save(tmp_path / "best.npz", {**state, "settings": {**state["settings"], name: value}})

        return copy

    def test_the_best_state_of_another_run_is_refused(self, best_with, tmp_path):
        best_with("loss", "focal")
        message = refusal(lambda: start_or_resume(tmp_path, {}, True))
        assert message.startswith(
            f"{tmp_path / 'best.npz'}: is of another run than last.npz (its --loss is foc"
        )
        assert message.endswith("; delete this file, and --resume puts the newest state in its place")
        (tmp_path / "best.npz").unlink()
        assert start_or_resume(tmp_path, {}, True)[1]["history"]

    def test_the_best_state_before_the_images_moved_is_of_the_same_run(self, best_with, tmp_path):
        best_with("data", "moved")
        assert start_or_resume(tmp_path, {}, True)[1]["history"]

    @pytest.fixture
    def damaged(self, trained, tmp_path):
        """A copy of the run, whose last.npz is damaged."""
        for name in ("last.npz", "best.npz"):
            (tmp_path / name).write_bytes((trained / name).read_bytes())
        (tmp_path / "last.npz").write_bytes(b"damaged")
        return tmp_path

    def test_a_damaged_state_is_moved_aside_to_resume_from_the_best_one(self, damaged, capsys):
        for name in ("last.npz.damaged", "last.npz.damaged2"):  # an earlier one is never overwritten
            (damaged / "last.npz").write_bytes(name.encode())
            assert start_or_resume(damaged, {}, True)[1]["history"]
            assert (damaged / name).read_bytes() == name.encode() and not (damaged / "last.npz").exists()
            err = capsys.readouterr().err
            assert err.startswith(f"{damaged / 'last.npz'}: is not a checkpoint of this program")
            assert f"renaming it to {name} and resuming from best.npz" in err and err.count("\n") == 1

    def test_a_damaged_state_stays_if_nothing_is_to_be_written_or_a_setting_differs(self, damaged):
        for given, write, words in (({}, False, "without --profile"), ({"lr": 0.1}, True, "--lr 0.1: ")):
            assert words in refusal(lambda g=given, w=write: start_or_resume(damaged, g, True, w))
            assert (damaged / "last.npz").read_bytes() == b"damaged"

    def test_a_state_that_cannot_be_opened_is_not_damaged(self, damaged):
        (damaged / "last.npz").unlink()
        (damaged / "last.npz").mkdir()
        assert "correct that, and --resume again" in refusal(lambda: start_or_resume(damaged, {}, True))
        assert (damaged / "last.npz").is_dir()

    def test_without_an_undamaged_state_nothing_is_moved(self, damaged):
        (damaged / "best.npz").write_bytes(b"damaged")
        message = refusal(lambda: start_or_resume(damaged, {}, True))
        assert message.endswith("; delete both, and --resume starts again")
        assert (damaged / "last.npz").exists()
        (damaged / "last.npz").unlink()
        message = refusal(lambda: start_or_resume(damaged, {}, True))
        assert message.endswith("; delete this file, and --resume starts again")

    @pytest.mark.parametrize(
        "given, words",
        [
            ({"widths": (8, 16)}, "--widths 8,16: this run was started with 2,4"),
            ({"lr": 0.1}, "--lr 0.1: this run was started with 0.001"),
            ({"batch_size": 5}, "--batch-size 5: this run was started with 4"),
            ({"model": "unet"}, "--model unet: this run was started with r2unet"),
            ({"share_weights": False}, "--share-weights no: this run was started with yes"),
        ],
    )
    def test_resuming_with_other_settings_is_refused(self, trained, given, words):
        assert words in refusal(lambda: start_or_resume(trained, given, True))

    def test_resuming_accepts_equal_settings_and_another_path_of_the_data(self, trained):
        settings, _ = start_or_resume(trained, {"widths": (2, 4), "data": "elsewhere"}, True)
        assert settings.widths == (2, 4) and settings.data == "elsewhere"
        assert start_or_resume(trained, {}, True)[0].data is None

    def test_resuming_accepts_another_path_of_the_labels(self, trained):
        settings, _ = start_or_resume(trained, {"data": "elsewhere", "labels": "moved.csv"}, True)
        assert settings.labels == "moved.csv"

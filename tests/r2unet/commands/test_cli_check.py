"""`r2unet check`: what is whole, what is not, and that its advice works."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from r2unet.data.lesion_images import LesionImages
from r2unet.data.pairs import Pair
from r2unet.study.plan import open_study
from r2unet.study.studies import Variant
from r2unet.training.checkpoints import read_state, write_state
from tests.r2unet.conftest import TINY


def flip(path, at=0.5):
    """Flip a bit of a file, at this part of its length."""
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 1
    path.write_bytes(content)


@pytest.fixture
def run(trained, tmp_path):
    """A copy of a finished run."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture
def cache(isic, tmp_path):
    folder = isic / "ISIC-2017_Training_Data"
    pairs = [Pair(path, None, path.stem, None) for path in sorted(folder.iterdir())]
    LesionImages(pairs, 8, cache=tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def study(trained, tmp_path):
    """A study of two rows, of which one run is finished and one is not begun."""
    rows = [Variant(f"{steps} steps", {"steps": steps}) for steps in (1, 2)]
    given = {"size": 16, "widths": (2, 4), "images": 10}
    plan = open_study(tmp_path / "my study", "own", given, [0], rows)
    shutil.copytree(trained, plan.tasks(tmp_path / "my study")[0].folder)
    return tmp_path / "my study"


@pytest.fixture
def refused(r2unet):
    """A function that checks paths of which one is not whole, and returns the line about it."""

    def check(*paths):
        code, out, err = r2unet("check", *paths)
        assert code == 1 and err == ""
        (line,) = [line for line in out.splitlines() if not line.startswith("whole ")]
        assert line.startswith("NOT WHOLE  ")
        return line.removeprefix("NOT WHOLE  ")

    return check


class TestWhole:
    def test_a_run_and_its_files(self, r2unet, trained):
        network = "r2unet with 2,4 channels, outline"
        code, out, _ = r2unet("check", trained)
        assert code == 0
        assert out.splitlines() == [
            f"whole      {trained / 'last.npz'}: a training state after 2 of 2 epochs: {network}",
            f"whole      {trained / 'best.npz'}: a training state after "
            f"{len(read_state(trained / 'best.npz')['history'])} of 2 epochs: {network}",
            f"whole      {trained / 'history.csv'}: the scores of every epoch",
            f"whole      {trained / 'report.json'}: the scores of the best epoch",
        ]

    def test_an_unfinished_run_whose_newest_state_is_an_epoch_behind(self, r2unet, run):
        """As a run that was killed between writing history.csv and last.npz."""
        (run / "report.json").unlink()
        state = read_state(run / "last.npz")
        write_state(run / "last.npz", {**state, "history": state["history"][:1]})
        assert r2unet("check", run)[0] == 0
        write_state(run / "last.npz", {**state, "history": []})
        for name in ("best.npz", "history.csv"):
            (run / name).unlink()
        assert r2unet("check", run)[0] == 0

    def test_exported_weights_and_those_of_pytorch(self, r2unet, trained, lee_state, tmp_path):
        assert r2unet("export", trained / "best.npz", "--half", "--out", tmp_path / "w.npz")[0] == 0
        np.savez(tmp_path / "p.npz", **lee_state("AttU_Net"))
        code, out, _ = r2unet("check", tmp_path / "w.npz", tmp_path / "p.npz")
        assert code == 0
        assert "w.npz: weights for prediction: r2unet with 2,4 channels, outline\n" in out
        assert "p.npz: weights of PyTorch: AttentionUNet with " in out

    def test_a_cache_masks_and_images(self, r2unet, cache, isic):
        masks, images = isic / "ISIC-2017_Training_Part1_GroundTruth", isic / "ISIC-2017_Training_Data"
        code, out, _ = r2unet("check", cache, masks, images, masks / "ISIC_0000001_segmentation.png")
        assert code == 0
        assert ": a cache of 5 decoded images of 8 x 8 pixels\n" in out
        assert f"{masks}: a folder of 0 images and 5 masks\n" in out
        assert f"{images}: a folder of 5 images and 0 masks\n" in out
        assert "_segmentation.png: a mask of 32 x 24 pixels\n" in out

    def test_all_files_of_a_folder_of_several_kinds(self, r2unet, cache, trained):
        shutil.copy(trained / "best.npz", cache / "weights.npz")
        Image.new("RGB", (4, 4)).save(cache / "small.jpg")
        code, out, _ = r2unet("check", cache)
        assert code == 0
        assert [line.rpartition(": ")[2].split(" of ")[0] for line in out.splitlines()] == [
            "a cache",
            "r2unet with 2,4 channels, outline",
            "a folder",
        ]

    def test_a_study_whose_runs_are_not_all_finished(self, r2unet, study):
        code, out, _ = r2unet("check", study)
        assert code == 0 and out.count("\n") == 5
        assert f"{study}: a study: 2 rows x 1 seeds, 1 of 2 runs finished\n" in out


class TestNotWhole:
    @pytest.mark.parametrize(
        "at", [0.1, 0.5, 0.8]
    )  # then follows the zip directory, with dates that nobody reads
    def test_a_checkpoint_with_a_flipped_bit(self, refused, run, at):
        flip(run / "last.npz", at)
        line = refused(run)
        assert line.startswith(f"{run / 'last.npz'}: is not a checkpoint of this program, or it is damaged (")
        resume = f"`r2unet train --resume --out {run}`"
        assert line.endswith(f"{resume} resumes from best.npz instead, if that is whole")

    @pytest.mark.parametrize(
        "change, words",
        [
            (lambda s: s["optimizer"]["mean"][0].fill(np.nan), "optimizer.mean.0 contains NaN or infinity"),
            (lambda s: s["optimizer"]["square"].pop(), "the optimizer's square does not have the shapes"),
            (lambda s: s["model"]["head.bias"].fill(np.inf), "head.bias contains NaN or infinity"),
            (lambda s: s["model"].pop("head.bias"), "head.bias"),
            (lambda s: s.update(trained={}), "its parts do not fit together"),
            (lambda s: s.update(trained_head={"diagnosis.bias": np.zeros(3)}), "diagnosis.bias"),
            (lambda s: s.pop("history"), "its parts do not fit together"),
        ],
    )
    def test_a_state_that_training_cannot_have(self, refused, run, change, words):
        state = read_state(run / "best.npz")
        change(state)
        write_state(run / "best.npz", state)
        assert words in refused(run / "best.npz")

    @pytest.mark.parametrize("name, old, new", [("history.csv", "0.", "nan"), ("report.json", "0.", "7.")])
    def test_scores(self, refused, run, name, old, new):
        text = (run / name).read_text()
        (run / name).write_text(text.replace(old, new, 3))
        line = refused(run)
        assert line.startswith(f"{run / name}: is damaged (") and line.endswith(" writes it again")

    @pytest.mark.parametrize(
        "change, words",
        [
            (lambda lines: [], "it has no epochs"),
            (lambda lines: lines[:1], "it has no epochs"),
            (lambda lines: lines[:2], "its rows are not those of the 2 epochs in last.npz"),
            (
                lambda lines: [line.partition(",")[0] for line in lines],
                "its rows are not those of the 2 epochs",
            ),
            (
                lambda lines: [line.replace("0.", "0.1") for line in lines],
                "its rows are not those of the 2 ep",
            ),
        ],
    )
    def test_a_history_that_is_not_that_of_the_run(self, refused, run, change, words):
        lines = (run / "history.csv").read_text().splitlines(keepends=True)
        (run / "history.csv").write_text("\n".join(line.rstrip("\n") for line in change(lines)))
        line = refused(run)
        assert line.startswith(f"{run / 'history.csv'}: is damaged ({words}")

    @pytest.mark.parametrize(
        "report, words",
        [
            ("{}", "its scores are not those of the task outline"),
            ('{"diagnosis": null}', "its scores are not those of the task outline"),
            ('{"diagnosis": {}}', "diagnosis: it has no scores by class and by image"),
            ("[]", "it has no scores by name"),
            ('{"model": 3}', "a value is of another type"),
        ],
    )
    def test_a_report_without_the_scores_of_the_task(self, refused, run, report, words):
        (run / "report.json").write_text(report)
        assert refused(run).startswith(f"{run / 'report.json'}: is damaged ({words}); delete this file; ")

    def test_the_best_state_of_another_run(self, refused, run, new_trainer, tmp_path):
        new_trainer(tmp_path / "other", lr=0.5, epochs=1).run()
        shutil.copy(tmp_path / "other" / "best.npz", run)
        fault = "is of another run than last.npz (its --epochs is 1, not 2); delete this file; "
        assert refused(run).startswith(f"{run / 'best.npz'}: {fault}")

    @pytest.mark.parametrize("name", ["last.npz", "history.csv"])
    def test_a_finished_run_without_one_of_its_files(self, r2unet, refused, run, trained, name):
        (run / name).unlink()
        assert refused(run).startswith(f"{run / name}: is missing; `r2unet train --resume")
        assert r2unet("train", "--resume", "--device=cpu", "--out", run)[0] == 0
        assert (run / name).read_bytes() == (trained / name).read_bytes()

    def test_a_report_alone(self, refused, run):
        for name in ("last.npz", "best.npz"):
            (run / name).unlink()
        assert refused(run) == f"{run / 'last.npz'}: is missing, and so is best.npz; train again"

    def test_a_finished_run_without_its_best_state(self, refused, run):
        (run / "best.npz").unlink()
        assert "best.npz: is missing; `r2unet train --resume" in refused(run)

    def test_weights_of_pytorch(self, refused, lee_state, tmp_path):
        state = lee_state("U_Net")
        np.savez(tmp_path / "p.npz", **state | {"Conv_1x1.bias": np.array([np.nan], np.float32)})
        assert "head.bias contains NaN or infinity" in refused(tmp_path / "p.npz")
        (tmp_path / "p.safetensors").write_bytes(b"\x08" + bytes(7) + b"{}")
        assert "is not a .safetensors file, or is damaged" in refused(tmp_path / "p.safetensors")

    @pytest.mark.parametrize("at", [0.01, 0.5, 0.999])
    def test_a_cache_with_a_flipped_bit(self, refused, cache, at):
        (path,) = cache.iterdir()
        flip(path, at)
        line = refused(cache)
        assert line.startswith(f"{path}: the cache ") and "makes it again" in line

    def test_a_cache_whose_header_breaks_off(self, refused, cache):
        (path,) = cache.iterdir()
        content = bytearray(path.read_bytes())
        end = content.index(b"\n")
        content[30:end] = bytes(end - 30)  # zeros: NumPy then fails in Python's tokenizer
        path.write_bytes(content)
        assert refused(cache).startswith(f"{path}: the cache has no header of decoded images")

    def test_masks_and_images(self, refused, isic):
        for folder in ("ISIC-2017_Training_Part1_GroundTruth", "ISIC-2017_Training_Data"):
            path = sorted((isic / folder).iterdir())[2]
            content = path.read_bytes()
            path.write_bytes(content[: len(content) // 2])
            assert refused(isic / folder).startswith(f"{path}: the image is damaged or truncated (")
        Image.new("RGB", (4, 4)).save(isic / "a_mask.png")
        assert "a mask is one channel" in refused(isic / "a_mask.png")

    def test_an_image_beside_weights_and_a_cache(self, refused, cache, trained):
        shutil.copy(trained / "best.npz", cache / "a.npz")
        (cache / "bad.jpg").write_bytes(b"\xff\xd8 and no more")
        assert refused(cache).startswith(f"{cache / 'bad.jpg'}: ")

    def test_a_study_and_the_others_are_still_checked(self, r2unet, study, trained):
        (study / "study.json").write_text("{}")
        code, out, _ = r2unet("check", study, trained)
        assert code == 1 and out.count("\n") == 5 and out.startswith("NOT WHOLE")
        assert "study.json: is not the plan of a study" in out and "from a backup" in out

    def test_an_unfinished_run_of_a_study_is_resumed_with_the_study_and_a_finished_one_alone(
        self, refused, study
    ):
        (path,) = study.glob("*/seed-0/last.npz")
        flip(path)
        assert f"`r2unet train --resume --out '{path.parent}'` resumes from best.npz" in refused(study)
        (path.parent / "report.json").unlink()
        assert f"`r2unet compare own --out '{study}'` resumes from best.npz" in refused(study)


class TestTheAdvice:
    @pytest.mark.parametrize(
        "name, delete", [("last.npz", False), ("history.csv", True), ("report.json", True)]
    )
    def test_makes_a_run_whole_again(self, r2unet, refused, run, trained, name, delete):
        (run / name).write_bytes(b"damaged,\n1,\n")
        assert ("delete this file" in refused(run)) == delete
        if delete:
            (run / name).unlink()
        assert r2unet("train", "--resume", "--device=cpu", "--out", run)[0] == 0
        assert r2unet("check", run)[0] == 0
        assert (run / name).read_bytes() == (trained / name).read_bytes()

    def test_about_the_best_state_too(self, r2unet, refused, run):
        flip(run / "best.npz")
        assert "delete this file; `r2unet train --resume" in refused(run)
        (run / "best.npz").unlink()
        assert r2unet("train", "--resume", "--device=cpu", "--out", run)[0] == 0
        assert r2unet("check", run)[0] == 0


class TestUsage:
    @pytest.mark.parametrize("name", ["missing", "empty", "pipe.npz", "text.txt"])
    def test_what_cannot_be_checked_is_an_error_before_anything_is_checked(
        self, r2unet, trained, tmp_path, name
    ):
        (tmp_path / "empty").mkdir()
        (tmp_path / "text.txt").write_text("text")
        os.mkfifo(tmp_path / "pipe.npz")
        code, out, err = r2unet("check", trained, tmp_path / name)
        assert (code, out) == (2, "") and err.startswith(f"r2unet: error: {tmp_path / name}: ")

    def test_nothing_is_changed(self, r2unet, run):
        flip(run / "last.npz")
        before = {path: path.read_bytes() for path in run.iterdir()}
        assert r2unet("check", run)[0] == 1
        assert {path: path.read_bytes() for path in run.iterdir()} == before


def test_a_run_with_a_moving_average_is_whole(r2unet, new_trainer, tmp_path):
    new_trainer(tmp_path, ema=0.9, epochs=1).run()
    code, out, _ = r2unet("check", tmp_path)
    assert code == 0 and "after 1 of 1 epochs" in out and TINY.epochs == 2
    assert json.loads((tmp_path / "report.json").read_text())

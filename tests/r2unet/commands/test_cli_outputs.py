"""No command replaces one of its inputs, or anything but a regular file, whatever the options say."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

IMAGE = "ISIC-2017_Validation_Data/ISIC_0000006.jpg"
MASK = "ISIC-2017_Validation_Part1_GroundTruth/ISIC_0000006_segmentation.png"


@pytest.fixture
def best(trained, tmp_path):
    """A copy of the trained network, which a faulty command may destroy."""
    return Path(shutil.copy(trained / "best.npz", tmp_path / "best.npz"))


@pytest.fixture
def refused(r2unet, tmp_path, monkeypatch):
    """Return a function that runs a command, and asserts that it is refused and changes no file."""
    monkeypatch.setattr("r2unet.network.model.UShape.answer", None)  # refused before anything is predicted

    def run(*words, expected="would replace"):
        files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        code, out, err = r2unet(*words)
        assert (code, out) == (2, "") and err.count("\n") == 1 and expected in err, err
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files

    return run


class TestEvaluate:
    @pytest.mark.parametrize("link", [False, True])
    def test_does_not_replace_its_checkpoint(self, refused, best, tmp_path, link):
        out = best
        if link:
            out = tmp_path / "other"
            out.hardlink_to(best)
        refused("evaluate", "--checkpoint", best, "--json", out)

    @pytest.mark.parametrize("name", [IMAGE, MASK, "labels.csv"])
    def test_does_not_replace_its_data(self, refused, best, isic, name):
        (isic / "labels.csv").write_text("image,melanoma\n")
        refused("evaluate", "--checkpoint", best, "--data", isic, "--json", isic / name)

    def test_does_not_draw_over_a_mask(self, refused, best, isic):
        refused("evaluate", "--checkpoint", best, "--data", isic, "--overlays", isic / MASK)

    def test_does_not_draw_a_figure_over_its_checkpoint(self, refused, best):
        checkpoint = best.rename(best.with_name("roc.png"))
        refused("evaluate", "--checkpoint", checkpoint, "--figures", checkpoint.parent)

    def test_does_not_replace_a_device(self, refused, best):
        words = "evaluate", "--checkpoint", best, "--json", "/dev/null"
        refused(*words, expected="--json /dev/null: it is a device, not a regular file; choose another name")

    def test_replaces_the_results_of_the_last_time(self, r2unet, best, tmp_path):
        for _ in range(2):
            assert r2unet("evaluate", "--checkpoint", best, "--json", tmp_path / "scores.json")[0] == 0


class TestPredict:
    def test_does_not_replace_an_image(self, refused, best, tmp_path):
        names = "leg.png", "leg_segmentation_prediction.png"
        for name in names:
            Image.new("RGB", (20, 20)).save(tmp_path / name)
        refused("predict", *(tmp_path / name for name in names), "--checkpoint", best, "--out", tmp_path)

    def test_draws_an_overlay_over_an_image_only_if_it_is_not_given(self, refused, best, tmp_path):
        for name in ("leg.png", "leg_overlay.png"):
            Image.new("RGB", (20, 20)).save(tmp_path / name)
        words = ["predict", tmp_path / "leg.png", tmp_path / "leg_overlay.png", "--checkpoint", best]
        refused(*words, "--out", tmp_path, "--overlay")

    def test_does_not_replace_its_checkpoint_by_the_table(self, refused, best, tmp_path, isic):
        best.rename(tmp_path / "diagnoses.csv")
        refused("predict", isic / IMAGE, "--checkpoint", tmp_path / "diagnoses.csv", "--out", tmp_path)


def test_explain_does_not_replace_its_image_or_its_checkpoint(refused, best, tmp_path):
    image = tmp_path / "leg.png"
    Image.new("RGB", (20, 20)).save(image)
    refused("explain", image, "--checkpoint", best, "--out", image)
    refused("explain", image, "--checkpoint", best.rename(tmp_path / "w.png"), "--out", tmp_path / "w.png")


def test_score_replaces_neither_a_mask_nor_a_table(refused, isic, tmp_path):
    masks = isic / "ISIC-2017_Validation_Part1_GroundTruth"
    refused("score", masks, masks, "--json", isic / MASK)
    (tmp_path / "a.csv").write_text("image,melanoma\nISIC_0000001,1\n")
    refused("score", tmp_path / "a.csv", tmp_path / "a.csv", "--json", tmp_path / "a.csv")


def test_export_does_not_replace_its_source(refused, best):
    refused("export", best, "--out", best)

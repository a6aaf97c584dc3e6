"""Pictures are whole, hold what they should, and fail in words."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from r2unet.errors import InputError
from r2unet.plots import (
    PREDICTION,
    TRAINING,
    TRUTH,
    VALIDATION,
    OverlayRow,
    overlay_image,
    plot_curves,
    plot_overlays,
)

YELLOW = np.array([0xF0, 0xE4, 0x42])


def read(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)  # (H, W, 3)


def pixels_of(path, colour):
    distance = np.abs(read(path) - list(bytes.fromhex(colour[1:]))).max(axis=2)  # (H, W)
    return int(np.sum(distance <= 8))


def disc(height, width, radius):
    rows, columns = np.mgrid[:height, :width]
    return ((rows - height / 2) ** 2 + (columns - width / 2) ** 2 < radius**2).astype(np.uint8)


def overlay_row(height=64, width=64, truth_radius=20, predicted_radius=14, name="ISIC_0000001"):
    image = np.full((height, width, 3), (200, 150, 130), np.uint8)
    probability = 0.9 * disc(height, width, predicted_radius).astype(np.float32)
    return OverlayRow(image, disc(height, width, truth_radius), probability, name, 0.49)


def history(epochs):
    return [
        {
            "epoch": float(epoch),
            "lr": 1e-3,
            "train_loss": 1 / epoch,
            "validation_loss": 1.2 / epoch,
            "validation_jaccard": 0.8 - 0.5 / epoch,
            "validation_dice": 0.9 - 0.5 / epoch,
            "validation_accuracy": 0.9,
        }
        for epoch in range(1, epochs + 1)
    ]


@pytest.mark.parametrize("epochs", [0, 1, 3, 60])
def test_curves_are_drawn_for_any_number_of_epochs(tmp_path, epochs):
    plot_curves(history(epochs), tmp_path / "curves.png")
    assert read(tmp_path / "curves.png").shape == (570, 1500, 3)  # 10 x 3.8 inches at 150 dots
    assert (pixels_of(tmp_path / "curves.png", TRAINING) > 50) == (epochs > 0)
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]  # nothing half-written stays


def test_curves_do_without_values_that_are_missing_or_not_finite(tmp_path):
    rows = [
        {"epoch": 1, "train_loss": 0.5},
        {"epoch": 2, "train_loss": float("nan"), "validation_jaccard": None},
    ]
    plot_curves(rows, tmp_path / "curves.png")
    assert pixels_of(tmp_path / "curves.png", TRAINING) > 50
    assert pixels_of(tmp_path / "curves.png", VALIDATION) == 0


def test_the_best_epoch_is_the_one_with_the_highest_jaccard(tmp_path):
    rows = history(30)
    plot_curves(rows, tmp_path / "last.png")
    rows[9]["validation_jaccard"] = 0.95
    rows[14]["validation_jaccard"] = float("nan")
    plot_curves(rows, tmp_path / "tenth.png")

    def column_of_marker(name):
        losses = read(tmp_path / name)[115:300, 120:730]  # upper left panel: the line is the darkest column
        return int(np.argmin(losses.mean(axis=(0, 2))))

    # Epochs 0 to 31.45 span 617 pixels, so 20 epochs less are 392 pixels to the left.
    assert column_of_marker("last.png") - column_of_marker("tenth.png") == pytest.approx(392, abs=6)


@pytest.mark.parametrize("count", [1, 2, 12])
def test_overlays_give_every_image_a_row_true_to_its_shape(tmp_path, count):
    plot_overlays([overlay_row()] * count, tmp_path / "overlays.png")
    height, width, _ = read(tmp_path / "overlays.png").shape
    assert width == pytest.approx(150 * (0.5 + 4 * 2.3 + 4 * 0.08), abs=2)
    assert height == pytest.approx(150 * (0.74 + count * 2.3 + (count - 1) * 0.08), abs=2)


def test_overlays_take_rows_of_different_sizes_and_plain_tuples(tmp_path):
    rows = [tuple(overlay_row(40, 80)), tuple(overlay_row(900, 600)), tuple(overlay_row(7, 5, 2, 1))]
    plot_overlays(rows, tmp_path / "overlays.png")
    height = len(read(tmp_path / "overlays.png"))
    assert height == pytest.approx(150 * (0.74 + 2.3 * (40 / 80 + 900 / 600 + 7 / 5) + 2 * 0.08), abs=2)


def test_both_outlines_are_drawn_in_their_colours(tmp_path):
    plot_overlays([overlay_row(truth_radius=0, predicted_radius=0)], tmp_path / "empty.png")
    plot_overlays([overlay_row(truth_radius=25, predicted_radius=0)], tmp_path / "truth.png")
    plot_overlays([overlay_row(truth_radius=0, predicted_radius=25)], tmp_path / "prediction.png")
    plot_overlays([overlay_row(truth_radius=25, predicted_radius=15)], tmp_path / "both.png")
    blue = {path.stem: pixels_of(path, TRUTH) for path in tmp_path.iterdir()}
    yellow = {path.stem: pixels_of(path, PREDICTION) for path in tmp_path.iterdir()}
    assert blue["empty"] == blue["prediction"] > 0  # the legend
    assert yellow["empty"] == yellow["truth"] > 0
    assert blue["both"] == blue["truth"] > blue["empty"] + 500
    assert yellow["empty"] + 500 < yellow["both"] < yellow["prediction"]  # a smaller circle


def test_the_predicted_outline_follows_the_threshold(tmp_path):
    plot_overlays([overlay_row()], tmp_path / "crossed.png", threshold=0.5)
    plot_overlays([overlay_row()], tmp_path / "not_crossed.png", threshold=0.95)  # probabilities end at 0.9
    crossed, not_crossed = (
        pixels_of(tmp_path / f"{name}.png", PREDICTION) for name in ("crossed", "not_crossed")
    )
    assert crossed > not_crossed + 300


def test_no_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no rows"):
        plot_overlays([], tmp_path / "overlays.png")


def test_a_place_that_cannot_be_written_is_named_in_one_line(tmp_path):
    (tmp_path / "runs").write_text("a file in the folder's place")
    with pytest.raises(InputError, match="runs.curves.png: cannot be written") as caught:
        plot_curves(history(2), tmp_path / "runs" / "curves.png")
    assert "\n" not in str(caught.value)


def test_a_picture_that_cannot_take_its_name_leaves_nothing_behind(tmp_path):
    (tmp_path / "curves.png").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        plot_curves(history(2), tmp_path / "curves.png")
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


@pytest.mark.parametrize("name", ["curves", "curves.doc"])
def test_an_unknown_kind_of_picture_is_refused_with_the_known_ones(tmp_path, name):
    with pytest.raises(InputError, match=r"end its name in \.png"):
        plot_curves(history(2), tmp_path / name)


def test_pictures_can_be_vector_graphics(tmp_path):
    plot_curves(history(2), tmp_path / "curves.svg")
    assert "<svg" in (tmp_path / "curves.svg").read_text()


def test_overlay_image_draws_a_line_two_pixels_wide_just_inside_a_mask_of_256():
    image = np.random.default_rng(0).integers(0, 200, (256, 256, 3), dtype=np.uint8)
    mask = np.zeros((256, 256), np.uint8)
    mask[50:150, 60:200] = 1
    line = mask.astype(bool)
    line[52:148, 62:198] = False
    expected = image.copy()
    expected[line] = YELLOW
    np.testing.assert_array_equal(overlay_image(image, mask), expected)


@pytest.mark.parametrize("side, width", [(100, 1), (256, 2), (1000, 5)])
def test_the_overlay_s_line_grows_with_the_image(side, width):
    mask = np.zeros((side, side), bool)
    mask[side // 4 : side // 2, side // 4 : side // 2] = True
    drawn = overlay_image(np.zeros((side, side, 3), np.uint8), mask)
    middle_row = (drawn[side * 3 // 8] == YELLOW).all(axis=1)  # crosses the line twice
    assert middle_row.sum() == 2 * width


def test_the_overlay_s_line_runs_along_the_frame():
    drawn = overlay_image(np.zeros((50, 80, 3), np.uint8), np.ones((50, 80), np.uint8))
    line = (drawn == YELLOW).all(axis=2)
    assert line.sum() == 2 * 50 + 2 * 80 - 4
    assert line[0].all() and line[-1].all() and line[:, 0].all() and line[:, -1].all()


def test_overlay_image_without_a_lesion_is_an_equal_copy():
    image = np.full((9, 7, 3), 90, np.uint8)
    drawn = overlay_image(image, np.zeros((9, 7), np.uint8))
    np.testing.assert_array_equal(drawn, image)
    assert not np.shares_memory(drawn, image)


def test_overlay_image_refuses_a_mask_of_another_size():
    with pytest.raises(ValueError, match=r"\(9, 7, 3\).*\(7, 9\)"):
        overlay_image(np.zeros((9, 7, 3), np.uint8), np.zeros((7, 9), np.uint8))


def test_drawing_changes_none_of_its_arrays(tmp_path):
    row = overlay_row(700, 600)  # large enough to be resized
    before = [array.copy() for array in row[:3]]
    plot_overlays([row], tmp_path / "overlays.png")
    overlay_image(row.image, row.truth)
    for array, original in zip(row[:3], before, strict=True):
        np.testing.assert_array_equal(array, original)


def test_matplotlib_is_loaded_when_drawing_and_pyplot_never(tmp_path):
    program = (
        "import sys, r2unet.plots as plots\n"
        "assert 'matplotlib' not in sys.modules and 'PIL' not in sys.modules\n"
        f"plots.plot_curves([], {str(tmp_path / 'curves.png')!r})\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr

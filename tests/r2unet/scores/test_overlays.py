"""Overlay pages show each image with its aspect ratio and both outlines."""

import numpy as np
import pytest
from PIL import Image

from r2unet.figures import PREDICTION, TRUTH
from r2unet.scores.overlays import OverlayRow, plot_overlays
from tests.r2unet.pixels import count_pixels, read_pixels


def disc(height, width, radius):
    rows, columns = np.mgrid[:height, :width]
    return ((rows - height / 2) ** 2 + (columns - width / 2) ** 2 < radius**2).astype(np.uint8)


def overlay_row(height=64, width=64, truth_radius=20, predicted_radius=14, name="ISIC_0000001"):
    image = np.full((height, width, 3), (200, 150, 130), np.uint8)
    probability = 0.9 * disc(height, width, predicted_radius).astype(np.float32)
    return OverlayRow(image, disc(height, width, truth_radius), probability, name, 0.49)


@pytest.mark.parametrize("count", [1, 2, 12])
def test_every_image_has_a_row_with_its_aspect_ratio(tmp_path, count):
    plot_overlays([overlay_row()] * count, tmp_path / "overlays.png")
    height, width, _ = read_pixels(tmp_path / "overlays.png").shape
    assert width == pytest.approx(150 * (0.5 + 4 * 2.3 + 4 * 0.08), abs=2)
    assert height == pytest.approx(150 * (0.74 + count * 2.3 + (count - 1) * 0.08), abs=2)


def test_rows_may_differ_in_size_and_be_plain_tuples(tmp_path):
    rows = [tuple(overlay_row(40, 80)), tuple(overlay_row(900, 600)), tuple(overlay_row(7, 5, 2, 1))]
    plot_overlays(rows, tmp_path / "overlays.png")
    height = len(read_pixels(tmp_path / "overlays.png"))
    assert height == pytest.approx(150 * (0.74 + 2.3 * (40 / 80 + 900 / 600 + 7 / 5) + 2 * 0.08), abs=2)


def test_both_outlines_are_drawn_in_their_colours(tmp_path):
    plot_overlays([overlay_row(truth_radius=0, predicted_radius=0)], tmp_path / "empty.png")
    plot_overlays([overlay_row(truth_radius=25, predicted_radius=0)], tmp_path / "truth.png")
    plot_overlays([overlay_row(truth_radius=0, predicted_radius=25)], tmp_path / "prediction.png")
    plot_overlays([overlay_row(truth_radius=25, predicted_radius=15)], tmp_path / "both.png")
    blue = {path.stem: count_pixels(path, TRUTH) for path in tmp_path.iterdir()}
    yellow = {path.stem: count_pixels(path, PREDICTION) for path in tmp_path.iterdir()}
    assert blue["empty"] == blue["prediction"] > 0  # the legend
    assert yellow["empty"] == yellow["truth"] > 0
    assert blue["both"] == blue["truth"] > blue["empty"] + 500
    assert yellow["empty"] + 500 < yellow["both"] < yellow["prediction"]  # a smaller circle


def test_the_predicted_outline_depends_on_the_threshold(tmp_path):
    plot_overlays([overlay_row()], tmp_path / "crossed.png", threshold=0.5)
    plot_overlays([overlay_row()], tmp_path / "not_crossed.png", threshold=0.95)  # the maximum is 0.9
    crossed, not_crossed = (
        count_pixels(tmp_path / f"{name}.png", PREDICTION) for name in ("crossed", "not_crossed")
    )
    assert crossed > not_crossed + 300


def test_no_rows_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="no rows"):
        plot_overlays([], tmp_path / "overlays.png")


def test_plotting_does_not_change_the_arrays(tmp_path):
    row = overlay_row(700, 600)  # large enough to be resized
    before = [array.copy() for array in row[:3]]
    plot_overlays([row], tmp_path / "overlays.png")
    for array, original in zip(row[:3], before, strict=True):
        np.testing.assert_array_equal(array, original)


@pytest.mark.parametrize("shape", [(2_000_000, 1), (1, 2_000_000)])
def test_an_image_of_one_line_of_pixels_gives_a_page_of_ordinary_size(tmp_path, shape):
    image, mask = np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.uint8)
    mask.ravel()[:1_000_000] = 1
    plot_overlays([(image, mask, mask, r"$\frac$" + "\udcff" * 300, 1.0)], tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as page:
        assert max(page.size) < 1600

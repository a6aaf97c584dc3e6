"""Learning curves are drawn for any history of a training run."""

import numpy as np
import pytest

from r2unet.figures import TRAINING, VALIDATION
from r2unet.training.curves import plot_curves
from tests.r2unet.pixels import count_pixels, read_pixels


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
    assert read_pixels(tmp_path / "curves.png").shape == (570, 1500, 3)  # 10 x 3.8 inches at 150 dpi
    assert (count_pixels(tmp_path / "curves.png", TRAINING) > 50) == (epochs > 0)
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]  # no temporary file remains


def test_missing_and_non_finite_values_are_skipped(tmp_path):
    rows = [
        {"epoch": 1, "train_loss": 0.5},
        {"epoch": 2, "train_loss": float("nan"), "validation_jaccard": None},
    ]
    plot_curves(rows, tmp_path / "curves.png")
    assert count_pixels(tmp_path / "curves.png", TRAINING) > 50
    assert count_pixels(tmp_path / "curves.png", VALIDATION) == 0


def test_the_marker_is_at_the_epoch_with_the_highest_jaccard(tmp_path):
    rows = history(30)
    plot_curves(rows, tmp_path / "last.png")
    rows[9]["validation_jaccard"] = 0.95
    rows[14]["validation_jaccard"] = float("nan")
    plot_curves(rows, tmp_path / "tenth.png")

    def column_of_marker(name):
        # In the upper part of the left panel, the dotted line is the darkest column.
        losses = read_pixels(tmp_path / name)[115:300, 120:730]
        return int(np.argmin(losses.mean(axis=(0, 2))))

    # Epochs 0 to 31.45 span 617 pixels, so 20 epochs earlier is 392 pixels to the left.
    assert column_of_marker("last.png") - column_of_marker("tenth.png") == pytest.approx(392, abs=6)

"""Learning curves are drawn for any history of a training run."""

import numpy as np
import pytest

from r2unet.figures import TRAINING, VALIDATION
from r2unet.training.curves import AUC, new_curves_figure, plot_curves
from r2unet.training.state import quality
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


class TestDiagnosis:
    @staticmethod
    def history(epochs, *names):
        """A history with these validation scores: the Jaccard rises, and the AUC falls twice as fast."""
        scores = {"jaccard": lambda t: 0.5 + t / 100, "auc": lambda t: 0.9 - t / 50, "dice": lambda t: 0.6}
        return [
            {"epoch": t, "train_loss": 1 / t, **{f"validation_{name}": scores[name](t) for name in names}}
            for t in range(1, epochs + 1)
        ]

    @staticmethod
    def scores_axes(rows):
        figure = new_curves_figure(rows)
        figure.canvas.draw()
        return figure.axes[1]

    @staticmethod
    def legend_texts(axes):
        """The texts of all legends: the axes' own, and the one that was added before it."""
        from matplotlib.legend import Legend

        return [text for legend in axes.findobj(Legend) for text in legend.get_texts()]

    def test_the_auc_is_one_more_curve(self, tmp_path):
        axes = self.scores_axes(self.history(9, "jaccard", "dice", "auc"))
        curves = {line.get_label(): line for line in axes.lines}
        np.testing.assert_allclose(curves["AUC"].get_ydata(), [0.9 - t / 50 for t in range(1, 10)])
        assert {"Jaccard", "Dice"} < set(curves)
        plot_curves(self.history(9, "jaccard", "dice", "auc"), tmp_path / "curves.png")
        assert count_pixels(tmp_path / "curves.png", AUC) > 50

    def test_the_best_epoch_has_the_largest_sum_of_jaccard_and_auc(self):
        rows = self.history(20, "jaccard", "dice", "auc")  # 1 has the best AUC, 20 the best Jaccard
        rows[4]["validation_jaccard"] += 0.1
        axes = self.scores_axes(rows)
        assert max(rows, key=quality)["epoch"] == 5
        points = [[line.get_xdata()[0], line.get_ydata()[0]] for line in axes.lines[-2:]]
        np.testing.assert_allclose(points, [[5, 0.65], [5, 0.8]])
        texts = [text.get_text() for text in self.legend_texts(axes)]
        assert sorted(texts) == ["AUC", "Dice", "Jaccard", "best Jaccard + AUC 1.450, epoch 5"]

    def test_an_epoch_without_one_of_the_scores_is_not_the_best(self):
        rows = self.history(9, "jaccard", "dice", "auc")
        rows[0]["validation_auc"] = float("nan")
        del rows[1]["validation_jaccard"]
        texts = [text.get_text() for text in self.legend_texts(self.scores_axes(rows))]
        assert "best Jaccard + AUC 1.370, epoch 3" in texts

    def test_without_an_outline_the_auc_is_the_only_score(self):
        axes = self.scores_axes(self.history(9, "auc"))
        texts = [text.get_text() for text in self.legend_texts(axes)]
        assert texts == ["AUC", "best AUC 0.880, epoch 1"]
        assert axes.get_title(loc="left") == "Validation AUC, mean over classes"

    def test_without_a_diagnosis_only_the_jaccard_decides(self):
        axes = self.scores_axes(self.history(9, "jaccard", "dice"))
        texts = [text.get_text() for text in self.legend_texts(axes)]
        assert texts == ["Jaccard", "Dice", "best Jaccard 0.590, epoch 9"]
        assert axes.get_title(loc="left") == "Validation scores, mean over images"

    def test_all_texts_are_inside_the_figure_and_apart(self):
        for names in (("jaccard", "dice"), ("auc",), ("jaccard", "dice", "auc")):
            rows = self.history(128, *names)
            rows[-1] = {**rows[0], "epoch": 128}
            rows[-1][f"validation_{names[0]}"] = 0.999
            axes = self.scores_axes(rows)
            title = axes.get_tightbbox()  # with the title and the legends
            boxes = [text.get_window_extent() for text in self.legend_texts(axes)]
            assert all(box.x0 >= 0 and box.x1 <= axes.figure.bbox.x1 for box in [title, *boxes])
            assert title.y1 <= axes.figure.bbox.y1
            assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])

"""Learning curves: the losses and the validation scores of a training run, by epoch."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from r2unet.figures import QUIET, TRAINING, VALIDATION, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_curves(history: Sequence[dict], path: str | Path) -> None:
    """Plot both losses and the mean validation Jaccard and Dice by epoch, and mark the best Jaccard.

    Each row of `history` has an `epoch` and any of `train_loss`, `validation_loss`, `validation_jaccard` and
    `validation_dice`. Raises InputError if `path` cannot be written.
    """
    figure = new_figure(10.0, 3.8)
    losses, scores = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.075, right=0.98, top=0.82, bottom=0.15, wspace=0.2)

    _draw_series(losses, history, "train_loss", "training", TRAINING)
    _draw_series(losses, history, "validation_loss", "validation", VALIDATION)
    _style_curves(losses, "Loss")

    _draw_series(scores, history, "validation_jaccard", "Jaccard", VALIDATION)
    _draw_series(scores, history, "validation_dice", "Dice", QUIET)
    scores.set_ylim(0, 1)
    _mark_best_epoch(losses, scores, history)
    _style_curves(scores, "Validation scores, mean over images")
    save_figure(figure, path)


def _draw_series(axes: "Axes", history: Sequence[dict], key: str, label: str, colour: str) -> None:
    epochs, values = _series(history, key)
    if values:
        # A line through few points is hard to see, and a single point has no line.
        marker = "o" if len(values) <= 20 else None
        axes.plot(epochs, values, color=colour, label=label, linewidth=1.8, marker=marker, markersize=3.5)


def _series(history: Sequence[dict], key: str) -> tuple[list[float], list[float]]:
    """Return the epochs with a finite value for `key`, and these values: not every epoch is validated."""
    rows = [row for row in history if row.get(key) is not None and math.isfinite(row[key])]
    return [row["epoch"] for row in rows], [row[key] for row in rows]


def _mark_best_epoch(losses: "Axes", scores: "Axes", history: Sequence[dict]) -> None:
    epochs, values = _series(history, "validation_jaccard")
    if not values:
        return
    best = int(np.argmax(values))
    for axes in (losses, scores):
        axes.axvline(epochs[best], color=QUIET, linewidth=1, linestyle=":", zorder=1)
    label = f"best Jaccard {values[best]:.3f}, epoch {epochs[best]:g}"
    scores.plot(
        epochs[best], values[best], "o", color=VALIDATION, markersize=8, mec="white", mew=1.5, label=label
    )


def _style_curves(axes: "Axes", title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, loc="left", fontsize=11, pad=24)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(left=0)
    axes.grid(color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        # Above the axes, the legend hides no part of a curve.
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(-0.02, 0.99),
            ncols=3,
            fontsize=9,
            frameon=False,
            columnspacing=1.2,
        )

"""Learning curves: the losses and the validation scores of a training run, by epoch."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from r2unet.figures import QUIET, TRAINING, VALIDATION, new_figure, save_figure
from r2unet.training.state import quality

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AUC = "#009e73"  # bluish green of the palette of Okabe and Ito (2008)
# The validation scores: key, label, colour
SCORES = (
    ("validation_jaccard", "Jaccard", VALIDATION),
    ("validation_dice", "Dice", QUIET),
    ("validation_auc", "AUC", AUC),
)
IN_ONE_LINE = 3  # entries of a legend
# What decides which epoch is the best
DECISIVE = tuple(score for score in SCORES if score[1] != "Dice")


def plot_curves(history: Sequence[dict], path: str | Path) -> None:
    """Plot both losses and the validation scores by epoch, and mark the epoch of the best `quality`.

    Each row of `history` has an `epoch` and any of `train_loss`, `validation_loss`, `validation_jaccard`,
    `validation_dice` and `validation_auc`. Raises InputError if `path` cannot be written.
    """
    save_figure(new_curves_figure(history), path)


def new_curves_figure(history: Sequence[dict]) -> "Figure":
    """Return the figure that `plot_curves` writes."""
    figure = new_figure(10.0, 3.8)
    losses, scores = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.075, right=0.98, top=0.82, bottom=0.15, wspace=0.2)

    _draw_series(losses, history, "train_loss", "training", TRAINING)
    _draw_series(losses, history, "validation_loss", "validation", VALIDATION)
    _style_curves(losses, "Loss")

    for key, label, colour in SCORES:
        _draw_series(scores, history, key, label, colour)
    scores.set_ylim(0, 1)
    _mark_best_epoch(losses, scores, history)
    _style_curves(scores, _title_of_scores(history))
    return figure


def _title_of_scores(history: Sequence[dict]) -> str:
    """Return the title of the scores, which says what the means are over."""
    if not _series(history, "validation_auc")[1]:
        return "Validation scores, mean over images"
    if not _series(history, "validation_jaccard")[1]:
        return "Validation AUC, mean over classes"
    return "Validation: mean over images, AUC over classes"


def _draw_series(axes: "Axes", history: Sequence[dict], key: str, label: str, colour: str) -> None:
    epochs, values = _series(history, key)
    if values:
        # A line through few points is hard to see, and a single point has no line.
        marker = "o" if len(values) <= 20 else None
        axes.plot(epochs, values, color=colour, label=label, linewidth=1.8, marker=marker, markersize=3.5)


def _series(history: Sequence[dict], key: str) -> tuple[list[float], list[float]]:
    """Return the epochs with a finite value for `key`, and these values: not every epoch is validated."""
    rows = [row for row in history if _is_number(row.get(key))]
    return [row["epoch"] for row in rows], [row[key] for row in rows]


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _mark_best_epoch(losses: "Axes", scores: "Axes", history: Sequence[dict]) -> None:
    """Draw a line at the best epoch in both panels, and a point on each curve that decided which it is."""
    decisive = [score for score in DECISIVE if _series(history, score[0])[1]]
    rows = [row for row in history if all(_is_number(row.get(key)) for key, *_ in decisive)]
    if not decisive or not rows:
        return
    best = rows[int(np.argmax([quality(row) for row in rows]))]
    for axes in (losses, scores):
        axes.axvline(best["epoch"], color=QUIET, linewidth=1, linestyle=":", zorder=1)
    names = " + ".join(label for _, label, _ in decisive)
    label = f"best {names} {quality(best):.3f}, epoch {best['epoch']:g}"
    for key, _, colour in decisive:
        scores.plot(
            best["epoch"], best[key], "o", color=colour, markersize=8, mec="white", mew=1.5, label=label
        )
        label = None  # one entry in the legend is enough


def _style_curves(axes: "Axes", title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, loc="left", fontsize=11, pad=24)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(left=0)
    axes.grid(color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    style = {"fontsize": 9, "frameon": False, "columnspacing": 1.2}
    if len(handles) > IN_ONE_LINE:
        # The best epoch, which is last, has no room above. Scores are rarely close to 0.
        below = axes.legend(handles[IN_ONE_LINE:], labels[IN_ONE_LINE:], loc="lower right", **style)
        axes.add_artist(below)  # a second legend would replace it
    if handles:
        # Above the axes, the legend hides no part of a curve.
        axes.legend(
            handles[:IN_ONE_LINE],
            labels[:IN_ONE_LINE],
            loc="lower left",
            bbox_to_anchor=(-0.02, 0.99),
            ncols=IN_ONE_LINE,
            **style,
        )

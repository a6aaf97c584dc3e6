"""Figures of a diagnosis: ROC curves, reliability diagrams, and a confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from r2unet.diagnosis.roc import roc_counts, roc_curve
from r2unet.diagnosis.tables import cell
from r2unet.figures import QUIET, TRAINING, VALIDATION, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Seven colours of the palette of Okabe and Ito (2008), without yellow, which is too bright for a line on
# white. Line styles distinguish the curves a second time, also in print.
COLOURS = ("#d55e00", "#000000", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
STYLES = ("-", (0, (5, 1.5)), (0, (3, 1, 1, 1)), (0, (1, 1)))
GRID = "#e5e5e5"


def plot_roc(probabilities: np.ndarray, labels: np.ndarray, report: dict[str, Any], path: str | Path) -> None:
    """Draw the ROC curve of each class against the rest, with AUC and interval in the legend.

    `report` is the `diagnosis_report` of probabilities (N, K) and labels (N,). A class to which no image or
    every image belongs has no curve, and the legend says so. Raises InputError if `path` cannot be written.
    """
    width, height = 8.1, 4.9
    figure = new_figure(width, height)
    axes = figure.add_axes((0.7 / width, 0.6 / height, 3.9 / width, 3.9 / height))  # square
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1, linestyle=":", label="a random score 0.5")
    for k, name in enumerate(report["classes"]):
        number = report["by_class"][name]["auc"]
        label = f"{readable(name)} {cell(number, 2)}"
        curve = (
            roc_curve(roc_counts(probabilities[:, k], labels == k)) if number["value"] is not None else None
        )
        style = {"color": COLOURS[k % len(COLOURS)], "linestyle": STYLES[k % len(STYLES)], "linewidth": 1.7}
        axes.plot(*(curve or ([], [])), label=label, **style)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set_xlabel("1 - specificity", fontsize=9)
    axes.set_ylabel("sensitivity", fontsize=9)
    axes.set_title("ROC, each class against the rest", loc="left", fontsize=11)
    _add_grid(axes)
    title = f"AUC [95 % over {report['lesions']} lesions]\nmean {cell(report['mean']['auc'], 2)}"
    legend = axes.legend(
        title=title, loc="upper left", bbox_to_anchor=(1.03, 1.0), frameon=False, fontsize=9, handlelength=2.8
    )
    legend.get_title().set_fontsize(9)
    legend.set_alignment("left")
    save_figure(figure, path)


def plot_reliability(reports: Mapping[str, dict[str, Any]], path: str | Path) -> None:
    """Draw reliability diagrams over histograms of confidence, one column for each named report.

    Names could be "before" and "after temperature". Bars are the accuracy of a bin, dots its mean confidence:
    dots above their bars mean too much confidence. Raises InputError if `path` cannot be written.
    """
    width, height = 0.75 + 3.6 * len(reports), 5.2
    figure = new_figure(width, height)
    panels = figure.subplots(
        2, len(reports), sharex=True, sharey="row", squeeze=False, height_ratios=(2.6, 1)
    )
    figure.subplots_adjust(
        left=0.65 / width, right=1 - 0.12 / width, top=1 - 0.8 / height, bottom=0.5 / height, wspace=0.1
    )
    for (diagram, histogram), (name, report) in zip(panels.T, reports.items(), strict=True):
        _draw_reliability(diagram, report["calibration"]["bins"])
        _draw_confidences(histogram, report)
        error = cell(report["calibration"]["expected_calibration_error"])
        diagram.set_title(f"{name}\ncalibration error {error}", loc="left", fontsize=9)
        histogram.set_xlabel("confidence (largest probability)", fontsize=9)
    panels[0, 0].set_ylabel("accuracy", fontsize=9)
    panels[1, 0].set_ylabel("share of images", fontsize=8)
    figure.legend(
        *panels[0, 0].get_legend_handles_labels(),
        loc="upper left",
        bbox_to_anchor=(0.45 / width, 1 - 0.02 / height),
        ncols=3,
        frameon=False,
        fontsize=8,
        columnspacing=1.2,
    )
    save_figure(figure, path)


def _draw_reliability(axes: Axes, bins: Sequence[dict[str, Any]]) -> None:
    full = [each for each in bins if each["images"]]
    width = bins[0]["high"] - bins[0]["low"]
    axes.bar(
        [each["low"] for each in full],
        [each["accuracy"] for each in full],
        width,
        align="edge",
        color=TRAINING,
        alpha=0.55,
        edgecolor="white",
        label="accuracy",
    )
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1, linestyle=":", label="perfect calibration")
    axes.plot(
        [each["confidence"] for each in full],
        [each["confidence"] for each in full],
        "o",
        color=VALIDATION,
        mec="white",
        mew=0.8,
        markersize=6,
        label="mean confidence",
    )
    for each in full:  # the gap between the two
        axes.plot(
            [each["confidence"]] * 2, [each["accuracy"], each["confidence"]], color=VALIDATION, linewidth=1
        )
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    _add_grid(axes)


def _draw_confidences(axes: Axes, report: dict[str, Any]) -> None:
    bins = report["calibration"]["bins"]
    shares = [each["images"] / report["images"] for each in bins]
    lows = [each["low"] for each in bins]
    axes.bar(lows, shares, bins[0]["high"], align="edge", color="#b0b0b0", edgecolor="white")
    _add_grid(axes)


def plot_confusion(
    matrix: Sequence[Sequence[int]], classes: Sequence[str], path: str | Path, title: str = ""
) -> None:
    """Draw a confusion matrix (K, K): counts and, as colour, their share of the row, the true class.

    The sensitivity of a class is the colour on the diagonal. `title` should name the decision. Raises
    InputError if `path` cannot be written.
    """
    counts = np.asarray(matrix)
    rows = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(rows, 1)  # (K, K); an empty row stays 0
    side = max(2.4, 0.62 * len(classes))  # inches
    width, height = 1.75 + side + 0.85, 0.5 + side + 1.35
    figure = new_figure(width, height)
    axes = figure.add_axes((1.75 / width, 1.35 / height, side / width, side / height))
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (i, j), count in np.ndenumerate(counts):
        colour = "white" if shares[i, j] > 0.5 else "black"
        axes.text(j, i, f"{count}", ha="center", va="center", color=colour, fontsize=9)
    ticks = range(len(classes))
    axes.set_xticks(
        ticks, [readable(name) for name in classes], rotation=38, ha="right", rotation_mode="anchor"
    )
    labels = [f"{readable(name)} ({total})" for name, total in zip(classes, rows[:, 0], strict=True)]
    axes.set_yticks(ticks, labels)
    axes.tick_params(labelsize=8, length=0)
    axes.set_xlabel("decision", fontsize=9)
    axes.set_ylabel("truth (images)", fontsize=9)
    axes.set_title(title, loc="left", fontsize=10)
    for spine in axes.spines.values():
        spine.set_color(QUIET)
    bar_axes = figure.add_axes(((1.75 + side + 0.12) / width, 1.35 / height, 0.13 / width, side / height))
    bar = figure.colorbar(image, cax=bar_axes)
    bar.set_label("share of the row", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    save_figure(figure, path)


def readable(name: str) -> str:
    """Return the name of a class for a figure: "basal_cell_carcinoma" is "basal cell carcinoma"."""
    return name.replace("_", " ")


def _add_grid(axes: Axes) -> None:
    axes.set_axisbelow(True)
    axes.grid(color=GRID, linewidth=0.8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)

"""Figures of a study: the scores of its rows, their learning curves, and their outlines.

Bars start at zero, because otherwise their length would mean nothing. Rows that are worth comparing often
have similar bars, so a second panel shows the difference to the first row on its own scale. Every dot is one
run: with two or three seeds, all of them can be shown. Outlines and diagnoses have the same figures, of the
mean Jaccard and of the mean AUC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from r2unet.figures import (
    PREDICTION,
    QUIET,
    TRAINING,
    TRUTH,
    VALIDATION,
    add_outline_legend,
    cell_height,
    draw_outline,
    new_figure,
    printable,
    save_figure,
)
from r2unet.scores.overlays import OverlayRow
from r2unet.study.diagnosis_findings import DiagnosisFinding
from r2unet.study.findings import Difference, Finding

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FAINT = "#c8c8c8"
CELL, GAP, LEFT, TOP, BOTTOM = 1.5, 0.06, 0.35, 0.3, 0.4  # the layout of plot_overlays, in inches
LARGEST_SIDE = 256  # pixels of an image in plot_overlays, where it is 225 wide

# The columns of history.csv with learning curves, and how they are called.
CURVES = {"validation_jaccard": "validation Jaccard", "validation_auc": "validation AUC, mean over classes"}


class Bar(NamedTuple):
    """A row of a study in `plot_bars`: the values of its seeds, and its difference to the first row."""

    label: str
    values: list[float]
    interval: list[float] | None  # of their mean
    difference: Difference | None
    train_mode: list[float] | None = None  # the values of the seeds in train mode


class Point(NamedTuple):
    """A value of a setting that was changed alone."""

    value: str
    jaccards: list[float]  # of each seed
    given: bool  # whether the other panels use this value


def plot_jaccards(findings: Sequence[Finding], path: str | Path, otsu: float | None = None) -> None:
    """Draw the mean Jaccard of each row with outlines, at least one, and of Otsu's threshold as a line.

    Rows that were also scored in train mode have a second bar.
    """
    bars = [
        Bar(
            finding.row.label,
            [run.scores["model"]["mean"]["jaccard"] for run in finding.runs],
            finding.interval,
            finding.difference,
            [run.modes["jaccard_train_mode"] for run in finding.runs]
            if all(run.modes for run in finding.runs)
            else None,
        )
        for finding in findings
        if finding.outlines
    ]
    plot_bars(bars, path, "Validation Jaccard", "images", {} if otsu is None else {"Otsu's threshold": otsu})


def plot_aucs(found: Sequence[DiagnosisFinding], path: str | Path) -> None:
    """Draw the mean AUC of each row with diagnoses, at least one, and of a random score as a line.

    A row whose AUC is undefined has no bar.
    """
    bars = [Bar(each.row.label, each.values("auc"), each.interval, each.difference) for each in found]
    plot_bars(bars, path, "Validation AUC, mean over classes", "lesions", {"a random score": 0.5})


def plot_bars(
    bars: Sequence[Bar], path: str | Path, title: str, units: str, baselines: Mapping[str, float]
) -> None:
    """Draw each row's mean score as a bar, and its difference to the first row in a second panel.

    Lines are 95 % intervals over `units`, dots are seeds. The scores of `baselines` are drawn as lines.
    """
    from matplotlib.ticker import MaxNLocator

    height = 1.35 + 0.42 * len(bars)
    figure = new_figure(10.5, height)
    scores, differences = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    figure.subplots_adjust(left=0.19, right=0.98, top=1 - 0.62 / height, bottom=0.6 / height, wspace=0.12)
    _draw_scores(scores, bars, units)
    for name, baseline in baselines.items():
        scores.axvline(baseline, color=QUIET, linestyle=":", label=name, zorder=1)
    for y, bar in enumerate(bars):
        if difference := bar.difference:
            differences.plot(difference.interval, [y, y], color="black", linewidth=1.6, zorder=2)
            differences.plot(difference.mean, y, "|", color="black", markersize=12, mew=1.6, zorder=2)
            _draw_seeds(differences, list(difference.by_seed.values()), y)
    differences.axvline(0, color=QUIET, linewidth=1, zorder=1)
    scores.set_yticks(range(len(bars)), [printable(bar.label) for bar in bars])
    scores.invert_yaxis()
    _style(scores, title, "mean over images" if units == "images" else "mean over seeds")
    _style(differences, f"Difference to {printable(bars[0].label)}", f"paired over {units}")
    differences.xaxis.set_major_locator(MaxNLocator(4))  # small differences have long numbers
    for axes in (scores, differences):
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
    legend = {"loc": "lower left", "bbox_to_anchor": (-0.01, 0.98), "ncols": 5, "columnspacing": 1.0}
    scores.legend(**legend, handlelength=1.5, fontsize=8, frameon=False)
    save_figure(figure, path)


def _draw_scores(axes: Axes, bars: Sequence[Bar], units: str) -> None:
    modes = all(bar.train_mode for bar in bars)
    height, offset = (0.4, 0.21) if modes else (0.62, 0.0)
    labels = ["eval mode" if modes else None, f"95 % over {units}", "seeds", "train mode"]  # of the first bar
    for y, (_, values, interval, _, train_mode) in enumerate(bars):
        if not values:
            continue
        axes.barh(y - offset, np.mean(values), height, color=TRAINING, alpha=0.55, label=labels[0], zorder=1)
        if interval:
            axes.plot(interval, [y - offset] * 2, color="black", linewidth=1.6, label=labels[1], zorder=2)
        _draw_seeds(axes, values, y - offset, labels[2])
        if modes:
            axes.barh(y + offset, np.mean(train_mode), height, color=FAINT, label=labels[3], zorder=1)
            _draw_seeds(axes, train_mode, y + offset - 0.1)
        labels = [None] * 4
    axes.set_xlim(0, 1)


def _draw_seeds(axes: Axes, values: Sequence[float], y: float, label: str | None = None) -> None:
    axes.plot(
        values,
        [y + 0.17] * len(values),  # below the interval's line, which they would hide
        "o",
        color=VALIDATION,
        mec="white",
        mew=0.8,
        markersize=5.5,
        clip_on=False,
        label=label,
        zorder=3,
    )


def _style(axes: Axes, title: str, label: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, pad=22)
    axes.set_xlabel(label, fontsize=9)
    axes.set_axisbelow(True)
    _add_grid(axes)


def _add_grid(axes: Axes) -> None:
    axes.grid(color="#e5e5e5", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)


def plot_learning_curves(findings: Sequence[Finding], path: str | Path) -> None:
    """Draw the mean validation Jaccard by epoch, one panel per row, with the other rows in grey.

    Below, in the same way, the mean AUC of the rows with diagnoses. Dots mark the best epoch of each seed.
    The title shows how much the best score rose in the last fifth of the epochs, as the mean over seeds: a
    row that still rises would probably be better with more. A row with both scores has their sum.
    """
    groups = {key: [f for f in findings if key in f.runs[0].history[0]] for key in CURVES}
    groups = {key: group for key, group in groups.items() if group}
    most = max(len(group) for group in groups.values())
    lines = -(-most // 4)
    columns = -(-most // lines)  # as even as possible: six panels are 3 + 3, not 4 + 2
    heights = {key: 0.45 + 2.3 * -(-len(group) // columns) for key, group in groups.items()}
    width, height = max(4.2, 0.5 + 2.6 * columns), sum(heights.values())
    figure = new_figure(width, height)
    top = height
    for key, group in groups.items():
        bottom = top - heights[key]
        sides = {"left": 0.62 / width, "right": 1 - 0.15 / width}
        sides |= {"top": 1 - (height - top + 0.48) / height, "bottom": (bottom + 0.5) / height}
        grid = figure.add_gridspec(-(-len(group) // columns), columns, **sides, hspace=0.38, wspace=0.1)
        _draw_panels(grid.subplots(sharex=True, sharey=True, squeeze=False).ravel(), group, key)
        figure.text(0.5, (bottom + 0.06) / height, "epoch", fontsize=9, ha="center", va="bottom")
        middle = (top + bottom) / 2 / height
        style = {"fontsize": 9, "rotation": "vertical", "va": "center"}
        figure.text(0.1 / width, middle, CURVES[key], **style)
        top = bottom
    save_figure(figure, path)


def _draw_panels(panels: Sequence[Axes], findings: Sequence[Finding], key: str) -> None:
    from matplotlib.ticker import MaxNLocator

    highest = max(row[key] for f in findings for run in f.runs for row in run.history) or 1.0
    for axes, finding in zip(panels, findings, strict=False):
        for other in findings:
            _draw_learning_curves(axes, other, key, FAINT)
        _draw_learning_curves(axes, finding, key, VALIDATION)
        gains = [gain for run in finding.runs if (gain := run.gain_in_last_fifth) is not None]
        of = ", sum" if all(name in finding.runs[0].history[0] for name in CURVES) else ""
        title = printable(finding.row.label) + (f"\nlast fifth{of} {np.mean(gains):+.3f}" if gains else "")
        axes.set_title(title, loc="left", fontsize=9)
        _add_grid(axes)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.xaxis.set_tick_params(labelbottom=True)
        axes.set_ylim(0, min(1.0, 1.1 * highest))
    for axes in panels[len(findings) :]:
        axes.set_visible(False)


def _draw_learning_curves(axes: Axes, finding: Finding, key: str, colour: str) -> None:
    for run in finding.runs:
        values = [row[key] for row in run.history]
        axes.plot(range(1, len(values) + 1), values, color=colour, linewidth=1.2)
        if colour != FAINT:
            best = run.best_epoch
            axes.plot(best, values[best - 1], "o", color=colour, mec="white", mew=0.8, clip_on=False)


def plot_overlays(columns: Mapping[str, Sequence[OverlayRow]], path: str | Path) -> None:
    """Draw the true and the predicted outlines: a column for each row of a study, a line for each image.

    All columns have the same images in the same order.
    """
    images = next(iter(columns.values()))
    heights = [cell_height(row.image, CELL) for row in images]
    width = max(3.0, LEFT + len(columns) * (CELL + GAP))
    height = TOP + sum(heights) + GAP * len(heights) + BOTTOM
    figure = new_figure(width, height)
    for i, (label, rows) in enumerate(columns.items()):
        top = height - TOP
        for j, (row, row_height) in enumerate(zip(rows, heights, strict=True)):
            top -= row_height
            left = LEFT + i * (CELL + GAP)
            box = (left / width, top / height, CELL / width, row_height / height)
            axes = figure.add_axes(box, xticks=[], yticks=[])
            _draw_overlay(axes, row)
            if i == 0:
                axes.set_ylabel(printable(row.name, 24), fontsize=7)
            if j == 0:
                axes.set_title(printable(label, 24), fontsize=8)
            top -= GAP
    add_outline_legend(figure)
    save_figure(figure, path)


def _draw_overlay(axes: Axes, row: OverlayRow) -> None:
    axes.imshow(row.image)
    draw_outline(axes, row.truth, 0.5, TRUTH)
    draw_outline(axes, row.probability, 0.5, PREDICTION)
    label = axes.text(0.04, 0.96, f"{row.jaccard:.2f}", transform=axes.transAxes, va="top", color="white")
    label.set_fontsize(8)
    label.set_bbox({"facecolor": "#00000090", "linewidth": 0, "pad": 1.5})


def plot_factors(panels: Mapping[str, Sequence[Point]], path: str | Path) -> None:
    """Draw Jaccard by the value of each setting that was changed alone; dots are seeds.

    The values are in order and at equal distances, whether they differ by a factor or by a constant.
    """
    width, height = 0.7 + 2.2 * len(panels), 3.1
    figure = new_figure(width, height)
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    figure.subplots_adjust(
        left=0.68 / width, right=1 - 0.1 / width, top=1 - 0.4 / height, bottom=0.85 / height, wspace=0.08
    )
    for axes, (name, points) in zip(all_axes, panels.items(), strict=True):
        means = [np.mean(point.jaccards) for point in points]
        # A line connects numbers only: names, for example of losses, have no order.
        line_width = 1.2 if all(point.value[0].isdigit() for point in points) else 0.0
        axes.plot(range(len(points)), means, "_-", color=TRAINING, lw=line_width, markersize=14, mew=2)
        for x, point in enumerate(points):
            axes.plot([x] * len(point.jaccards), point.jaccards, "o", color=VALIDATION, mec="white", mew=0.8)
        axes.set_xticks(range(len(points)), [point.value for point in points], fontsize=8)
        if any("," in point.value for point in points):
            axes.tick_params(axis="x", rotation=18)
        for point, tick in zip(points, axes.get_xticklabels(), strict=True):
            tick.set_weight("bold" if point.given else "normal")
        axes.set_xlim(-0.5, len(points) - 0.5)
        axes.set_title(name.replace("_", " "), loc="left", fontsize=10)
        _add_grid(axes)
    all_axes[0].set_ylabel("validation Jaccard", fontsize=9)
    figure.text(
        0.68 / width,
        0.1 / height,
        "bold: the given value, which the other panels use",
        fontsize=8,
        color=QUIET,
    )
    save_figure(figure, path)

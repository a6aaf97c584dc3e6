"""The diagnosis: the head, and how its answers are judged."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from drawings.style import (
    BLUE,
    DOTS_PER_INCH,
    GREEN,
    INK,
    ORANGE,
    QUIET,
    arrow,
    box,
    cells,
    label,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_diagnosis() -> Figure:
    """Draw the two answers of one network: features pooled over the predicted lesion and over the image."""
    figure, axes = new_figure(8.6, 3.7, (-0.4, 16.8), (-3.1, 4.3))
    label(axes, 0.5, 0, "image")
    arrow(axes, (1.15, 0), (1.9, 0))
    box(axes, 2.9, 0, "encoder", BLUE, 2.0)
    label(axes, 4.65, 0.3, "features f", fontsize=10)
    axes.plot([3.9, 5.6], [0, 0], color=INK, lw=1.3)
    axes.plot([5.6, 5.6], [-1.8, 3.6], color=INK, lw=1.3)
    arrow(axes, (5.6, 3.6), (6.3, 3.6))
    box(axes, 7.3, 3.6, "decoder", BLUE, 2.0)
    arrow(axes, (8.3, 3.6), (14.3, 3.6))
    label(axes, 14.45, 3.6, "outline", ha="left")
    arrow(axes, (5.6, 0), (7.3, 0))
    arrow(axes, (5.6, -1.8), (7.3, -1.8))
    box(axes, 9.2, 0, "pool over the lesion", ORANGE, 3.8)
    box(axes, 9.2, -1.8, "pool over the image", GREEN, 3.8)
    arrow(axes, (9.2, 3.6), (9.2, 2.1), dashes="--")
    box(axes, 9.2, 1.8, "sigmoid, mean of each cell", width=4.7)
    arrow(axes, (9.2, 1.5), (9.2, 0.3), dashes="--")
    label(axes, 9.5, 0.9, "mask m", fontsize=10, ha="left")
    label(axes, 9.5, 2.75, "dashed: a constant in the backward pass", QUIET, fontsize=10, ha="left")
    axes.plot([11.1, 11.9, 11.9], [0, 0, -1.8], color=INK, lw=1.3)
    axes.plot([11.1, 11.9], [-1.8, -1.8], color=INK, lw=1.3)
    arrow(axes, (11.9, -0.9), (12.5, -0.9))
    box(axes, 13.3, -0.9, "linear", BLUE, 1.6)
    arrow(axes, (14.1, -0.9), (14.6, -0.9))
    label(axes, 14.7, -0.9, "diagnosis", ha="left")
    text = "each pooling keeps the mean and the maximum of every channel; boxes in blue have weights"
    label(axes, 8.2, -2.75, text, QUIET, fontsize=10)
    return figure


def draw_roc() -> Figure:
    """Draw the scores of six images and their ROC curve, in which every pair of images is one cell."""
    import numpy as np

    from r2unet.diagnosis.roc import auc, roc_counts, roc_curve

    malignant, benign = (0.9, 0.6, 0.3), (0.7, 0.3, 0.1)
    counts = roc_counts(np.array(malignant + benign), np.array([True] * 3 + [False] * 3))
    figure, axes = new_figure(6.4, 4.4, (-3.25, 4.3), (-1.05, 4.15))
    for x, name, scores, mark in ((-2.2, "malignant", malignant, "o"), (-0.95, "benign", benign, "s")):
        label(axes, x, 3.75, name, fontsize=10.5)
        colour = ORANGE if mark == "o" else BLUE
        for score in scores:
            axes.plot(x - 0.25, 3.5 * score, mark, ms=11, color=colour, mec=INK, mew=0.9)
            label(axes, x, 3.5 * score, f"{score}", ha="left", fontsize=10.5)
    arrow(axes, (-2.85, 0.0), (-2.85, 3.6), colour=QUIET)
    label(axes, -3.05, 1.8, "score", QUIET, fontsize=10, rotation=90)
    won = [["#c4e4f7" if p > n else "white" for n in benign] for p in malignant]
    cells(axes, 1.0, 3.0, [[""] * 3] * 3, won[::-1])
    axes.fill([2, 3, 3], [2, 2, 3], color="#c4e4f7", zorder=1.5)  # the tie is won by half
    for (i, p), (j, n) in product(enumerate(malignant), enumerate(benign)):
        sign = "=" if p == n else ">" if p > n else "<"
        label(axes, 1.6 + j, 0.13 + i, f"{p} {sign} {n}", fontsize=9, zorder=4)
    fpr, tpr = roc_curve(counts)
    axes.plot(1 + 3 * fpr, 3 * tpr, "-o", color=INK, lw=2.4, ms=6, zorder=3, clip_on=False)
    for i, text in enumerate(("0", "1/3", "2/3", "1")):
        label(axes, 1 + i, -0.25, text, fontsize=9.5, color=QUIET)
        label(axes, 0.85, i, text, fontsize=9.5, color=QUIET, ha="right")
    label(axes, 2.5, -0.65, "1 - specificity", fontsize=10.5)
    label(axes, 0.2, 1.5, "sensitivity", fontsize=10.5, rotation=90)
    label(axes, 2.35, 3.75, "one cell for each pair: malignant, benign", fontsize=10.5)
    label(axes, 2.35, 3.4, f"below the curve: 6.5 of 9 cells, AUC {auc(counts):.3f}", fontsize=10.5)
    return figure


def draw_reliability() -> Figure:
    """Draw the reliability of logits that are twice too large, before and after temperature scaling."""
    import numpy as np
    from matplotlib.figure import Figure

    from r2unet.diagnosis.calibration import (
        apply_temperature,
        expected_calibration_error,
        fit_temperature,
        reliability,
    )

    rng = np.random.default_rng(0)  # as in the chapter
    z = rng.normal(scale=1.5, size=(20000, 3))
    true = apply_temperature(z, 1.0)
    labels = (true.cumsum(axis=1) > rng.random((20000, 1))).argmax(axis=1)
    temperature = fit_temperature(2 * z[:10000], labels[:10000])
    figure = Figure(figsize=(8.6, 3.9), dpi=DOTS_PER_INCH, facecolor="white")
    for i, (t, name) in enumerate(((1.0, "before"), (temperature, f"after: T = {temperature:.2f}"))):
        bins = reliability(apply_temperature(2 * z[10000:], t), labels[10000:])
        axes = figure.add_axes((0.075 + 0.475 * i, 0.14, 0.435, 0.74))
        width = 1 / len(bins.images)
        lows = width * np.arange(len(bins.images))
        axes.bar(lows, bins.accuracy, width, align="edge", color=BLUE, ec="white", label="accuracy")
        axes.plot([0, 1], [0, 1], ":", color=QUIET, lw=1.2, label="perfect calibration")
        both = [bins.accuracy, bins.confidence]
        axes.plot([bins.confidence] * 2, both, color=INK, lw=1.4)
        dots = {"color": ORANGE, "mec": INK, "ms": 6.5, "label": "mean confidence"}
        axes.plot(bins.confidence, bins.confidence, "o", **dots)
        axes.set(xlim=(0.3, 1.0), ylim=(0, 1.02))
        axes.tick_params(labelsize=9, colors=INK)
        axes.spines[["top", "right"]].set_visible(False)
        error = expected_calibration_error(bins)
        axes.set_title(f"{name}, calibration error {error:.3f}", loc="left", fontsize=11, color=INK)
        axes.set_xlabel("confidence", fontsize=10.5, color=INK)
        if i == 0:
            axes.set_ylabel("accuracy", fontsize=10.5, color=INK)
            axes.legend(loc="upper left", frameon=False, fontsize=9.5, labelcolor=INK)
    return figure

"""The packages, and what each may import."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drawings.style import BLUE, ORANGE, QUIET, arrow, box, label, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_architecture() -> Figure:
    """Draw the parts of r2unet and minidl from the commands down; each imports only those below it."""
    figure, axes = new_figure(8.0, 9.3, (0.2, 10.7), (-1.3, 11.1))
    packages = [
        (10.5, 6.0, 8.6, "commands", "one file for each command, and its options"),
        (9.5, 6.0, 8.6, "study", "several training runs compared: plan, findings, report"),
        (8.5, 6.0, 8.6, "training", "settings, the loop, checkpoints, cost, export"),
        (7.5, 6.0, 8.6, "diagnosis", "ROC, decisions, calibration, intervals, baselines"),
        (6.5, 6.0, 8.6, "scores", "metrics of masks, baselines, evaluation, ISIC scoring"),
        (5.5, 6.0, 8.6, "prediction", "image to mask and diagnosis, clean-up, explanation"),
        (4.5, 3.8, 4.2, "data", "images, labels, lesions"),
        (4.5, 8.2, 4.2, "network", "blocks, U, head"),
    ]
    engine = [
        (2.7, 6.0, 8.6, "layers and training tools", "nn, optim, ema, data, checkpoint, gradcheck"),
        (1.7, 6.0, 8.6, "ops", "definitions, and faster implementations of them"),
        (0.7, 6.0, 8.6, "tensor", "the computational graph and backpropagation"),
        (-0.3, 6.0, 8.6, "backend", "devices, transfers, CUDA kernels; CuPy and cuda_on_cpu"),
    ]
    for rows, colour in ((packages, BLUE), (engine, ORANGE)):
        for y, x, width, name, content in rows:
            box(axes, x, y, "", colour, width)
            label(axes, x - width / 2 + 0.2, y, name, ha="left", fontweight="bold")
            label(axes, x + width / 2 - 0.2, y, content, ha="right", fontsize=9)
    for y in (10.0, 9.0, 8.0, 7.0, 6.0, 2.2, 1.2, 0.2):
        arrow(axes, (6.0, y + 0.18), (6.0, y - 0.18))
    for x in (3.8, 8.2):
        arrow(axes, (x, 5.18), (x, 4.82))
    arrow(axes, (8.2, 4.18), (8.2, 3.02))
    for y, name in ((7.5, "r2unet"), (1.2, "minidl")):
        label(axes, 0.75, y, name, fontsize=13, fontweight="bold", rotation=90)
    note = "minidl does not import r2unet; data imports neither network nor minidl"
    label(axes, 6.0, -1.05, note, QUIET, fontsize=9)
    return figure

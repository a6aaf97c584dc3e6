"""The block of R2U-Net: the whole block, its recurrence as a loop and unrolled, and the backward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drawings.style import BLUE, GREEN, INK, ORANGE, QUIET, arrow, box, label, new_figure, plus

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_block() -> Figure:
    """Draw the recurrent residual block: a 1x1 convolution, two recurrent convolutions and the shortcut."""
    figure, axes = new_figure(8.6, 3.3, (-1.9, 17.7), (-3.3, 4.1))
    label(axes, -1.6, 0, "x")
    label(axes, -1.6, -0.75, "C", QUIET, fontsize=9.5)
    box(axes, 1.1, 0, "conv 1x1", BLUE, 2.2)
    arrow(axes, (-1.3, 0), (0, 0))
    for x, name, field in ((6.2, "recurrent", "7 x 7"), (11.1, "recurrent", "13 x 13")):
        box(axes, x, 0, name, BLUE, 2.6)
        axes.plot([x + 0.8, x + 0.8, x - 0.8, x - 0.8], [0.3, 1.1, 1.1, 0.7], color=ORANGE, lw=1.3)
        arrow(axes, (x - 0.8, 0.75), (x - 0.8, 0.3), colour=ORANGE)
        label(axes, x, 1.45, "t times", ORANGE, fontsize=9.5)
        label(axes, x, -0.75, f"sees {field} for t = 2", QUIET, fontsize=9.5)
    arrow(axes, (2.2, 0), (4.9, 0))
    label(axes, 3.55, 0.35, "x'")
    label(axes, 3.2, -0.75, "OC", QUIET, fontsize=9.5)
    arrow(axes, (7.5, 0), (9.8, 0))
    arrow(axes, (12.4, 0), (14.95, 0))
    plus(axes, 15.2, 0)
    arrow(axes, (15.45, 0), (16.9, 0))
    label(axes, 17.2, 0, "y")
    label(axes, 17.2, -0.75, "OC", QUIET, fontsize=9.5)
    axes.plot([3.2, 3.2], [0, 0], "o", color=GREEN, ms=5)
    axes.plot([3.2, 3.2, 15.2], [0, 2.6, 2.6], color=GREEN, lw=1.6)
    arrow(axes, (15.2, 2.6), (15.2, 0.25), colour=GREEN)
    label(axes, 9.2, 2.95, "shortcut: x' itself", GREEN)
    arrow(axes, (15.0, -1.75), (3.4, -1.75), colour=QUIET, dashes="--")
    text = "backward: x' receives dy on the shortcut, and J^T dy through the 2 (t + 1) convolutions"
    label(axes, 9.2, -2.3, text, QUIET, fontsize=10)
    label(
        axes, 7.9, 3.75, "y = x' + recurrent(recurrent(x')),   height and width stay the same", fontsize=10.5
    )
    return figure


def draw_recurrence() -> Figure:
    """Draw the recurrent convolution, as a loop and unrolled for t = 2."""
    figure, axes = new_figure(8.6, 4.0, (-2.4, 12.6), (-2.6, 4.4))
    label(axes, -0.4, 4.0, "as a loop")
    box(axes, -0.4, 1.4, "conv w", BLUE, 1.8)
    box(axes, -0.4, 2.7, "norm, relu", width=1.8)
    label(axes, -0.4, -1.5, "x")
    arrow(axes, (-0.4, -1.2), (-0.4, -0.05))
    plus(axes, -0.4, 0.2)
    arrow(axes, (-0.4, 0.45), (-0.4, 1.1))
    arrow(axes, (-0.4, 1.7), (-0.4, 2.4))
    arrow(axes, (-0.4, 3.0), (-0.4, 3.7))
    axes.plot([-0.4, -1.8, -1.8], [3.35, 3.35, 0.2], color=ORANGE, lw=1.3)
    arrow(axes, (-1.8, 0.2), (-0.65, 0.2), colour=ORANGE)
    for step, x in enumerate((3.6, 7.1, 10.6)):
        label(axes, x, 4.0, f"step {step}")
        box(axes, x, 1.4, "conv w", BLUE, 1.8)
        box(axes, x, 2.7, f"norm[{step}], relu", width=2.3)
        arrow(axes, (x, 1.7), (x, 2.4))
        plus(axes, x, 0.2)
        arrow(axes, (x, -1.2), (x, -0.05))
        arrow(axes, (x, 0.45), (x, 1.1))
        axes.plot([x, x], [-1.2, -1.5], color=INK, lw=1.3)
    axes.plot([2.4, 10.6], [-1.5, -1.5], color=INK, lw=1.3)
    label(axes, 2.1, -1.5, "x")
    arrow(axes, (2.2, 0.2), (3.35, 0.2), colour=ORANGE)
    label(axes, 2.25, 0.5, "y(-1) = 0", fontsize=10.5)
    for step, x in enumerate((3.6, 7.1)):
        axes.plot([x + 1.15, x + 1.75, x + 1.75], [2.7, 2.7, 0.2], color=ORANGE, lw=1.3)
        arrow(axes, (x + 1.75, 0.2), (x + 3.25, 0.2), colour=ORANGE)
        label(axes, x + 1.5, 3.0, f"y({step})", fontsize=10.5)
    arrow(axes, (11.75, 2.7), (12.3, 2.7))
    label(axes, 12.1, 3.0, "y(2)", fontsize=10.5)
    label(axes, 7.1, -2.25, "all steps share w, and each has its own running statistics", fontsize=10.5)
    return figure


def draw_through_time() -> Figure:
    """Draw the backward pass of the recurrence for t = 2: a gradient for x and for w from every step."""
    figure, axes = new_figure(8.6, 4.5, (-1.6, 13.4), (-3.9, 3.95))
    places = (2.4, 6.4, 10.4)
    for step, x in enumerate(places):
        label(axes, x, 3.6, f"step {step}")
        box(axes, x, 2.4, f"norm[{step}], relu", width=2.3)
        box(axes, x, 1.1, "conv w", BLUE, 1.8)
        back(axes, (x, 2.1), (x, 1.4))
        arrow(axes, (x, 0.8), (x, -1.7), colour=ORANGE, dashes="--")
        label(axes, x + 0.2, 0.35, f"dw[{step}]", ORANGE, ha="left", fontsize=10.5)
    for step, x in enumerate(places[1:], start=1):
        plus(axes, x - 1.6, 1.1)
        back(axes, (x - 0.9, 1.1), (x - 1.35, 1.1))
        axes.plot([x - 1.6, x - 1.6], [1.35, 2.4], color=ORANGE, lw=1.3, ls="--")
        back(axes, (x - 1.6, 2.4), (x - 2.85, 2.4))
        label(axes, x - 2.2, 2.75, f"dy({step - 1})", fontsize=10.5)
        axes.plot([x - 1.6, x - 1.6], [0.85, -0.55], color=GREEN, lw=1.3, ls="--")
    back(axes, (13.0, 2.4), (11.55, 2.4))
    label(axes, 12.5, 2.75, "dy(2)", fontsize=10.5)
    axes.plot([1.5, 0.8, 0.8], [1.1, 1.1, -0.55], color=GREEN, lw=1.3, ls="--")
    axes.plot([8.8, 0.8], [-0.55, -0.55], color=GREEN, lw=1.3, ls="--")
    arrow(axes, (0.8, -0.55), (-0.4, -0.55), colour=GREEN, dashes="--")
    label(axes, -0.8, -0.55, "dx", GREEN)
    axes.plot([2.4, 10.4], [-2.05, -2.05], color=INK, lw=1.3)
    for x in places:
        axes.plot([x, x], [-1.7, -2.05], color=INK, lw=1.3)
    label(axes, 6.4, -2.5, "dL/dw = dw[0] + dw[1] + dw[2]: the steps share w")
    label(axes, 6.4, -3.1, "dL/dx: one part from every step, because every step adds x", GREEN, fontsize=10.5)
    text = "a sum passes its gradient on unchanged, to x and to the output of the step before"
    label(axes, 6.4, -3.65, text, QUIET, fontsize=10)
    return figure


def back(axes: Axes, start: tuple, end: tuple) -> None:
    """Draw the way of a gradient: dashed."""
    arrow(axes, start, end, colour=ORANGE, dashes="--")

"""The computational graph, and the step size of a gradient check."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drawings.style import (
    BLUE,
    DOTS_PER_INCH,
    GREEN,
    INK,
    ORANGE,
    PAPER,
    QUIET,
    arrow,
    box,
    label,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_graph() -> Figure:
    """Draw the graph of y = relu(conv(x)), z = conv(x + y) and the order of its backward pass."""
    figure, axes = new_figure(8.6, 3.0, (-0.75, 11.05), (-2.05, 2.05))
    names = ("project", "conv", "relu", "add", "conv")
    places = [0.6 + 2.15 * i for i in range(len(names))]
    for i, (name, x) in enumerate(zip(names, places, strict=True)):
        box(axes, x, 0, name, BLUE if name == "project" else "white", width=1.4)
        label(axes, x, -0.52, f"backward: {len(names) - i}", fontsize=9.5, color=QUIET)
    for a, b, value in zip(places, places[1:], ("x", "", "y", "x + y"), strict=False):
        arrow(axes, (a + 0.7, 0), (b - 0.7, 0))
        label(axes, (a + b) / 2, 0.22, value, fontsize=10.5)
    arrow(axes, (-0.6, 0), (-0.1, 0))
    arrow(axes, (places[-1] + 0.7, 0), (places[-1] + 1.2, 0))
    label(axes, places[-1] + 1.0, 0.25, "z", fontsize=10.5)
    arrow(axes, (1.2, 0.3), (places[3], 0.32), bend=-0.28)
    label(axes, 4.1, 1.75, "x has two consumers, conv and add; each other value here has one", fontsize=10.5)
    arrow(axes, (places[1], -0.75), (0.85, -0.75), bend=-0.16, colour=ORANGE, dashes="--")
    arrow(axes, (places[3], -0.75), (0.45, -0.75), bend=-0.16, colour=ORANGE, dashes="--")
    label(
        axes,
        4.1,
        -1.8,
        "project receives two gradients and is visited after both have arrived",
        fontsize=10.5,
    )
    return figure


def draw_step_size() -> Figure:
    """Draw the error of finite differences of x^3 at 1.7 against the step h: truncation and rounding."""
    import numpy as np
    from matplotlib.figure import Figure

    def cube(x: np.ndarray) -> np.ndarray:
        return x * x * x

    figure = Figure(figsize=(8.6, 4.2), dpi=DOTS_PER_INCH, facecolor=PAPER)
    axes = figure.add_axes((0.085, 0.13, 0.89, 0.82))
    axes.set_facecolor(PAPER)
    h, x, exact = 10.0 ** np.linspace(-12, -0.5, 231), 1.7, 3 * 1.7**2
    x32, h32 = np.float32(x), h.astype(np.float32)
    curves = (
        (GREEN, "one-sided, float64", (cube(x + h) - cube(x)) / h),
        (ORANGE, "central, float32", (cube(x32 + h32) - cube(x32 - h32)).astype(float) / (2 * h)),
        (BLUE, "central, float64", (cube(x + h) - cube(x - h)) / (2 * h)),
    )
    for colour, name, slope in curves:
        error = np.maximum(abs(slope / exact - 1), 1e-13)
        axes.loglog(h, error, color=colour, lw=1.2, label=name)
    label(axes, 5e-6, 4e-8, "truncation, one-sided: h", QUIET, fontsize=9.5)
    label(axes, 1.5e-2, 5e-9, "truncation, central: h^2", QUIET, fontsize=9.5)
    label(axes, 6e-10, 1e-5, "rounding: 1e-16 / h", QUIET, fontsize=9.5)
    axes.plot([1e-5], [1.3e-11], "o", ms=8, mfc="none", mec=INK)
    label(axes, 8e-5, 1e-12, "h = 1e-5, used by the checks", fontsize=9.5)
    axes.set(xlim=(1e-12, 0.32), ylim=(2e-13, 8))
    axes.tick_params(which="both", labelsize=9, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.set_xlabel("step h", fontsize=10.5, color=INK)
    axes.set_ylabel("relative error of the derivative", fontsize=10.5, color=INK)
    axes.legend(loc="lower left", frameon=False, fontsize=9.5, labelcolor=INK)
    return figure

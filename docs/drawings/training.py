"""A training run: the learning rate of every step, a weight, and the moving average of the weight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drawings.style import BLUE, DOTS_PER_INCH, INK, ORANGE, PAPER, QUIET, label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS, WARMUP, RATE, DECAY = 400, 40, 0.3, 0.95


def draw_training() -> Figure:
    """Draw the schedule above one weight with a noisy gradient and its moving average."""
    from matplotlib.figure import Figure

    rates, weights, averages = run()
    figure = Figure(figsize=(6.4, 3.9), dpi=DOTS_PER_INCH, facecolor=PAPER)
    above = figure.add_axes((0.09, 0.72, 0.89, 0.25))
    below = figure.add_axes((0.09, 0.13, 0.89, 0.52), sharex=above)
    above.plot(rates, color=INK, lw=1.6)
    label(above, 396, 0.85 * RATE, "learning rate: warm-up, then half a cosine", ha="right")
    below.axhline(0, color=QUIET, lw=0.8, ls=":")
    below.plot(weights, color=BLUE, lw=0.9, label="weight")
    below.plot(averages, color=ORANGE, lw=2.0, label="its moving average")
    label(below, 398, -0.18, "minimum", QUIET, ha="right", fontsize=9.5)
    below.legend(loc="upper right", frameon=False, fontsize=10, labelcolor=INK)
    above.set(xlim=(0, STEPS), ylim=(0, 1.08 * RATE), yticks=[0, RATE])
    above.tick_params(labelbottom=False)
    below.set_xlabel("step", fontsize=10.5, color=INK)
    for axes in (above, below):
        axes.set_facecolor(PAPER)
        axes.tick_params(labelsize=9, colors=INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(INK)
    return figure


def run() -> tuple[list[float], list[float], list[float]]:
    """Minimise p^2 / 2 with the gradient p + noise; return rate, weight and average before every step."""
    import numpy as np

    from minidl import Parameter
    from minidl.ema import EMA
    from minidl.nn import Module
    from minidl.optim import SGD, CosineLR

    rng, module = np.random.default_rng(0), Module()
    module.p = Parameter(np.array([2.0]))
    optimizer, average = SGD([module.p], lr=RATE), EMA(module, decay=DECAY)
    schedule = CosineLR(optimizer, STEPS, WARMUP)
    rates, weights, averages = [], [], []
    for _ in range(STEPS):
        rates.append(optimizer.lr)
        weights.append(module.p.data.item())
        averages.append(average.average["p"].item())
        module.p.grad = module.p.data + rng.normal(size=1)
        optimizer.step()
        schedule.step()
        average.update()
    return rates, weights, averages

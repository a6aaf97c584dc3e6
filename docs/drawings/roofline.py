"""Two rooflines: the kernels of a training step on an H100 before they were changed, on an H200 after.

The stored times are in docs/gpu. The time of a launch is the shortest of those of one kernel on arrays of one
shape, because some of the others also contain the time of Python, whose queue of launches had run empty.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from drawings.style import BLUE, DOTS_PER_INCH, GREEN, GREY, INK, ORANGE, PAPER, QUIET, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEASURED = Path(__file__).parents[1] / "gpu"
SMALLEST = 8 * 2**20  # bytes: a launch that moves less takes longer to start than to run
# Groups of kernels by the first letters of their names, before and after, with a colour and a marker.
GROUPS = {
    "convolution: forward, input gradient": (
        ("direct_forward", "direct_adjoint", "strips", "phases", "pointwise_forward", "pointwise_adjoint"),
        BLUE,
        "o",
    ),
    "convolution: weight gradient": (("direct_weight", "columns_weight", "pointwise_weight"), ORANGE, "D"),
    "batch norm": (("normalise", "moment_sums", "gradient_sums", "input_gradient"), GREEN, "s"),
    "pooling, losses, col2im": (("max_pool", "soft_dice", "cross_entropy", "col2im"), GREY, "^"),
}
# Operations per pixel of batch norm, of which the file of the H100 counts one.
COUNTED = {"normalise": 2, "moment_sums": 3, "gradient_sums": 5, "input_gradient": 5}
# A backward pass launches these kernels only once for each shape, the last of them when the queue is empty.
# They were timed on their own as well: a line of old-and-new.txt has the channels and the size of the image.
ONE_PIXEL = re.compile(r"^1x1 (\w+) gradient.* \((\d+), (\d+), (\d+)\) .* new +([\d.]+) us", re.MULTILINE)
POOLING = re.compile(r"^ +(max_pool2d_backward) +\(16, (\d+), (\d+), .* old +([\d.]+) us new", re.MULTILINE)
PASSES = {"pointwise_adjoint": "input", "pointwise_weight": "weight"}


def draw_roofline() -> Figure:
    """Draw operations per second against operations per byte, with the limits of each card."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.7), dpi=DOTS_PER_INCH, facecolor=PAPER)
    before = json.loads((MEASURED / "h100" / "benchmark.json").read_text(encoding="utf-8"))["kernels"]
    after = json.loads((MEASURED / "h200" / "kernels.json").read_text(encoding="utf-8"))["kernels"]
    alone = timed_alone((MEASURED / "h200" / "old-and-new.txt").read_text(encoding="utf-8"))
    left, right = (figure.add_axes((x, 0.115, 0.445, 0.76)) for x in (0.065, 0.545))
    draw_card(left, "before, on an H100", before, {}, COUNTED)
    draw_card(right, "after, on an H200", after, alone, {})
    left.set_ylabel("operations per second, in 10^12", fontsize=10.5, color=INK)
    marks, names = left.get_legend_handles_labels()
    places = {"loc": "upper center", "bbox_to_anchor": (0.5, 1.0), "ncols": 2, "frameon": False}
    figure.legend(marks, names, **places, fontsize=9.5, labelcolor=INK)
    return figure


def draw_card(axes: Axes, title: str, runs: dict, alone: dict[tuple, float], counted: dict[str, int]) -> None:
    """Draw the roof of a card and the launches of a step below it; `counted` corrects operations."""
    import numpy as np

    copy, product = (runs["r2unet, direct"]["limits"][name][0] for name in ("copy", "product"))
    kernels = [k for run in runs.values() if "kernels" in run for k in run["kernels"]]
    axes.set_facecolor(PAPER)
    x = np.array([0.04, product / copy, 300.0])
    axes.loglog(x, np.minimum(copy * x, product) / 1e12, color=INK, lw=1.8)
    for name, (starts, colour, marker) in GROUPS.items():
        chosen = [k for k in kernels if k["name"].startswith(starts) and is_large(k)]
        points = [point(k, alone, counted.get(k["name"], 1)) for k in chosen]
        axes.plot(*zip(*set(points), strict=True), marker, color=colour, ms=6, mec=INK, mew=0.7, label=name)
    edge, peak = product / copy, product / 1e12
    label(axes, 0.4, 0.75 * copy / 1e12, f"{copy / 1e12:.1f} TB/s", fontsize=9.5, rotation=42)
    label(axes, 280, 1.4 * peak, f"{peak:.0f} TFLOP/s", fontsize=9.5, ha="right")
    axes.plot([edge, edge], [0.05, peak], ":", color=QUIET, lw=0.9)
    label(axes, 1.15 * edge, 0.075, f"{edge:.0f} operations\nper byte", QUIET, fontsize=9, ha="left")
    label(axes, 0.05, 80, title, fontsize=11, ha="left")
    axes.set(xlim=(0.04, 300), ylim=(0.05, 120))
    axes.tick_params(which="both", labelsize=9, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.set_xlabel("operations per byte that must be moved", fontsize=10.5, color=INK)


def is_large(kernel: dict) -> bool:
    """Return whether a launch computes something and moves at least SMALLEST bytes."""
    return bool(kernel["bytes"] and kernel["bytes"] >= SMALLEST and kernel["operations_a_second"])


def point(kernel: dict, alone: dict[tuple, float], count: int) -> tuple[float, float]:
    """Return the operations per byte and the operations per second, in 10^12, of a launch."""
    median, shortest, _ = kernel["seconds"]
    operations = kernel["operations_a_second"] * median * count
    return operations / kernel["bytes"], operations / alone.get(layer_of(kernel), shortest) / 1e12


def layer_of(kernel: dict) -> tuple | None:
    """Return the pass, the channels and the size by which `timed_alone` stores the time of a kernel."""
    name, shapes = kernel["name"], kernel["shapes"]
    if name.startswith("max_pool2d_backward"):
        return "max_pool2d_backward", *shapes[-1][1:3]
    for start, which in PASSES.items():
        if name.startswith(start):
            first, second = shapes[0][1], shapes[1 if which == "weight" else -1][1]
            return which, *((second, first) if which == "input" else (first, second)), shapes[0][-1]
    return None


def timed_alone(text: str) -> dict[tuple, float]:
    """Return the seconds of the backward pass of 1x1 convolutions (dw with `add_parts`) and of pooling."""
    found = [*ONE_PIXEL.findall(text), *POOLING.findall(text)]
    return {(name, *map(int, sizes)): 1e-6 * float(time) for name, *sizes, time in found}

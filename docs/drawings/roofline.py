"""The roofline of an H100 with the kernels of a training step, as measured (docs/gpu/h100/benchmark.json)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from drawings.style import BLUE, DOTS_PER_INCH, GREEN, GREY, INK, ORANGE, PAPER, QUIET, label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEASURED = Path(__file__).parents[1] / "gpu" / "h100" / "benchmark.json"
TRANSPOSED = "convolution: input gradient of stride 2"
SMALLEST = 8 * 2**20  # bytes: a launch that moves less takes longer to start than to run
# Groups of kernels by the first letters of their names, with a colour and a marker.
GROUPS = {
    "convolution: forward, input gradient": (("direct_forward", "direct_adjoint"), BLUE, "o"),
    TRANSPOSED: (("direct_adjoint",), PAPER, "o"),
    "convolution: weight gradient": (("direct_weight",), ORANGE, "D"),
    "batch norm": (("normalise", "moment", "gradient_sums", "input_gradient"), GREEN, "s"),
    "pooling, losses, col2im": (("max_pool", "soft_dice", "cross_entropy", "col2im"), GREY, "^"),
}


def draw_roofline() -> Figure:
    """Draw operations per second against operations per byte, with the two limits of the card."""
    import numpy as np
    from matplotlib.figure import Figure

    runs = json.loads(MEASURED.read_text(encoding="utf-8"))["kernels"]
    copy, product = (runs["r2unet, direct"]["limits"][name][0] for name in ("copy", "product"))
    kernels = [k for run in runs.values() if "kernels" in run for k in run["kernels"]]
    figure = Figure(figsize=(8.6, 4.6), dpi=DOTS_PER_INCH, facecolor=PAPER)
    axes = figure.add_axes((0.08, 0.12, 0.9, 0.85))
    axes.set_facecolor(PAPER)
    x = np.array([0.04, product / copy, 300.0])
    axes.loglog(x, np.minimum(copy * x, product) / 1e12, color=INK, lw=1.8)
    for name, (starts, colour, marker) in GROUPS.items():
        chosen = {
            (k["name"], str(k["shapes"])): k
            for k in kernels
            if k["name"].startswith(starts) and is_transposed(k) == (name == TRANSPOSED)
        }
        points = [
            (k["operations_a_second"] / k["bytes_a_second"], k["operations_a_second"] / 1e12)
            for k in chosen.values()
            if k["bytes"] and k["bytes"] >= SMALLEST and k["operations_a_second"]
        ]
        style = {"ms": 6.5, "mec": INK, "mew": 0.7, "label": name}
        axes.plot(*zip(*points, strict=True), marker, color=colour, **style)
    edge, peak = product / copy, product / 1e12
    label(axes, 1.5, 7.0, f"memory: {copy / 1e12:.2f} TB/s", fontsize=10, rotation=36)
    label(axes, 70, 1.35 * peak, f"arithmetic: {peak:.1f} TFLOP/s in float32", fontsize=10)
    axes.plot([edge, edge], [0.05, peak], ":", color=QUIET, lw=0.9)
    label(axes, 1.1 * edge, 0.075, f"{edge:.0f} operations per byte", QUIET, fontsize=9.5, ha="left")
    axes.set(xlim=(0.04, 300), ylim=(0.05, 120))
    axes.tick_params(which="both", labelsize=9, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.set_xlabel("operations per byte that must be moved", fontsize=10.5, color=INK)
    axes.set_ylabel("operations per second, in 10^12", fontsize=10.5, color=INK)
    axes.legend(loc="upper left", frameon=False, fontsize=9.5, labelcolor=INK)
    return figure


def is_transposed(kernel: dict) -> bool:
    """Return whether a kernel is an input gradient of stride 2: its last array, dx, is larger than dy."""
    shapes = kernel["shapes"]
    return kernel["name"].startswith("direct_adjoint") and shapes[-1][-1] > shapes[0][-1]

"""Draw the figures of the documentation: `python docs/figures.py [FOLDER]`.

Each figure explains one idea and contains no results of a training, so it changes only when the idea does.
Positions are numbers in the units of the subject: a pixel is 1 wide, a step of the recurrence is one column.
Curves and bars are computed by the functions that the chapter explains.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FOLDER = Path(__file__).parent / "figures"
DOTS_PER_INCH = 110

# From the palette of Okabe and Ito (2008), which is distinguishable with every type of colour vision.
BLUE, ORANGE, GREEN, GREY = "#56b4e9", "#e69f00", "#009e73", "#bbbbbb"
INK, QUIET = "#222222", "#555555"


def new_figure(width: float, height: float, x: tuple[float, float], y: tuple[float, float]) -> tuple:
    """Return a figure of `width` x `height` inches and its axes, which span x and y with equal units."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=x, ylim=y, aspect="equal")
    axes.axis("off")
    return figure, axes


def box(axes: Axes, x: float, y: float, text: str, colour: str = "white", width: float = 1.5) -> None:
    """Draw a rounded box, centred at (x, y), that stands for a function."""
    from matplotlib.patches import FancyBboxPatch

    patch = FancyBboxPatch(
        (x - width / 2, y - 0.3), width, 0.6, "round,pad=0,rounding_size=0.12", fc=colour, ec=INK, lw=1.1
    )
    axes.add_patch(patch)
    axes.text(x, y, text, ha="center", va="center", fontsize=11, color=INK)


def arrow(axes: Axes, start: tuple, end: tuple, bend: float = 0.0, colour: str = INK, dashes="-") -> None:
    """Draw an arrow between two points; `bend` curves it, to the left of its direction if it is negative."""
    style = {"arrowstyle": "-|>", "color": colour, "lw": 1.3, "linestyle": dashes, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", end, start, arrowprops={**style, "connectionstyle": f"arc3,rad={bend}"})


def label(axes: Axes, x: float, y: float, text: str, colour: str = INK, **options) -> None:
    """Write text at (x, y), centred by default."""
    axes.text(x, y, text, **{"ha": "center", "va": "center", "fontsize": 11, "color": colour, **options})


def cells(axes: Axes, x: float, y: float, values: list[list[str]], colours: list[list[str]]) -> None:
    """Draw a grid of unit squares that contain text; (x, y) is its upper left corner."""
    from matplotlib.patches import Rectangle

    for i, row in enumerate(values):
        for j, text in enumerate(row):
            axes.add_patch(Rectangle((x + j, y - i - 1), 1, 1, fc=colours[i][j], ec=INK, lw=0.8))
            label(axes, x + j + 0.5, y - i - 0.5, text)


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
    label(axes, 4.1, 1.75, "x has two consumers, conv and add; every other value has one", fontsize=10.5)
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


def draw_im2col() -> Figure:
    """Draw a 4 x 4 image, the 3 x 3 window at its four positions, and the four columns of col."""
    figure, axes = new_figure(8.6, 4.9, (-0.5, 19.7), (-0.9, 10.2))
    places, colours = [(0, 0), (0, 1), (1, 0), (1, 1)], [BLUE, ORANGE, GREEN, GREY]
    image = [[str(4 * i + j + 1) for j in range(4)] for i in range(4)]
    for (top, left), colour, x, y in zip(
        places, colours, (0, 5.5, 0, 5.5), (9.4, 9.4, 4.2, 4.2), strict=True
    ):
        inside = [[top <= i < top + 3 and left <= j < left + 3 for j in range(4)] for i in range(4)]
        cells(axes, x, y, image, [[colour if hit else "white" for hit in row] for row in inside])
        label(axes, x + 2, y + 0.4, f"window at ({top}, {left})", fontsize=10.5)
    columns = [[image[top + kh][left + kw] for top, left in places] for kh in range(3) for kw in range(3)]
    cells(axes, 14.0, 9.4, columns, [colours] * 9)
    label(axes, 16, 9.8, "col", fontsize=10.5)
    arrow(axes, (10.1, 4.9), (11.8, 4.9))
    label(axes, 10.95, 5.3, "im2col", fontsize=10.5)
    for row in range(9):
        label(axes, 13.85, 8.9 - row, f"w[{row // 3}, {row % 3}]", fontsize=9.5, ha="right", color=QUIET)
    label(axes, 15.3, -0.35, "one column per window, one row per weight", fontsize=10.5)
    label(axes, 4.75, -0.35, "the four pixels in the middle are in all four windows", fontsize=10.5)
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
        bottom = -1.2
        if step:
            plus(axes, x, 0.2)
            arrow(axes, (x, bottom), (x, -0.05))
            arrow(axes, (x, 0.45), (x, 1.1))
        else:
            arrow(axes, (x, bottom), (x, 1.1))
        axes.plot([x, x], [-1.2, -1.5], color=INK, lw=1.3)
    axes.plot([2.4, 10.6], [-1.5, -1.5], color=INK, lw=1.3)
    label(axes, 2.1, -1.5, "x")
    for step, x in enumerate((3.6, 7.1)):
        axes.plot([x + 1.15, x + 1.75, x + 1.75], [2.7, 2.7, 0.2], color=ORANGE, lw=1.3)
        arrow(axes, (x + 1.75, 0.2), (x + 3.25, 0.2), colour=ORANGE)
        label(axes, x + 1.5, 3.0, f"y({step})", fontsize=10.5)
    arrow(axes, (11.75, 2.7), (12.3, 2.7))
    label(axes, 12.1, 3.0, "y(2)", fontsize=10.5)
    label(axes, 7.1, -2.25, "all steps share w, and each has its own running statistics", fontsize=10.5)
    return figure


def plus(axes: Axes, x: float, y: float) -> None:
    """Draw a sum: a circle that contains a plus sign."""
    from matplotlib.patches import Circle

    axes.add_patch(Circle((x, y), 0.25, fc="white", ec=INK, lw=1.1))
    label(axes, x, y, "+", fontsize=12)


def draw_u() -> Figure:
    """Draw R2U-Net with widths 8, 16, 32, 64 for an image of 128 x 128."""
    figure, axes = new_figure(8.6, 4.9, (-2.5, 14.5), (-5.1, 4.7))
    widths, sides = (8, 16, 32, 64), (128, 64, 32, 16)
    heights = [3.0 - 2.2 * level for level in range(4)]
    left = [0.3 + 1.6 * level for level in range(3)] + [6.0]
    right = [12.0 - x for x in left]
    for level, (width, y) in enumerate(zip(widths, heights, strict=True)):
        for x in {left[level], right[level]}:
            box(axes, x, y, str(width), colour=BLUE, width=1.1)
        label(axes, -1.45, y, f"{sides[level]} x {sides[level]}", fontsize=10.5, color=QUIET)
    for level in range(3):
        y, below = heights[level], heights[level + 1]
        arrow(axes, (left[level], y - 0.3), (left[level + 1] - (0.35 if level == 2 else 0), below + 0.3))
        arrow(
            axes,
            (right[level + 1] + (0.35 if level == 2 else 0), below + 0.3),
            (right[level], y - 0.3),
            colour=GREEN,
        )
        arrow(axes, (left[level] + 0.55, y), (right[level] - 0.55, y), colour=ORANGE)
        w = widths[level]
        prefix = "" if level else "skip connection: "
        label(axes, 6.0, y + 0.3, f"{prefix}concatenate {w} + {w}", fontsize=10)
    arrow(axes, (left[0], 4.1), (left[0], 3.3))
    label(axes, left[0], 4.3, "image, 3 channels", fontsize=10.5)
    arrow(axes, (right[0], 3.3), (right[0], 4.1))
    label(axes, right[0] - 0.15, 3.7, "1 x 1 convolution", ha="right", fontsize=10)
    label(axes, right[0], 4.3, "logits, 1 channel", fontsize=10.5)
    label(axes, 0.75, 1.6, "max-pool", ha="right", fontsize=10)
    label(axes, 11.4, 1.9, "transposed\nconvolution", ha="left", fontsize=10)
    label(axes, 2.6, -3.0, "encoder", fontsize=11, fontweight="bold")
    label(axes, 6.0, -4.15, "bottleneck", fontsize=11, fontweight="bold")
    label(axes, 9.4, -3.0, "decoder", fontsize=11, fontweight="bold")
    label(
        axes, 6.0, -4.75, "each box is a recurrent residual block with that number of channels", fontsize=10.5
    )
    return figure


def draw_rows() -> Figure:
    """Draw the stack of three column-shifted copies of a 4 x 4 image and its three row views."""
    figure, axes = new_figure(8.6, 3.6, (-0.9, 22.6), (-1.0, 8.84))
    image = [[str(4 * i + j + 1) for j in range(4)] for i in range(4)]
    cells(axes, 0, 6.0, image, [[BLUE] * 4] * 4)
    label(axes, 2, 6.45, "x", fontsize=10.5)
    arrow(axes, (4.3, 4.0), (5.7, 4.0))
    padded = [["0"] * 6, *(["0", *row, "0"] for row in image), ["0"] * 6]
    for kw, x in enumerate((6.2, 10.7, 15.2)):
        part = [row[kw : kw + 4] for row in padded]
        colours = [["white" if text == "0" else BLUE for text in row] for row in part]
        cells(axes, x, 7.0, part, colours)
        label(axes, x + 2, 7.45, f"kw = {kw}", fontsize=10.5)
    label(
        axes, 12.7, 8.5, "stack: one shifted copy of the image for each column of the window", fontsize=10.5
    )
    for kh, colour in enumerate((ORANGE, GREEN, QUIET)):
        x, top = 19.7 + 0.8 * kh, 6.9 - kh
        axes.plot([x - 0.2, x, x, x - 0.2], [top, top, top - 3.8, top - 3.8], color=colour, lw=2)
        label(axes, x, top - 4.2, str(kh), colour=colour, fontsize=10.5)
    label(axes, 20.5, 7.45, "kh", fontsize=10.5)
    label(
        axes,
        12.7,
        -0.6,
        "each bracket: the four rows multiplied by w[kh, :], a view without a copy",
        fontsize=10.5,
    )
    return figure


def draw_thread() -> Figure:
    """Draw a padded 4 x 5 image, the window of thread 7, and the column of col that it writes."""
    from matplotlib.patches import Rectangle

    figure, axes = new_figure(8.6, 3.65, (-0.6, 25.9), (0.0, 11.25))
    colours = [[GREY] * 7, *([GREY, *["white"] * 5, GREY] for _ in range(4)), [GREY] * 7]
    values = [["0"] * 7, *(["0", *(str(10 + 5 * i + j) for j in range(5)), "0"] for i in range(4)), ["0"] * 7]
    for kh, kw in ((kh, kw) for kh in range(3) for kw in range(3)):
        colours[1 + kh][2 + kw] = ORANGE
    cells(axes, 0, 8.0, values, colours)
    label(axes, 3.5, 8.5, "x, padded with zeros", fontsize=10.5)
    label(axes, 3.5, 1.4, "thread 7 owns window (1, 2)", fontsize=10.5)
    arrow(axes, (7.3, 5.0), (8.9, 5.0))
    left, side = 9.6, 0.8
    for k in range(9):
        for i in range(20):
            colour = ORANGE if i == 7 else "white"
            place = (left + side * i, 9.4 - side * (k + 1))
            axes.add_patch(Rectangle(place, side, side, fc=colour, ec=INK, lw=0.6))
        label(axes, left + 7.5 * side, 9.4 - side * (k + 0.5), values[1 + k // 3][2 + k % 3], fontsize=9)
    for i in range(20):
        colour = INK if i == 7 else QUIET
        label(axes, left + side * (i + 0.5), 9.75, str(i), fontsize=9, color=colour)
    text = "col: one column per window, here one thread per column"
    label(axes, left + 10 * side, 10.6, text, fontsize=10.5)
    label(axes, left + 10 * side, 1.4, "at each of the 9 steps, neighbouring threads", fontsize=10.5)
    label(axes, left + 10 * side, 0.5, "write neighbouring addresses: one row of col", fontsize=10.5)
    return figure


def draw_tile() -> Figure:
    """Draw y = w col for one block of the implicit GEMM: its tile, its chunk of weights, its columns."""
    from matplotlib.patches import Rectangle

    figure, axes = new_figure(8.6, 5.2, (-1.0, 17.0), (-1.6, 9.3))

    def matrix(x: float, y: float, width: float, height: float, colour: str = "white", **options) -> None:
        axes.add_patch(Rectangle((x, y), width, height, fc=colour, ec=INK, lw=0.9, **options))

    matrix(0.5, 0, 4.5, 3.6)  # w
    matrix(6, 0, 9, 3.6)  # y
    matrix(6, 4.5, 9, 4.0, linestyle="--")  # col
    matrix(0.5, 1.2, 4.5, 1.2, "#e8f4fb")
    matrix(2.0, 1.2, 1.5, 1.2, BLUE)
    matrix(9, 4.5, 3, 4.0, "#e5f5ef")
    matrix(9, 5.85, 3, 1.3, GREEN)
    matrix(9, 1.2, 3, 1.2, ORANGE)
    matrix(10.1, 5.85, 0.22, 1.3, INK)
    matrix(10.1, 1.2, 0.22, 1.2, INK)
    label(axes, 2.75, 1.8, "8 x 64", fontsize=10)
    label(axes, 2.75, 4.65, "these weights are\nin shared memory", fontsize=10.5)
    arrow(axes, (2.75, 4.1), (2.75, 2.45), colour=QUIET)
    label(axes, 2.75, -0.4, "w (OC, K)", fontsize=10.5)
    label(axes, 10.5, -0.4, "y (OC, pixels)", fontsize=10.5)
    label(axes, 10.5, 8.9, "col (K, pixels): never stored, each number is read from x", fontsize=10.5)
    label(axes, 10.5, 4.15, "128 pixels", fontsize=10, color=QUIET)
    label(axes, 14.9, 1.8, "the block's tile,\n8 channels", fontsize=10, ha="right")
    label(axes, 14.9, 6.5, "64 numbers of\neach column", fontsize=10, ha="right")
    label(
        axes,
        8.0,
        -1.2,
        "black: one thread's column of col, and its 8 sums, which are in registers",
        fontsize=10.5,
    )
    return figure


def draw_strip() -> Figure:
    """Draw the pixels and sums of a strip, and a window that walks down a column."""
    figure, axes = new_figure(8.6, 4.1, (-0.8, 25.4), (-2.7, 9.8))
    pixels = [["white"] * 7 for _ in range(8)]
    for i in range(1, 7):
        pixels[i][2:5] = [ORANGE, "#f6d58f", "#f6d58f"]
    cells(axes, 0, 8, [[""] * 7] * 8, pixels)
    label(axes, 3.5, 8.6, "x in shared memory", fontsize=10.5)
    label(axes, 3.5, -0.7, "one column of 6 pixels at\na time in registers", fontsize=10.5, va="top")
    arrow(axes, (7.2, 4), (8.4, 4))
    for j in range(8):
        cells(axes, 8.7 + 0.62 * j, 6.3 - 0.1 * j, [[""]] * 4, [[BLUE]] * 4)
    label(axes, 11.5, 7.3, "8 channels of y", fontsize=10.5)
    label(axes, 11.5, -0.7, "the strip: 4 x 8\nsums in registers", fontsize=10.5, va="top")
    axes.plot([15.4, 15.4], [-2.4, 9.2], ":", color=QUIET, lw=1.2)
    window = [["white"] * 5 for _ in range(8)]
    for i, colour in ((3, "#f6d58f"), (4, "#f6d58f"), (5, GREEN)):
        window[i][1:4] = [colour] * 3
    cells(axes, 16.4, 8, [[""] * 5] * 8, window)
    arrow(axes, (18.9, 7.6), (18.9, 5.3))
    label(axes, 18.9, 8.6, "x", fontsize=10.5)
    label(axes, 18.9, -0.7, "green: the three\nnew pixels of a row", fontsize=10.5, va="top")
    cells(axes, 23.4, 8, [[""]] * 8, [[BLUE]] * 8)
    label(axes, 22.4, 4, "x", fontsize=13)
    label(axes, 23.9, 8.6, "dy", fontsize=10.5)
    label(axes, 23.7, -0.7, "8 channels\nof one pixel", fontsize=10.5, va="top")
    return figure


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
    figure, axes = new_figure(8.6, 4.1, (-4.3, 6.9), (-1.15, 4.2))
    for x, name, scores, mark in ((-3.1, "malignant", malignant, "o"), (-1.7, "benign", benign, "s")):
        label(axes, x, 3.75, name, fontsize=10.5)
        colour = ORANGE if mark == "o" else BLUE
        for score in scores:
            axes.plot(x - 0.25, 3.5 * score, mark, ms=11, color=colour, mec=INK, mew=0.9)
            label(axes, x, 3.5 * score, f"{score}", ha="left", fontsize=10.5)
    arrow(axes, (-3.95, 0.0), (-3.95, 3.6), colour=QUIET)
    label(axes, -4.15, 1.8, "score", QUIET, fontsize=10, rotation=90)
    won = [["#c4e4f7" if p > n else "white" for n in benign] for p in malignant]
    cells(axes, 1.0, 3.0, [[""] * 3] * 3, won[::-1])
    axes.fill([2, 3, 3], [2, 2, 3], color="#c4e4f7", zorder=1.5)  # the tie is won by half
    for (i, p), (j, n) in product(enumerate(malignant), enumerate(benign)):
        sign = "=" if p == n else ">" if p > n else "<"
        label(axes, 1.61 + j, 0.15 + i, f"{p} {sign} {n}", fontsize=8.5, zorder=4)
    fpr, tpr = roc_curve(counts)
    axes.plot(1 + 3 * fpr, 3 * tpr, "-o", color=INK, lw=2.4, ms=6, zorder=3, clip_on=False)
    for i, text in enumerate(("0", "1/3", "2/3", "1")):
        label(axes, 1 + i, -0.25, text, fontsize=9.5, color=QUIET)
        label(axes, 0.85, i, text, fontsize=9.5, color=QUIET, ha="right")
    label(axes, 2.5, -0.65, "1 - specificity", fontsize=10.5)
    label(axes, 0.2, 1.5, "sensitivity", fontsize=10.5, rotation=90)
    label(axes, 2.5, 3.5, "one cell for each pair: malignant, benign", fontsize=10.5)
    note = f"area under\nthe curve:\n6.5 of 9 cells\nAUC {auc(counts):.3f}"
    label(axes, 4.4, 1.9, note, ha="left", fontsize=10.5)
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
            axes.legend(loc="upper left", frameon=False, fontsize=9.5)
    return figure


FIGURES = {
    "graph": draw_graph,
    "im2col": draw_im2col,
    "rows": draw_rows,
    "recurrence": draw_recurrence,
    "u": draw_u,
    "thread": draw_thread,
    "tile": draw_tile,
    "strip": draw_strip,
    "diagnosis": draw_diagnosis,
    "roc": draw_roc,
    "reliability": draw_reliability,
    "architecture": draw_architecture,
}


def draw_all(folder: Path) -> list[Path]:
    """Write every figure to the folder as a PNG, with the same bytes in every run; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, draw in FIGURES.items():
        paths.append(folder / f"{name}.png")
        draw().savefig(paths[-1], metadata={"Software": None})
    return paths


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the figures of the chapters.")
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="where to write the figures")
    for path in draw_all(parser.parse_args().folder):
        print(path)

"""Threads and blocks: which of them computes what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drawings.style import BLUE, GREEN, GREY, INK, ORANGE, PAPER, QUIET, arrow, cells, label, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
        "the thin bar: one thread's column of col, and its 8 sums, which are in registers",
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
    label(axes, 22.4, 4, "\u00b7", fontsize=20)
    label(axes, 23.9, 8.6, "dy", fontsize=10.5)
    label(axes, 23.7, -0.7, "8 channels\nof one pixel", fontsize=10.5, va="top")
    return figure


def draw_weight_gradient() -> Figure:
    """Draw dw = dy col^T for one block: its tile of dw, its piece of the pixels, and one of its threads."""
    from matplotlib.patches import Rectangle

    figure, axes = new_figure(8.6, 4.6, (-1.2, 18.2), (-2.35, 8.0))

    def matrix(x: float, y: float, width: float, height: float, colour: str = PAPER, **options) -> None:
        axes.add_patch(Rectangle((x, y), width, height, fc=colour, ec=INK, lw=0.9, **options))

    matrix(0, 0.6, 9.5, 2.6)  # dy (OC, pixels)
    matrix(0, 4.2, 9.5, 3.0, linestyle="--")  # col (K, pixels)
    matrix(12.2, 0.6, 4.4, 2.6)  # dw (OC, K)
    for x in (2.4, 4.8, 7.2):  # the pieces
        axes.plot([x, x], [0.6, 3.2], color=QUIET, lw=0.8, ls=":")
        axes.plot([x, x], [4.2, 7.2], color=QUIET, lw=0.8, ls=":")
    matrix(4.8, 1.5, 2.4, 0.8, ORANGE)
    matrix(4.8, 5.3, 2.4, 0.8, GREEN)
    matrix(13.9, 1.5, 0.9, 0.8, BLUE)
    for x in (4.95, 5.55, 6.15, 6.75):
        matrix(x, 1.5, 0.1, 0.8, INK)
        matrix(x, 5.3, 0.1, 0.8, INK)
    label(axes, 4.75, 0.2, "dy (OC, pixels of all images)", fontsize=10.5)
    label(axes, 4.75, 7.6, "col (K, pixels of all images): never stored, read from x", fontsize=10.5)
    label(axes, 14.4, 0.2, "dw (OC, K)", fontsize=10.5)
    label(axes, 9.75, 1.9, "8 channels", ORANGE, fontsize=9.5, ha="left")
    label(axes, 9.75, 5.7, "8 weights", GREEN, fontsize=9.5, ha="left")
    label(axes, 14.4, 3.55, "a tile: 8 x 8 sums", fontsize=10.5)
    label(axes, 6.0, 3.7, "a piece of the pixels", QUIET, fontsize=9.5)
    label(axes, 8.5, -0.75, "bars: the pixels of one thread, every 128th of the piece", fontsize=10.5)
    text = (
        "for each it reads 8 numbers of dy and 8 of col, and adds their 64 products to its sums in registers"
    )
    label(axes, 8.5, -1.35, text, fontsize=10)
    label(axes, 8.5, -1.95, "64 multiply-adds for 16 numbers read", QUIET, fontsize=10)
    return figure


def draw_shuffle() -> Figure:
    """Draw the sum over a warp by shuffles, with eight lanes instead of 32 and the numbers 1 to 8."""
    from matplotlib.patches import Rectangle

    lanes = 8
    figure, axes = new_figure(8.6, 3.5, (-4.4, 10.6), (-1.0, 5.1))
    values, offset, y = list(range(1, lanes + 1)), 0, 4.0
    label(axes, -0.5, y + 0.85, "lane", QUIET, fontsize=9.5, ha="right")
    for lane in range(lanes):
        label(axes, 1.1 * lane + 0.4, y + 0.85, str(lane), QUIET, fontsize=9.5)
    for offset in (None, 4, 2, 1):
        if offset is not None:
            for lane in range(offset):
                start = (1.1 * (lane + offset) + 0.4, y)
                arrow(axes, start, (1.1 * lane + 0.6, y - 0.72), colour=ORANGE)
            values = [v + (values[i + offset] if i + offset < lanes else v) for i, v in enumerate(values)]
            y -= 1.3
        text = "the sum of each thread" if offset is None else f"+ the lane {offset} higher"
        label(axes, -0.5, y + 0.28, text, fontsize=10, ha="right")
        needed = lanes if offset is None else offset
        for lane in range(lanes):
            colour = GREEN if lane < needed else PAPER
            axes.add_patch(Rectangle((1.1 * lane, y), 0.8, 0.56, fc=colour, ec=INK, lw=0.8))
            if lane < needed:
                label(axes, 1.1 * lane + 0.4, y + 0.28, str(values[lane]), fontsize=10)
    text = "every lane adds in every round; only the green numbers are used"
    label(axes, 3.1, -0.7, text, QUIET, fontsize=10)
    return figure

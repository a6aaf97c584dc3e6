"""A convolution as a matrix product, on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drawings.style import BLUE, GREEN, GREY, ORANGE, QUIET, arrow, cells, label, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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

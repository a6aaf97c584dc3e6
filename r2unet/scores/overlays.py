"""Overlay pages: one row per image, with the outlines of its truth and its prediction."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from minidl.allocator import release_freed_memory
from r2unet.data.images import bounded_size, resize_image, resize_probability
from r2unet.figures import (
    PREDICTION,
    TRUTH,
    add_outline_legend,
    cell_height,
    draw_outline,
    new_figure,
    printable,
    save_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The layout of the page, in inches, is explicit because automatic layouts leave uneven gaps between images of
# different shapes.
COLUMN_WIDTH = 2.3
GAP = 0.08
LEFT_MARGIN = 0.5
TOP_MARGIN = 0.32
BOTTOM_MARGIN = 0.42
LONGEST_NAME = 30  # characters, the height of a row
LARGEST_SIDE = 384  # pixels of an image, which is drawn 345 wide


class OverlayRow(NamedTuple):
    """One image with its truth and its prediction, one row of `plot_overlays`; a plain tuple works, too."""

    image: np.ndarray  # (H, W, 3) uint8, RGB
    truth: np.ndarray  # (H, W) uint8, 0 or 1
    probability: np.ndarray  # (H, W) float in [0, 1], or a mask
    name: str
    jaccard: float


def plot_overlays(rows: Sequence[OverlayRow], path: str | Path, threshold: float = 0.5) -> None:
    """Draw image | truth | prediction | both outlines, one row per image with its name and Jaccard.

    The images may differ in size. The outline of the prediction is where its probability crosses `threshold`.
    Raises ValueError for no rows, InputError if `path` cannot be written.
    """
    if not rows:
        raise ValueError("plot_overlays: no rows to draw")
    rows = [shrink(OverlayRow(*row)) for row in rows]
    heights = [cell_height(row.image, COLUMN_WIDTH) for row in rows]
    width = LEFT_MARGIN + 4 * COLUMN_WIDTH + 4 * GAP
    height = TOP_MARGIN + sum(heights) + GAP * (len(rows) - 1) + BOTTOM_MARGIN
    release_freed_memory()  # of the network
    figure = new_figure(width, height)

    top = height - TOP_MARGIN
    for number, (row, row_height) in enumerate(zip(rows, heights, strict=True)):
        top -= row_height
        cells = []
        for column in range(4):
            left = LEFT_MARGIN + column * (COLUMN_WIDTH + GAP)
            box = (left / width, top / height, COLUMN_WIDTH / width, row_height / height)
            cells.append(figure.add_axes(box, xticks=[], yticks=[]))
        _draw_overlay_row(cells, row, threshold)
        if number == 0:
            for axes, title in zip(cells, ("image", "truth", "prediction", "outlines"), strict=True):
                axes.set_title(title, fontsize=11)
        top -= GAP
    add_outline_legend(figure)
    save_figure(figure, path)


def _draw_overlay_row(cells: "Sequence[Axes]", row: OverlayRow, threshold: float) -> None:
    cells[0].imshow(row.image)
    cells[1].imshow(row.truth, cmap="gray", vmin=0, vmax=1)
    cells[2].imshow(row.probability, cmap="gray", vmin=0, vmax=1)
    cells[3].imshow(row.image)
    draw_outline(cells[3], row.truth, 0.5, TRUTH)
    draw_outline(cells[3], row.probability, threshold, PREDICTION)
    cells[0].set_ylabel(f"{printable(row.name, LONGEST_NAME)}\nJaccard {row.jaccard:.2f}", fontsize=9)


def shrink(row: OverlayRow, side: int = LARGEST_SIDE) -> OverlayRow:
    """Shrink a row's arrays to at most `side` pixels a side; smaller ones stay as they are."""
    size = bounded_size(row.image, side)
    if size == row.image.shape[:2]:
        return row
    return row._replace(
        image=resize_image(row.image, size),
        truth=resize_probability(row.truth, size),  # the fraction of lesion, whose contour has no steps
        probability=resize_probability(row.probability, size),
    )

"""Pictures of a training and of its predictions: numbers say how good, pictures say how it fails.

Truth is always blue and prediction always yellow. That pair differs in hue and in brightness, so that it
can be told apart with any kind of colour blindness, and neither is common in skin. A line on a photograph
carries a dark edge, because the photograph may be as bright as the line.

Figures are drawn through matplotlib's objects and never through pyplot, whose list of open figures is a
global state that grows with every call and wants a display.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from r2unet.data.images import resize_image, resize_probability
from r2unet.errors import InputError
from r2unet.files import output_file

if TYPE_CHECKING:  # importing matplotlib takes most of a second, which "r2unet --help" should not pay
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRUTH = "#56b4e9"  # sky blue and yellow of the palette by Okabe and Ito (2008)
PREDICTION = "#f0e442"
TRAINING = "#0072b2"
VALIDATION = "#d55e00"
QUIET = "#666666"

# The page of plot_overlays, in inches. Cells are placed by hand because automatic layouts leave uneven gaps
# between images of different shapes.
COLUMN_WIDTH = 2.3
GAP = 0.08
LEFT_MARGIN = 0.5
TOP_MARGIN = 0.32
BOTTOM_MARGIN = 0.42


class OverlayRow(NamedTuple):
    """One image with its two outlines, as `plot_overlays` shows it in one row; a plain tuple does as well."""

    image: np.ndarray  # (H, W, 3) uint8, RGB
    truth: np.ndarray  # (H, W) uint8, 0 or 1
    probability: np.ndarray  # (H, W) float in [0, 1], or a mask
    name: str
    jaccard: float


def plot_curves(history: Sequence[dict], path: str | Path) -> None:
    """Draw both losses, and the validation's mean Jaccard and Dice, by epoch; the best Jaccard is marked.

    Every row of `history` holds an epoch and any of train_loss, validation_loss, validation_jaccard and
    validation_dice. Raises InputError where `path` cannot be written.
    """
    figure = new_figure(10.0, 3.8)
    losses, scores = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.075, right=0.98, top=0.82, bottom=0.15, wspace=0.2)

    _draw_series(losses, history, "train_loss", "training", TRAINING)
    _draw_series(losses, history, "validation_loss", "validation", VALIDATION)
    _style_curves(losses, "Loss")

    _draw_series(scores, history, "validation_jaccard", "Jaccard", VALIDATION)
    _draw_series(scores, history, "validation_dice", "Dice", QUIET)
    scores.set_ylim(0, 1)
    _mark_best_epoch(losses, scores, history)
    _style_curves(scores, "Validation scores, mean over images")
    save_figure(figure, path)


def _draw_series(axes: "Axes", history: Sequence[dict], key: str, label: str, colour: str) -> None:
    epochs, values = _series(history, key)
    if values:
        # Few points make a line that is hard to see, and a single one makes none at all.
        marker = "o" if len(values) <= 20 else None
        axes.plot(epochs, values, color=colour, label=label, linewidth=1.8, marker=marker, markersize=3.5)


def _series(history: Sequence[dict], key: str) -> tuple[list[float], list[float]]:
    """Collect the epochs that have a finite value for `key`: not every epoch is validated."""
    rows = [row for row in history if row.get(key) is not None and math.isfinite(row[key])]
    return [row["epoch"] for row in rows], [row[key] for row in rows]


def _mark_best_epoch(losses: "Axes", scores: "Axes", history: Sequence[dict]) -> None:
    epochs, values = _series(history, "validation_jaccard")
    if not values:
        return
    best = int(np.argmax(values))
    for axes in (losses, scores):
        axes.axvline(epochs[best], color=QUIET, linewidth=1, linestyle=":", zorder=1)
    label = f"best Jaccard {values[best]:.3f}, epoch {epochs[best]:g}"
    scores.plot(
        epochs[best], values[best], "o", color=VALIDATION, markersize=8, mec="white", mew=1.5, label=label
    )


def _style_curves(axes: "Axes", title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, loc="left", fontsize=11, pad=24)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(left=0)
    axes.grid(color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        # Above the axes the legend can hide no point of any curve.
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(-0.02, 0.99),
            ncols=3,
            fontsize=9,
            frameon=False,
            columnspacing=1.2,
        )


def plot_overlays(rows: Sequence[OverlayRow], path: str | Path, threshold: float = 0.5) -> None:
    """Draw image | truth | prediction | both outlines, one row per image with its name and Jaccard.

    Rows may differ in size. The outline of the prediction is drawn where its probability crosses
    `threshold`. Raises InputError where `path` cannot be written, ValueError without rows.
    """
    if not rows:
        raise ValueError("plot_overlays: there are no rows to draw")
    rows = [shrunk(OverlayRow(*row)) for row in rows]
    heights = [COLUMN_WIDTH * row.image.shape[0] / row.image.shape[1] for row in rows]
    width = LEFT_MARGIN + 4 * COLUMN_WIDTH + 4 * GAP
    height = TOP_MARGIN + sum(heights) + GAP * (len(rows) - 1) + BOTTOM_MARGIN
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
    cells[0].set_ylabel(f"{row.name}\nJaccard {row.jaccard:.2f}", fontsize=9)


def draw_outline(axes: "Axes", values: np.ndarray, level: float, colour: str) -> None:
    """Draw the line along which `values` (H, W) cross a level, with a dark edge that shows on any skin."""
    from matplotlib.patheffects import withStroke

    if values.min() < level < values.max():  # older matplotlib warns where nothing does
        edge = [withStroke(linewidth=3, foreground="#000000a0")]
        axes.contour(values, levels=[level], colors=[colour], linewidths=1.5).set_path_effects(edge)


def add_outline_legend(figure: "Figure") -> None:
    """Say in the figure's lower right corner which outline is the truth and which the prediction."""
    from matplotlib.lines import Line2D
    from matplotlib.patheffects import withStroke

    edge = [withStroke(linewidth=4, foreground="#000000a0")]
    lines = [
        Line2D([], [], color=colour, linewidth=2.5, label=label, path_effects=edge)
        for colour, label in ((TRUTH, "truth"), (PREDICTION, "prediction"))
    ]
    figure.legend(handles=lines, loc="lower right", ncols=2, frameon=False, fontsize=10, borderaxespad=0.3)


def shrunk(row: OverlayRow, side: int = 512) -> OverlayRow:
    """Resize a row to at most `side` pixels, more than the page can show: originals reach 30 megapixels."""
    height, width = row.image.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return row._replace(
        image=resize_image(row.image, size),
        truth=resize_probability(row.truth, size),  # the share of lesion, which contours without steps
        probability=resize_probability(row.probability, size),
    )


def overlay_image(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Draw the mask's outline in the image: (H, W, 3) uint8 and (H, W) 0/1 -> new (H, W, 3) uint8.

    The line lies just inside the mask (the mask minus its erosion), runs along the frame where a lesion
    leaves the image, and is a 200th of the longer side wide, so that it looks alike at any size. Raises
    ValueError for unequal sizes.
    """
    if image.shape[:2] != mask.shape:
        raise ValueError(f"overlay_image: image {image.shape} and mask {mask.shape} differ in size")
    lesion = mask.astype(np.bool_)
    core = lesion
    for _ in range(math.ceil(max(mask.shape) / 200)):
        core = _erode(core)
    drawn = image.copy()
    drawn[lesion & ~core] = tuple(bytes.fromhex(PREDICTION[1:]))
    return drawn


def _erode(mask: np.ndarray) -> np.ndarray:
    """Keep the pixels whose four neighbours are all in the boolean mask (H, W); outside the image is skin."""
    padded = np.pad(mask, 1)  # (H, W) -> (H + 2, W + 2)
    vertical = padded[:-2, 1:-1] & padded[2:, 1:-1]
    horizontal = padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & vertical & horizontal


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty page, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: "Figure", path: str | Path) -> None:
    """Write the figure in the format that the ending of its name asks for."""
    kind = Path(path).suffix[1:].lower()
    if kind not in figure.canvas.get_supported_filetypes():
        raise InputError(f"{path}: cannot draw a file of this kind; end its name in .png, .pdf or .svg")
    with output_file(path) as file:
        figure.savefig(file, format=kind)

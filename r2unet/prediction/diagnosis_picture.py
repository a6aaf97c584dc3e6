"""Draws the diagnosis of one image: its outline, what drove the diagnosis, and the probabilities as bars.

    outline on the image | heat map on the grey image | probability of each class
              a line that says what the numbers are not

The colours of the heat map become more opaque, brighter and more saturated with the value. Where the value is
0, the grey image is unchanged. The value does not depend on the hue alone, so the map can be read with any
kind of colour blindness. Malignant classes are vermilion and benign classes are blue, two colours of the
palette of Okabe and Ito (2008).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from r2unet.data.classes import malignant_classes
from r2unet.data.images import bounded_size, resize_image, resize_mask, resize_probability
from r2unet.figures import QUICK, TRAINING, VALIDATION, new_figure, printable, save_figure
from r2unet.prediction.outline import overlay_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MALIGNANT, BENIGN = VALIDATION, TRAINING
DISCLAIMER = "Probabilities of a teaching model, not a diagnosis."
LONGEST_SIDE = 512  # pixels: a panel is drawn with about as many

# The layout of the page, in inches.
WIDTH, MARGIN, GAP = 11.4, 0.15, 0.2
PANEL = 3.2  # the width of an image, and its greatest height
SHORTEST = 2.0  # the smallest height of the row, which must have room for the bars
TOP, BOTTOM = 0.7, 0.75
NAMES = 1.6  # the width of the names of the classes


class DiagnosedImage(NamedTuple):
    """What a network says about one image, and why."""

    name: str  # the file's name, drawn as it is
    image: np.ndarray  # (H, W, 3) uint8
    mask: np.ndarray | None  # (H, W) of 0 and 1; None for a network without a decoder
    heat: np.ndarray  # (H, W) in [0, 1], of `heat_map`
    explained: int  # the index of the class that the heat map is about
    probabilities: np.ndarray  # (K,)
    classes: tuple[str, ...]  # K names, of `r2unet.data.classes.CLASSES`


def plot_diagnosis(diagnosed: DiagnosedImage, path: str | Path) -> None:
    """Draw outline | heat map | probabilities. Raises InputError if `path` cannot be written.

    Raises ValueError if the sizes of the arrays do not agree.
    """
    save_figure(new_diagnosis_figure(diagnosed), path, QUICK)


def new_diagnosis_figure(diagnosed: DiagnosedImage) -> Figure:
    """Return the figure that `plot_diagnosis` writes."""
    check_sizes(diagnosed)
    diagnosed = shrink(diagnosed)
    H, W = diagnosed.image.shape[:2]
    row = min(max(PANEL * H / W, SHORTEST), PANEL)
    height = BOTTOM + row + TOP
    figure = new_figure(WIDTH, height)
    _draw_outline_panel(_panel(figure, 0, row), diagnosed)
    _draw_heat_panel(_panel(figure, 1, row), diagnosed)
    _draw_bars(_panel(figure, 2, row), diagnosed)
    style = {"va": "top", "weight": "bold", "fontsize": 11}
    figure.text(MARGIN / WIDTH, 1 - 0.12 / height, printable(diagnosed.name), **style)
    figure.text(0.5, 0.12 / height, DISCLAIMER, ha="center", va="bottom", fontsize=10)
    return figure


def check_sizes(diagnosed: DiagnosedImage) -> None:
    """Raise ValueError unless mask and heat map have the image's size, and each class a probability."""
    size, K = diagnosed.image.shape[:2], len(diagnosed.classes)
    mask = diagnosed.heat if diagnosed.mask is None else diagnosed.mask
    if mask.shape != size or diagnosed.heat.shape != size:
        raise ValueError(
            f"plot_diagnosis: image {size}, mask {mask.shape} and heat map {diagnosed.heat.shape} "
            "differ in size"
        )
    if np.shape(diagnosed.probabilities) != (K,) or not 0 <= diagnosed.explained < K:
        raise ValueError(
            f"plot_diagnosis: {K} classes, but probabilities of shape {np.shape(diagnosed.probabilities)} "
            f"and a heat map of class {diagnosed.explained}"
        )


def shrink(diagnosed: DiagnosedImage) -> DiagnosedImage:
    """Shrink the arrays to at most 512 pixels a side."""
    size = bounded_size(diagnosed.image, LONGEST_SIDE)
    return diagnosed._replace(
        image=resize_image(diagnosed.image, size),
        mask=None if diagnosed.mask is None else resize_mask(diagnosed.mask, size),
        heat=resize_probability(diagnosed.heat, size),
    )


def heat_colours(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return colours, purple to orange, and opacity of values in [0, 1]: (H, W) -> (H, W, 3), (H, W, 1).

    The ends of the colour map, black and pale yellow, look like hairs and reflections, and are left out.
    """
    from matplotlib import colormaps

    values = np.clip(values, 0, 1)
    return colormaps["inferno"](0.25 + 0.53 * values)[..., :3], 0.85 * values[..., None] ** 0.7


def heat_on_grey(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Draw a heat map (H, W) in [0, 1] over the grey image: (H, W, 3) uint8 -> (H, W, 3) uint8."""
    grey = (image @ np.array([0.299, 0.587, 0.114]))[..., None]  # luma of ITU-R BT.601, (H, W, 1)
    colour, opacity = heat_colours(heat)
    return np.rint(opacity * 255 * colour + (1 - opacity) * grey).astype(np.uint8)


def _draw_outline_panel(axes: Axes, diagnosed: DiagnosedImage) -> None:
    has_mask = diagnosed.mask is not None
    axes.imshow(overlay_image(diagnosed.image, diagnosed.mask) if has_mask else diagnosed.image)
    axes.set_title("predicted outline" if has_mask else "image", fontsize=10)


def _draw_heat_panel(axes: Axes, diagnosed: DiagnosedImage) -> None:
    drawn = heat_on_grey(diagnosed.image, diagnosed.heat)
    axes.imshow(drawn if diagnosed.mask is None else overlay_image(drawn, diagnosed.mask))
    name = spoken(diagnosed.classes[diagnosed.explained])
    axes.set_title(f"{'evidence' if diagnosed.heat.any() else 'no evidence'} for {name}", fontsize=10)
    left, bottom, width, height = axes.get_position().bounds
    inch = 1 / axes.figure.get_size_inches()[1]
    box = (left + width / 4, bottom - 0.2 * inch, width / 2, 0.1 * inch)
    scale = axes.figure.add_axes(box, xticks=[], yticks=[])
    ramp = np.linspace(0, 1, 256)[None]  # (1, 256): the colours as they look on middle grey
    scale.imshow(heat_on_grey(np.full((1, 256, 3), 128, np.uint8), ramp), aspect="auto")
    for x, label, side in ((-0.04, "none", "right"), (1.04, "most", "left")):
        scale.text(x, 0.5, label, transform=scale.transAxes, ha=side, va="center", fontsize=9)


def _draw_bars(axes: Axes, diagnosed: DiagnosedImage) -> None:
    """Draw the probabilities from top to bottom in the order of the classes, and their malignant part."""
    from matplotlib.patches import Patch

    classes, probabilities = diagnosed.classes, np.asarray(diagnosed.probabilities)
    malignant = malignant_classes(classes)
    colours = [MALIGNANT if index in malignant else BENIGN for index in range(len(classes))]
    axes.barh(range(len(classes)), probabilities, color=colours, height=0.6)
    for index, probability in enumerate(probabilities):
        axes.text(probability + 0.02, index, f"{probability:.2f}", va="center", fontsize=9)
    axes.set_xlim(0, 1.13)  # room for the number of a bar of length 1
    axes.set_ylim(len(classes) - 0.4, -0.6)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"], fontsize=9)
    axes.set_yticks(range(len(classes)), [spoken(name) for name in classes], fontsize=9)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("probability", fontsize=9)
    total = probabilities[malignant].sum()
    handles = [
        Patch(color=MALIGNANT, label=f"malignant or pre-malignant: {total:.2f}"),
        Patch(color=BENIGN, label=f"benign: {probabilities.sum() - total:.2f}"),
    ]
    style = {"frameon": False, "fontsize": 9, "ncols": 2, "borderaxespad": 0.4, "handlelength": 1}
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1), **style)


def spoken(name: str) -> str:
    """Return the name of a class in words: "basal cell carcinoma"."""
    return name.replace("_", " ")


def _panel(figure: Figure, column: int, row: float) -> Axes:
    """Return the axes of a column: an image without ticks, or, in the third, bars beside their names."""
    width, height = figure.get_size_inches()
    left = MARGIN + column * (PANEL + GAP)
    if column == 2:
        left += NAMES
        return figure.add_axes((left / width, BOTTOM / height, (width - MARGIN - left) / width, row / height))
    return figure.add_axes((left / width, BOTTOM / height, PANEL / width, row / height), xticks=[], yticks=[])

"""Draws the feature maps of a network for one image: encoder, recurrence, and decoder.

Which maps are drawn, and on what scale, is decided in `feature_maps`. Pixels are drawn as squares, so that
the resolution of each level is visible.

The diagnosis, if the network has one, is explained by the evidence for each class (`explain_diagnosis`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from minidl import Tensor, no_grad
from minidl.allocator import release_freed_memory
from minidl.backend import to_device, to_numpy
from minidl.ops.activation import stable_sigmoid
from r2unet.data.images import bounded_size, resize_image, resize_probability
from r2unet.data.sample import to_input
from r2unet.figures import PREDICTION, draw_outline, new_figure, save_figure
from r2unet.network.model import UShape
from r2unet.prediction import explain_diagnosis as diagnosis
from r2unet.prediction.feature_maps import COLUMNS, LARGEST_SIDE, Row, Section, feature_maps
from r2unet.prediction.predict import NO_CORRECTION, THRESHOLD, Correction, finite

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CELL, GAP, LEFT, RIGHT, HEADING = 1.35, 0.07, 1.45, 0.6, 0.55  # inches
PANEL, PANEL_GAP, SCALE, TERMS = 2.25, 0.15, 0.6, 0.3  # of the diagnosis, in inches
MOST_PIXELS = 5_200_000  # of the page: five levels and two steps at full resolution
CAPTION = (
    "Shown are the channels that vary most. Colours: in the encoder and decoder, standard deviations (sd) "
    "from the channel's mean; in the recurrence, the values."
)


class Explanation(NamedTuple):
    """The prediction and the feature maps of a network for one image, at no more pixels than are drawn."""

    size: int  # the network sees (size, size) pixels
    image: np.ndarray  # (side, side, 3) uint8, side = size or `LARGEST_SIDE`
    probability: np.ndarray | None  # (side, side); None for a network without a decoder
    sections: list[Section]
    diagnosis: diagnosis.ExplainedDiagnosis | None = None  # None for a network that only outlines


def explain(
    model: UShape,
    image: np.ndarray,
    size: int,
    device: str = "cpu",
    classes: tuple[str, ...] = (),
    correction: Correction = NO_CORRECTION,
) -> Explanation:
    """Run a network in evaluation mode on one image, (H, W, 3) uint8, and collect its feature maps.

    `classes` are the names of the network's classes, if it has a diagnosis, and `correction` turns their
    logits into probabilities. Raises ValueError if the network has another number of classes, InputError if
    its answer is not finite.
    """
    small = resize_image(image, (size, size))
    x = Tensor(to_device(to_input([small]), device))
    with feature_maps(model) as maps, no_grad(), np.errstate(all="ignore"):  # overflow is an error below
        answer = model.answer(x)
    probability = explained = None
    if answer.outline is not None:
        probability = stable_sigmoid(finite(to_numpy(answer.outline.data)))[0, 0]
    if answer.diagnosis is not None:
        finite(to_numpy(answer.diagnosis.data))
        explained = diagnosis.explain_diagnosis(model.diagnosis, maps.diagnosed, answer, classes, correction)
    picture = bounded_size(small, LARGEST_SIDE)
    return Explanation(
        size,
        resize_image(small, picture),
        None if probability is None else resize_probability(probability, picture),
        maps.sections(),
        explained,
    )


def plot_explanation(explanation: Explanation, path: str | Path) -> None:
    """Draw the image, its prediction and all sections. Raises InputError if `path` cannot be written."""
    rows = sum(len(section.rows) for section in explanation.sections)
    width = LEFT + COLUMNS * (CELL + GAP) + RIGHT
    height = rows * (CELL + GAP) + HEADING * (len(explanation.sections) + 1)
    height += (2 * (CELL + GAP) + HEADING) * (explanation.probability is not None)
    height += (PANEL + 2 * HEADING + TERMS) * (explanation.diagnosis is not None)
    release_freed_memory()  # of the network
    figure, top = new_figure(width, height, MOST_PIXELS), height
    if explanation.probability is not None:
        top = _draw_prediction(figure, explanation, height)
    if explanation.diagnosis is not None:
        top = _draw_diagnosis(figure, explanation, top)
    for section in explanation.sections:
        top -= HEADING
        _write_title(figure, section.title, top)
        for row in section.rows:
            _draw_row(figure, row, top, section.limits)
            top -= CELL + GAP
    figure.text(0.15 / width, (top - 0.2) / height, CAPTION, fontsize=9)
    release_freed_memory()  # of heat maps and contours
    save_figure(figure, path)


def _draw_prediction(figure: Figure, explanation: Explanation, height: float) -> float:
    """Draw the image, the probability and the outline, each two cells wide; return their lower edge."""
    top, side = height - HEADING, 2 * CELL + GAP
    size = explanation.size
    titles = (f"image, {size} x {size} pixels", "probability of lesion", "outline at one half")
    for i, title in enumerate(titles):
        axes = _axes(figure, LEFT / 2 + i * (side + 3 * GAP), top, side)
        axes.set_title(title, fontsize=11)
        axes.imshow(explanation.probability if i == 1 else explanation.image, cmap="gray", vmin=0, vmax=1)
    draw_outline(axes, explanation.probability, THRESHOLD, PREDICTION)
    return top - side


def _draw_diagnosis(figure: Figure, explanation: Explanation, top: float) -> float:
    """Draw the evidence for each class, its colour scale and the mask of the head; return their lower edge.

    Without an outline there is no row of the prediction, so that the image is drawn here.
    """
    image, probability, explained = explanation.image, explanation.probability, explanation.diagnosis
    left, highest = 0.15, diagnosis.highest_evidence(explained)
    width, height = figure.get_size_inches()
    _write_title(figure, diagnosis.TITLE, top - HEADING)
    figure.text(1 - 0.15 / width, (top - HEADING + 0.13) / height, diagnosis.NOTE, fontsize=8, ha="right")
    top -= 1.6 * HEADING  # the panels have titles, too
    if probability is None:
        axes = _axes(figure, left, top, PANEL)
        axes.imshow(image)
        axes.set_title(f"image, {explanation.size} x {explanation.size} pixels", fontsize=11)
        left += PANEL + PANEL_GAP
    for evidence in explained.classes:
        diagnosis.draw_evidence(_axes(figure, left, top, PANEL), evidence, image, probability, highest)
        release_freed_memory()  # of the heat map
        left += PANEL + PANEL_GAP
    box = (left / width, (top - PANEL) / height, 0.1 / width, PANEL / height)
    diagnosis.draw_scale(figure.add_axes(box), highest)
    if explained.mask is not None:
        diagnosis.draw_mask(_axes(figure, left + SCALE, top, PANEL), explained.mask)
    return top - PANEL - TERMS


def _write_title(figure: Figure, title: str, top: float) -> None:
    width, height = figure.get_size_inches()
    figure.text(0.15 / width, (top + 0.13) / height, title, fontsize=12, weight="bold")


def _draw_row(figure: Figure, row: Row, top: float, limits: tuple[float, float]) -> None:
    """Draw the maps of a row below `top`, its label on the left and its colour scale on the right."""
    from matplotlib.ticker import MaxNLocator

    width, height = figure.get_size_inches()
    figure.text(
        (LEFT - 0.12) / width, (top - CELL / 2) / height, row.label, fontsize=9, ha="right", va="center"
    )
    # One axes for the row, because each takes as much memory as two maps. Its unit is an inch.
    length = COLUMNS * (CELL + GAP) - GAP
    axes = figure.add_axes((LEFT / width, (top - CELL) / height, length / width, CELL / height))
    axes.set_axis_off()
    style = {"cmap": "viridis", "vmin": limits[0], "vmax": limits[1], "interpolation": "nearest"}
    for i, (values, title) in enumerate(zip(row.maps, row.titles, strict=True)):
        left = i * (CELL + GAP)
        drawn = axes.imshow(values, extent=(left, left + CELL, 0, CELL), aspect="auto", **style)
        axes.text(left + 0.05, CELL - 0.08, title, fontsize=7, color="white", va="top").set_bbox(
            {"facecolor": "#00000090", "linewidth": 0, "pad": 1.5}
        )
    axes.set(xlim=(0, length), ylim=(0, CELL))
    scale = figure.add_axes(
        ((LEFT + COLUMNS * (CELL + GAP)) / width, (top - CELL) / height, 0.1 / width, CELL / height)
    )
    # Pruned, because the numbers at the ends would overlap those of the next row.
    figure.colorbar(drawn, cax=scale, ticks=MaxNLocator(4, prune="both")).ax.tick_params(labelsize=7)


def _axes(figure: Figure, left: float, top: float, side: float) -> Axes:
    width, height = figure.get_size_inches()
    box = (left / width, (top - side) / height, side / width, side / height)
    return figure.add_axes(box, xticks=[], yticks=[])

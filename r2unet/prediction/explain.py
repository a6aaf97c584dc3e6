"""Draws the feature maps of a network for one image: encoder, recurrence, and decoder.

A feature map is one channel of the output of a layer, (H, W) numbers: how strongly each position shows the
feature that the channel detects. A level has up to 64 channels, too many for a figure. Of each layer, only
the channels whose values vary most over the image are drawn: a constant channel contains no information
about the position of the lesion. Pixels are drawn as squares, so that the resolution of each level is
visible.

Layers differ in scale by more than colours can show. The maps of the encoder and the decoder therefore show

    (value - the channel's mean over the image) / its standard deviation,

on a common scale from -3 to 3, and the standard deviation is printed on the map. The steps of the recurrence
are drawn after their ReLU without normalisation, on a common scale, because they show how the values change.

The diagnosis, if the network has one, is explained by the evidence for each class (`explain_diagnosis`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from minidl import Tensor, no_grad
from minidl.backend import to_device, to_numpy
from minidl.nn import Module
from minidl.ops.activation import stable_sigmoid
from r2unet.data.images import resize_image
from r2unet.data.sample import to_input
from r2unet.figures import PREDICTION, draw_outline, new_figure, save_figure
from r2unet.network.blocks import RecurrentConv, UntiedRecurrentConv
from r2unet.network.hooks import forward_hooks
from r2unet.network.model import UShape
from r2unet.prediction import explain_diagnosis as diagnosis
from r2unet.prediction.predict import NO_CORRECTION, THRESHOLD, Correction

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 6
CELL, GAP, LEFT, RIGHT, HEADING = 1.35, 0.07, 1.45, 0.6, 0.55  # inches
PANEL, PANEL_GAP, SCALE, TERMS = (
    2.25,
    0.15,
    0.6,
    0.3,
)  # of the diagnosis, in inches
CAPTION = (
    "Shown are the channels that vary most. Colours: in the encoder and decoder, standard deviations (sd) "
    "from the channel's mean; in the recurrence, the values."
)


class Row(NamedTuple):
    """Feature maps that are drawn next to each other."""

    label: str
    maps: list[np.ndarray]  # (H, W) each
    titles: list[str]


class Section(NamedTuple):
    """Rows with a common title and colour scale."""

    title: str
    rows: list[Row]
    limits: tuple[float, float] = (-3.0, 3.0)


class Explanation(NamedTuple):
    """The prediction and the feature maps of a network for one image."""

    image: np.ndarray  # (size, size, 3) uint8, as the network sees it
    probability: np.ndarray | None  # (size, size); None for a network without a decoder
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
    logits into probabilities. Raises ValueError if the network has another number of classes.
    """
    small = resize_image(image, (size, size))
    outputs: dict[str, np.ndarray] = {}  # (C, H, W) each
    calls: list[tuple[str, np.ndarray]] = []  # in order, because all steps may share one norm layer

    def record(name: str, module: Module, x: Tensor, y: Tensor) -> None:
        outputs[name] = to_numpy(y.data)[0]
        calls.append((name, outputs[name]))

    with forward_hooks(model.named_modules(), record), no_grad():
        answer = model.answer(Tensor(to_device(to_input([small]), device)))
    sections = [encoder_section(outputs), *recurrence_sections(model, calls), decoder_section(outputs)]
    probability = explained = None
    if answer.outline is not None:
        probability = stable_sigmoid(to_numpy(answer.outline.data))[0, 0]
    if answer.diagnosis is not None:
        features = to_device(_numbered(outputs, "encoder")[-1][None], device)  # (1, C, h, w)
        explained = diagnosis.explain_diagnosis(model.diagnosis, features, answer, classes, correction)
    return Explanation(small, probability, [s for s in sections if s.rows], explained)


def most_varying(features: np.ndarray, count: int) -> list[int]:
    """Return the sorted indices of the `count` channels of (C, H, W) with the largest standard deviations."""
    spread = features.std(axis=(1, 2))  # (C,)
    return sorted(np.argsort(-spread, kind="stable")[:count].tolist())


def encoder_section(outputs: dict[str, np.ndarray]) -> Section:
    """Return the feature maps of each level of the encoder."""
    rows = [
        Row(_label(level, features), *_standardized(features, COLUMNS, "channel"))
        for level, features in enumerate(_numbered(outputs, "encoder"), 1)
    ]
    return Section("Encoder: with each level the receptive field grows and the resolution falls", rows)


def recurrence_sections(model: UShape, calls: list[tuple[str, np.ndarray]]) -> list[Section]:
    """Return the steps of the first recurrent convolution, if the network has one."""
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, RecurrentConv)]
    if not layers:
        return []
    first, layer = layers[0]
    steps = [y for name, y in calls if name.startswith(f"{first}.norm.")]  # each after its ReLU
    chosen = most_varying(steps[-1], COLUMNS)
    titles = [f"channel {c}" for c in chosen]
    rows = []
    for t, features in enumerate(steps):
        # That of the convolutions: each step adds one pixel on each side. Group norm sees the whole image.
        field = 2 * t + 3
        label = f"t = {t}\nreceptive field\n{field} x {field}"
        rows.append(Row(label, [features[c] for c in chosen], titles))
    # Not the maximum, because a single bright pixel would darken all others.
    high = float(np.quantile(np.stack(steps)[:, chosen], 0.995))
    return [Section(f"Recurrence on level 1: {weights_of(layer)}", rows, (0.0, max(high, 1e-6)))]


def weights_of(layer: RecurrentConv) -> str:
    """Describe which weights are applied to what at every step of a recurrent convolution."""
    if isinstance(layer, UntiedRecurrentConv):
        return "w_f applied to the block's input, plus w_r applied to the previous output"
    weights = "different weights at every step" if layer.further else "the same weights"
    return f"{weights}, applied to the block's input plus the previous output"


def decoder_section(outputs: dict[str, np.ndarray]) -> Section:
    """Return, for each level of the decoder, both halves of its input and its output."""
    skips, ups, outs = (_numbered(outputs, name) for name in ("encoder", "up", "decoder"))
    rows = []
    for i, (up, output) in enumerate(zip(ups, outs, strict=True)):
        level = len(ups) - i
        sources = (("skip", skips[level - 1]), ("upsampled", up), ("output", output))
        parts = [_standardized(features, COLUMNS // len(sources), name) for name, features in sources]
        maps, titles = (sum(part, []) for part in zip(*parts, strict=True))
        rows.append(Row(_label(level, output), maps, titles))
    return Section("Decoder: the skip connection, the upsampled features, and the output of the block", rows)


def plot_explanation(explanation: Explanation, path: str | Path) -> None:
    """Draw the image, its prediction and all sections. Raises InputError if `path` cannot be written."""
    rows = sum(len(section.rows) for section in explanation.sections)
    width = LEFT + COLUMNS * (CELL + GAP) + RIGHT
    height = rows * (CELL + GAP) + HEADING * (len(explanation.sections) + 1)
    height += (2 * (CELL + GAP) + HEADING) * (explanation.probability is not None)
    height += (PANEL + 2 * HEADING + TERMS) * (explanation.diagnosis is not None)
    figure, top = new_figure(width, height), height
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
    save_figure(figure, path)


def _draw_prediction(figure: Figure, explanation: Explanation, height: float) -> float:
    """Draw the image, the probability and the outline, each two cells wide; return their lower edge."""
    top, side = height - HEADING, 2 * CELL + GAP
    size = len(explanation.image)
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
        axes.set_title(f"image, {len(image)} x {len(image)} pixels", fontsize=11)
        left += PANEL + PANEL_GAP
    for evidence in explained.classes:
        diagnosis.draw_evidence(_axes(figure, left, top, PANEL), evidence, image, probability, highest)
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
    for i, (values, title) in enumerate(zip(row.maps, row.titles, strict=True)):
        axes = _axes(figure, LEFT + i * (CELL + GAP), top, CELL)
        drawn = axes.imshow(values, cmap="viridis", vmin=limits[0], vmax=limits[1], interpolation="nearest")
        axes.text(0.04, 0.94, title, transform=axes.transAxes, fontsize=7, color="white", va="top").set_bbox(
            {"facecolor": "#00000090", "linewidth": 0, "pad": 1.5}
        )
    scale = figure.add_axes(
        ((LEFT + COLUMNS * (CELL + GAP)) / width, (top - CELL) / height, 0.1 / width, CELL / height)
    )
    # Pruned, because the numbers at the ends would overlap those of the next row.
    figure.colorbar(drawn, cax=scale, ticks=MaxNLocator(4, prune="both")).ax.tick_params(labelsize=7)


def _axes(figure: Figure, left: float, top: float, side: float) -> Axes:
    width, height = figure.get_size_inches()
    box = (left / width, (top - side) / height, side / width, side / height)
    return figure.add_axes(box, xticks=[], yticks=[])


def _numbered(outputs: dict[str, np.ndarray], name: str) -> list[np.ndarray]:
    """Return the outputs of the modules name.0, name.1, ..."""
    count = sum(key.startswith(f"{name}.") and key.count(".") == 1 for key in outputs)
    return [outputs[f"{name}.{i}"] for i in range(count)]


def _label(level: int, features: np.ndarray) -> str:
    channels, H, W = features.shape
    return f"level {level}\n{channels} channels\n{H} x {W} pixels"


def _standardized(features: np.ndarray, count: int, name: str) -> tuple[list[np.ndarray], list[str]]:
    """Return the `count` most varying channels of (C, H, W), standardised, and their titles."""
    maps, titles = [], []
    for channel in most_varying(features, count):
        values, spread = features[channel], float(features[channel].std())
        maps.append((values - values.mean()) / (spread or 1.0))
        titles.append(f"{name} {channel}, sd {spread:.1f}")
    return maps, titles

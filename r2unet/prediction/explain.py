"""A picture of what a network does with one image: on the way down, in the recurrence, on the way up.

A feature is one channel of a layer's output, (H, W) numbers: how strongly each place shows what the channel
looks for. A level has up to 64 of them, and a wall of pictures is read by nobody. So of each layer only those
channels are drawn whose values vary most over the image: one that is the same everywhere says nothing about
where the lesion is. Pixels are drawn as squares, because how coarse a level is belongs to what it shows.

Layers differ in size by more than a colour can tell. So on the way down and up a map shows

    (value - the channel's mean over the image) / its standard deviation,

on one scale from -3 to 3, and the standard deviation stands on it as a number. The steps of the recurrence
are drawn as they are, after their ReLU, on one scale: there the question is how the values change.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from minidl import Tensor, no_grad
from minidl.backend import to_device, to_numpy
from minidl.nn import Module
from minidl.ops.activation import stable_sigmoid
from r2unet.data import images
from r2unet.data.sample import to_input
from r2unet.network.blocks import RecurrentConv
from r2unet.network.model import UShape
from r2unet.network.watch import watching
from r2unet.plots import PREDICTION, draw_outline, new_figure, save_figure
from r2unet.prediction.predict import THRESHOLD

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 6
CELL, GAP, LEFT, RIGHT, HEADING = 1.35, 0.07, 1.45, 0.6, 0.55  # inches
CAPTION = (
    "Drawn are the channels that vary most. Colours: on the way down and up, standard deviations (sd) from "
    "the channel's mean; in the recurrence, the values."
)


class Row(NamedTuple):
    """Features that are drawn side by side."""

    label: str
    maps: list[np.ndarray]  # (H, W) each
    titles: list[str]


class Section(NamedTuple):
    """Rows that belong together, and the scale of their colours."""

    title: str
    rows: list[Row]
    limits: tuple[float, float] = (-3.0, 3.0)


class Explanation(NamedTuple):
    """What one image makes a network do."""

    picture: np.ndarray  # (size, size, 3) uint8, as the network sees it
    probability: np.ndarray  # (size, size)
    sections: list[Section]


def explain(model: UShape, picture: np.ndarray, size: int, device: str = "cpu") -> Explanation:
    """Run one image, (H, W, 3) uint8, through a network in evaluation mode and keep what its layers say."""
    small = images.resize_image(picture, (size, size))
    outputs: dict[str, np.ndarray] = {}  # (C, H, W) each
    calls: list[tuple[str, np.ndarray]] = []  # the same in order, since one norm may serve every step

    def see(name: str, module: Module, x: Tensor, y: Tensor) -> None:
        outputs[name] = to_numpy(y.data)[0]
        calls.append((name, outputs[name]))

    with watching(model.named_modules(), see), no_grad():
        model(Tensor(to_device(to_input([small]), device)))
    sections = [way_down(outputs), *recurrence(model, calls), way_up(outputs)]
    probability = stable_sigmoid(outputs[""])[0]  # the whole network's name is empty
    return Explanation(small, probability, [section for section in sections if section.rows])


def most_varying(features: np.ndarray, count: int) -> list[int]:
    """Return the numbers of the channels of (C, H, W) whose values vary most over the image, in order."""
    spread = features.std(axis=(1, 2))  # (C,)
    return sorted(np.argsort(-spread, kind="stable")[:count].tolist())


def way_down(outputs: dict[str, np.ndarray]) -> Section:
    """Show what each level of the encoder keeps."""
    rows = [
        Row(_label(level, features), *_standardized(features, COLUMNS, "channel"))
        for level, features in enumerate(_numbered(outputs, "encoder"), 1)
    ]
    return Section("The way down: each level sees farther, and says less precisely where", rows)


def recurrence(model: UShape, calls: list[tuple[str, np.ndarray]]) -> list[Section]:
    """Show the first recurrent convolution step by step, if the network has one."""
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, RecurrentConv)]
    if not layers:
        return []
    first, _ = layers[0]
    steps = [y for name, y in calls if name.startswith(f"{first}.norm.")]  # each after its ReLU
    chosen = most_varying(steps[-1], COLUMNS)
    titles = [f"channel {c}" for c in chosen]
    rows = []
    for t, features in enumerate(steps):
        # a 3 x 3 kernel, and a ring of pixels more with every step; group norm sees the whole image besides
        sees = 2 * t + 3
        label = f"t = {t}\nconvolutions see\n{sees} x {sees}"
        rows.append(Row(label, [features[c] for c in chosen], titles))
    high = float(np.quantile(np.stack(steps)[:, chosen], 0.995))  # one bright pixel would darken the others
    title = "The recurrence on level 1: the same weights, on the block's input plus the last answer"
    return [Section(title, rows, (0.0, max(high, 1e-6)))]


def way_up(outputs: dict[str, np.ndarray]) -> Section:
    """Show, for each level of the decoder, both halves of its input and what it makes of them."""
    skips, ups, results = (_numbered(outputs, name) for name in ("encoder", "up", "decoder"))
    rows = []
    for i, (up, result) in enumerate(zip(ups, results, strict=True)):
        level = len(ups) - i
        halves = (("skip", skips[level - 1]), ("from below", up), ("result", result))
        parts = [_standardized(features, COLUMNS // len(halves), what) for what, features in halves]
        maps, titles = (sum(each, []) for each in zip(*parts, strict=True))
        rows.append(Row(_label(level, result), maps, titles))
    return Section(
        "The way up: the skip, the up-sampled half from below, and what the block makes of both", rows
    )


def plot_explanation(explanation: Explanation, path: str | Path) -> None:
    """Draw the image, the answer and all sections. Raises InputError where `path` cannot be written."""
    rows = 1 + sum(len(section.rows) for section in explanation.sections)
    width = LEFT + COLUMNS * (CELL + GAP) + RIGHT
    height = (rows + 1) * (CELL + GAP) + HEADING * (len(explanation.sections) + 2)
    figure = new_figure(width, height)
    top = _draw_answer(figure, explanation, height)
    for section in explanation.sections:
        top -= HEADING
        figure.text(0.15 / width, (top + 0.13) / height, section.title, fontsize=12, weight="bold")
        for row in section.rows:
            _draw_row(figure, row, top, section.limits)
            top -= CELL + GAP
    figure.text(0.15 / width, (top - 0.2) / height, CAPTION, fontsize=9)
    save_figure(figure, path)


def _draw_answer(figure: Figure, explanation: Explanation, height: float) -> float:
    """Draw the image, the probability and the outline, each two cells wide; return where they end."""
    top, side = height - HEADING, 2 * CELL + GAP
    size = len(explanation.picture)
    titles = (f"the image, as {size} x {size} pixels", "probability of lesion", "its outline at one half")
    for i, title in enumerate(titles):
        axes = _axes(figure, LEFT / 2 + i * (side + 3 * GAP), top, side)
        axes.set_title(title, fontsize=11)
        axes.imshow(explanation.probability if i == 1 else explanation.picture, cmap="gray", vmin=0, vmax=1)
    draw_outline(axes, explanation.probability, THRESHOLD, PREDICTION)
    return top - side


def _draw_row(figure: Figure, row: Row, top: float, limits: tuple[float, float]) -> None:
    """Draw a row's maps below `top`, its label to their left and its scale to their right."""
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
    # Pruned, for the numbers at the ends would run into those of the next row.
    figure.colorbar(drawn, cax=scale, ticks=MaxNLocator(4, prune="both")).ax.tick_params(labelsize=7)


def _axes(figure: Figure, left: float, top: float, side: float) -> Axes:
    width, height = figure.get_size_inches()
    box = (left / width, (top - side) / height, side / width, side / height)
    return figure.add_axes(box, xticks=[], yticks=[])


def _numbered(outputs: dict[str, np.ndarray], name: str) -> list[np.ndarray]:
    """Return the outputs of the modules of a list, name.0, name.1, ..."""
    count = sum(key.startswith(f"{name}.") and key.count(".") == 1 for key in outputs)
    return [outputs[f"{name}.{i}"] for i in range(count)]


def _label(level: int, features: np.ndarray) -> str:
    channels, H, W = features.shape
    return f"level {level}\n{channels} channels\n{H} x {W} pixels"


def _standardized(features: np.ndarray, count: int, what: str) -> tuple[list[np.ndarray], list[str]]:
    """Return the most varying channels of (C, H, W), in standard deviations from their means, and titles."""
    maps, titles = [], []
    for channel in most_varying(features, count):
        values, spread = features[channel], float(features[channel].std())
        maps.append((values - values.mean()) / (spread or 1.0))
        titles.append(f"{what} {channel}, sd {spread:.1f}")
    return maps, titles

"""Collects, while a network runs, the few feature maps of each layer that a figure shows.

A feature map is one channel of the output of a layer, (H, W) numbers: how strongly each position shows the
feature that the channel detects. A level has up to 64 channels, too many for a figure. Of each layer, only
the channels whose values vary most over the image are drawn: a constant channel contains no information
about the position of the lesion.

Layers differ in scale by more than colours can show. The maps of the encoder and the decoder therefore show

    (value - the channel's mean over the image) / its standard deviation,

on a common scale from -3 to 3, and the standard deviation is printed on the map. The steps of the recurrence
are drawn after their ReLU without normalisation, on a common scale, because they show how the values change.

**Memory.** The outputs of all layers together take many times the memory of a prediction, which keeps only
those that are still needed. A layer's channels are therefore chosen as soon as it has run, and only these are
kept, at no more pixels than the figure has. Which channels of the recurrence vary most is known after its
last step; its steps are then computed a second time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from minidl import Tensor
from minidl.backend import Array, to_numpy
from minidl.nn import Module
from r2unet.data.images import bounded_size, resize_probability
from r2unet.network.blocks import RecurrentConv, UntiedRecurrentConv
from r2unet.network.hooks import forward_hooks
from r2unet.network.model import UShape

COLUMNS = 6
MOST_STEPS = 8  # of the recurrence, in a figure
LARGEST_SIDE = 208  # pixels of a map, which is drawn at 203; of the image and its outline, too
SOURCES = {"skip": "encoder", "upsampled": "up", "output": "decoder"}  # of the decoder's rows: their layers


class Row(NamedTuple):
    """Feature maps that are drawn next to each other."""

    label: str
    maps: list[np.ndarray]  # (H, W) each, of at most `LARGEST_SIDE` pixels a side
    titles: list[str]


class Section(NamedTuple):
    """Rows with a common title and colour scale."""

    title: str
    rows: list[Row]
    limits: tuple[float, float] = (-3.0, 3.0)


class FeatureMaps:
    """The sections of the figure, and the features that the diagnosis reads, after the network has run."""

    def __init__(self, model: UShape) -> None:
        self.levels = len(model.encoder)
        self.encoder: list[Row] = []
        self.decoder: list[Row] = []
        self.recurrence: list[Section] = []  # one; none for a network without a recurrence
        self.diagnosed: list[Array] = []  # (1, C, h, w) each, the bottleneck last
        self._first_diagnosed = self.levels - (0 if model.task == "outline" else model.diagnosis.levels)
        self._parts: dict[str, list[Row]] = {name: [] for name in SOURCES}

    def sections(self) -> list[Section]:
        """Return the sections that have rows."""
        encoder = "Encoder: with each level the receptive field grows and the resolution falls"
        decoder = "Decoder: the skip connection, the upsampled features, and the output of the block"
        sections = [Section(encoder, self.encoder), *self.recurrence, Section(decoder, self.decoder)]
        return [section for section in sections if section.rows]

    def record(self, name: str, module: Module, x: Tensor, y: Tensor) -> None:
        """Keep what is drawn of a layer's output: encoder.i, up.i, decoder.i, or a recurrent convolution."""
        features = to_numpy(y.data)[0]  # (C, H, W)
        if isinstance(module, RecurrentConv):
            self.recurrence.append(recurrence_section(module, x, features))
            return
        for source, layer in SOURCES.items():
            if name.startswith(f"{layer}."):
                self._parts[source].append(_row(features, COLUMNS // len(SOURCES), source))
        if name.startswith("encoder."):
            if len(self.encoder) >= self._first_diagnosed:
                self.diagnosed.append(y.data)
            self.encoder.append(_row(features, COLUMNS, "channel", len(self.encoder) + 1))
        if name.startswith("decoder."):
            self._add_decoder_row()

    def _add_decoder_row(self) -> None:
        """Join both halves of the input and the output of the block that has just run."""
        level = self.levels - 1 - len(self.decoder)
        skip = self._parts["skip"][level - 1]
        parts = [skip, self._parts["upsampled"][-1], self._parts["output"][-1]]
        maps, titles = (sum((part[i] for part in parts), []) for i in (1, 2))
        self.decoder.append(Row(f"level {level}\n{parts[-1].label}", maps, titles))


@contextmanager
def feature_maps(model: UShape) -> Iterator[FeatureMaps]:
    """Collect the feature maps of the network that runs once in this block, on one image."""
    maps = FeatureMaps(model)
    layers = [(n, m) for n, m in model.named_modules() if n.count(".") == 1]
    layers = [(n, m) for n, m in layers if n.split(".")[0] in SOURCES.values()]
    layers += [(n, m) for n, m in model.named_modules() if isinstance(m, RecurrentConv)][:1]
    with forward_hooks(layers, maps.record):
        yield maps


def most_varying(features: np.ndarray, count: int) -> list[int]:
    """Return the sorted indices of the `count` channels of (C, H, W) with the largest standard deviations."""
    spread = np.array([channel.std() for channel in features])  # (C,), one by one to take little memory
    return sorted(np.argsort(-spread, kind="stable")[:count].tolist())


def recurrence_section(layer: RecurrentConv, x: Tensor, last: np.ndarray) -> Section:
    """Return the steps of a recurrent convolution of x (1, C, H, W) with the last output (C, H, W)."""
    chosen = most_varying(last, COLUMNS)
    titles = [f"channel {c}" for c in chosen]
    shown = set(np.linspace(0, layer.steps, min(layer.steps + 1, MOST_STEPS)).round().astype(int).tolist())
    rows: list[Row] = []
    steps = iter(range(layer.steps + 1))

    def record(name: str, norm: Module, before: Tensor, y: Tensor) -> None:
        """Keep the output of a step, which all may share one norm."""
        if (t := next(steps)) in shown:
            # That of the convolutions: a step adds one pixel on each side. Group norm sees the whole image.
            field = 2 * t + 3
            label = f"t = {t}\nreceptive field\n{field} x {field}"
            features = to_numpy(y.data)[0]
            rows.append(Row(label, [_bounded(features[c]) for c in chosen], titles))

    norms = {id(norm): ("norm", norm) for norm in layer.norm}
    with forward_hooks(norms.values(), record):
        type(layer).forward(layer, x)
    # Not the maximum, because a single bright pixel would darken all others.
    high = float(np.quantile(np.stack([row.maps for row in rows]), 0.995))
    return Section(f"Recurrence on level 1: {weights_of(layer)}", rows, (0.0, max(1e-6, high)))


def weights_of(layer: RecurrentConv) -> str:
    """Describe which weights are applied to what at every step of a recurrent convolution."""
    if isinstance(layer, UntiedRecurrentConv):
        return "w_f applied to the block's input, plus w_r applied to the previous output"
    weights = "different weights at every step" if layer.further else "the same weights"
    return f"{weights}, applied to the block's input plus the previous output"


def _row(features: np.ndarray, count: int, name: str, level: int | None = None) -> Row:
    """Return the `count` most varying channels of (C, H, W), standardised."""
    channels, H, W = features.shape
    label, maps, titles = f"{channels} channels\n{H} x {W} pixels", [], []
    for channel in most_varying(features, count):
        values, spread = features[channel], float(features[channel].std())
        maps.append(_bounded((values - values.mean()) / (spread or 1.0)))
        titles.append(f"{name} {channel}, sd {spread:.1f}")
    return Row(f"level {level}\n{label}" if level else label, maps, titles)


def _bounded(values: np.ndarray) -> np.ndarray:
    """Return a copy of a map (H, W), of at most `LARGEST_SIDE` pixels a side: its layer can be freed."""
    return resize_probability(values, bounded_size(values, LARGEST_SIDE))

"""The diagnosis head: from the features of the encoder and the predicted mask to one logit for each class.

    features (N, C, h, w) ---- pooled over the whole image --------+
        |                                                          concat -> linear -> logits (N, K)
        +--------------------- pooled over the predicted lesion ---+
                                        ^
    mask (N, 1, H, W) -- averaged to ---+ (N, 1, h, w)

The features of the bottleneck, the deepest level, describe what is where. A diagnosis is about the whole
lesion, so the head pools over the positions. For each channel it keeps the mean and the maximum over the
image, and the same two over the lesion, where each position is weighted by the mask m:

    mean_c = sum_hw m f_c / sum_hw m,        maximum_c = max_hw m f_c

Outside the lesion m f_c is about 0. So the maximum over a lesion that does not fill the image is about 0 or
more, as after a ReLU. A position of the bottleneck is a cell of many pixels, and m is the mean of
sigmoid(logit) over its cell. The decoder has learned where the lesion is, so the head need not learn to
ignore hairs, rulers and skin. The mask is a constant in the backward pass: the diagnosis uses the outline,
but does not change it.

`POOLING` lists the choices: over the lesion, over the image, or both. Pooling over the image is global
average pooling (Lin et al. 2013, network in network); a mask inside the network is convolutional feature
masking (Dai et al. 2015).

`LEVELS` lists the choices of what is pooled: the bottleneck alone, or every level of the encoder, each in the
same way and with the mask averaged to its own cells. A position of an upper level sees less of the image, but
more of its detail. A classifier that reads several levels: Sermanet and LeCun (2011).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np

from minidl.init import xavier_normal
from minidl.nn import Linear, Module
from minidl.ops import concat, sigmoid
from minidl.tensor import Parameter, Tensor

POOLING = ("both", "lesion", "image")
LEVELS = ("bottleneck", "all")  # of the encoder
SMALLEST_AREA = 1e-3  # in cells of a level: avoids 0 / 0 where no lesion is predicted


class DiagnosisHead(Module):
    """Features (N, C, h, w) of the levels that it reads, and outline logits (N, 1, H, W) -> (N, classes).

    `widths` are the channels C of these levels, the deepest last; the result is the logits of the classes.
    Without a decoder there is no outline, and `pooling` must be "image".
    """

    def __init__(
        self, widths: Sequence[int], classes: int, pooling: str, *, rng: np.random.Generator
    ) -> None:
        self.pooling = pooling
        self.levels = len(widths)
        pooled = sum(widths) * (4 if pooling == "both" else 2)
        self.linear = Linear(pooled, classes, rng=rng)
        self.linear.weight = Parameter(xavier_normal((classes, pooled), pooled, classes, rng))

    def forward(self, features: Sequence[Tensor], outline: Tensor | None = None) -> Tensor:
        return self.linear(self.pool(features, outline))  # (N, D) -> (N, classes)

    def pool(self, features: Sequence[Tensor], outline: Tensor | None = None) -> Tensor:
        """Return the pooled features (N, D) of each image; D is 4 C for each level, or 2 C without "both"."""
        mask = None if self.pooling == "image" else sigmoid(outline.detach())
        return concat(list(chain.from_iterable(self.pool_level(level, mask) for level in features)), axis=1)

    def pool_level(self, features: Tensor, mask: Tensor | None) -> list[Tensor]:
        """Return what is pooled of the features (N, C, h, w) of one level, (N, C) each."""
        N, C, h, w = features.shape
        pooled = []
        if self.pooling != "lesion":
            pooled.append(features.mean(axis=(2, 3)))  # (N, C, h, w) -> (N, C)
            pooled.append(features.reshape(N, C, h * w).max(axis=2))
        if self.pooling != "image":
            cells = cell_means(mask, h, w)  # (N, 1, H, W) -> (N, 1, h, w)
            inside = features * cells
            pooled.append(inside.sum(axis=(2, 3)) / (cells.sum(axis=(2, 3)) + SMALLEST_AREA))
            pooled.append(inside.reshape(N, C, h * w).max(axis=2))
        return pooled


def cell_means(mask: Tensor, h: int, w: int) -> Tensor:
    """Average a mask over h x w equal cells, (N, 1, H, W) -> (N, 1, h, w)."""
    N, _, H, W = mask.shape
    return mask.reshape(N, 1, h, H // h, w, W // w).mean(axis=(3, 5))

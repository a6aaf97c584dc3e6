"""The diagnosis head: from the features of the bottleneck and the predicted mask to one logit for each class.

    features (N, C, h, w) ---- pooled over the whole image --------+
        |                                                          concat -> linear -> logits (N, K)
        +--------------------- pooled over the predicted lesion ---+
                                        ^
    mask (N, 1, H, W) -- averaged to ---+ (N, 1, h, w)

The bottleneck's features describe what is where. A diagnosis is about the whole lesion, so the head pools
over the positions. For each channel it keeps the mean and the maximum over the image, and the same two over
the lesion, where each position is weighted by the mask m:

    mean_c = sum_hw m f_c / sum_hw m,        maximum_c = max_hw m f_c

Outside the lesion m f_c is about 0, so the maximum over the lesion is never negative, as after a ReLU. A
position of the bottleneck is a cell of many pixels, and m is the mean of sigmoid(logit) over its cell. The
decoder has learned where the lesion is, so the head need not learn to ignore hairs, rulers and skin. The mask
is a constant in the backward pass: the diagnosis uses the outline, but does not change it.

`POOLING` lists the choices: over the lesion, over the image, or both. Pooling over the image is global
average pooling (Lin et al. 2013, network in network); a mask inside the network is convolutional feature
masking (Dai et al. 2015).
"""

from __future__ import annotations

import numpy as np

from minidl.init import xavier_normal
from minidl.nn import Linear, Module
from minidl.ops import concat, sigmoid
from minidl.tensor import Parameter, Tensor

POOLING = ("both", "lesion", "image")
SMALLEST_AREA = 1e-3  # in cells of the bottleneck: avoids 0 / 0 where no lesion is predicted


class DiagnosisHead(Module):
    """Features (N, C, h, w) and outline logits (N, 1, H, W) -> class logits (N, classes).

    Without a decoder there is no outline, and `pooling` must be "image".
    """

    def __init__(self, channels: int, classes: int, pooling: str, *, rng: np.random.Generator) -> None:
        self.pooling = pooling
        pooled = channels * (4 if pooling == "both" else 2)
        self.linear = Linear(pooled, classes, rng=rng)
        self.linear.weight = Parameter(xavier_normal((classes, pooled), pooled, classes, rng))

    def forward(self, features: Tensor, outline: Tensor | None = None) -> Tensor:
        return self.linear(self.pool(features, outline))  # (N, 4 C) -> (N, classes)

    def pool(self, features: Tensor, outline: Tensor | None = None) -> Tensor:
        """Return the pooled features of each image, (N, 4 C), or (N, 2 C) if `pooling` is not "both"."""
        N, C, h, w = features.shape
        pooled = []
        if self.pooling != "lesion":
            pooled.append(features.mean(axis=(2, 3)))  # (N, C, h, w) -> (N, C)
            pooled.append(features.reshape(N, C, h * w).max(axis=2))
        if self.pooling != "image":
            mask = cell_means(sigmoid(outline.detach()), h, w)  # (N, 1, H, W) -> (N, 1, h, w)
            inside = features * mask
            pooled.append(inside.sum(axis=(2, 3)) / (mask.sum(axis=(2, 3)) + SMALLEST_AREA))
            pooled.append(inside.reshape(N, C, h * w).max(axis=2))
        return concat(pooled, axis=1)  # -> (N, 4 C)


def cell_means(mask: Tensor, h: int, w: int) -> Tensor:
    """Average a mask over h x w equal cells, (N, 1, H, W) -> (N, 1, h, w)."""
    N, _, H, W = mask.shape
    return mask.reshape(N, 1, h, H // h, w, W // w).mean(axis=(3, 5))

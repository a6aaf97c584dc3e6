"""Solutions of the exercises of chapter 3, docs/3-convolution.md."""

from collections.abc import Sequence

import numpy as np


def weight_gradient(x: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Return dw of a 3 x 3 convolution with stride 1 and padding 1."""
    H, W = x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    dw = np.zeros((dy.shape[1], x.shape[1], 3, 3))
    for kh in range(3):
        for kw in range(3):
            dw[:, :, kh, kw] = np.einsum("nohw,nchw->oc", dy, padded[:, :, kh : kh + H, kw : kw + W])
    return dw


def input_gradient(w: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Return dx of a 3 x 3 convolution with stride 1 and padding 1, without col2im."""
    H, W = dy.shape[2:]
    padded = np.pad(dy, ((0, 0), (0, 0), (1, 1), (1, 1)))
    dx = np.zeros((len(dy), w.shape[1], H, W))
    for kh in range(3):
        for kw in range(3):
            part = padded[:, :, kh : kh + H, kw : kw + W]  # (N, OC, H, W)
            dx += np.einsum("oc,nohw->nchw", w[:, :, 2 - kh, 2 - kw], part)
    return dx


def receptive_field(layers: Sequence[tuple[int, int]]) -> int:
    """Return how many pixels of the input, in one direction, an output pixel depends on."""
    field, distance = 1, 1
    for kernel, stride in layers:
        field += (kernel - 1) * distance
        distance *= stride
    return field

"""Nearest-neighbour upsampling: every pixel becomes a square of s x s equal pixels.

y[i, j] = x[i // s, j // s]    =>    dx[i, j] = sum of dy over the square of pixel (i, j).
"""

from __future__ import annotations

import numpy as np

from minidl.backend import GPU, Array, Kernels, array_module, contiguous, cover_planes
from minidl.implementation import choose, implements
from minidl.tensor import Function, Tensor

kernels = Kernels(__file__)


class UpsampleNearest(Function):
    """Every pixel repeated to a square of s x s."""

    def __init__(self, scale_factor: int) -> None:
        self.scale_factor = scale_factor

    def forward(self, x: Array) -> Array:
        s = self.scale_factor
        return x.repeat(s, axis=3).repeat(s, axis=2)  # (N, C, H, W) -> (N, C, sH, sW)

    def backward(self, dy: Array) -> Array:
        s = self.scale_factor
        rows = sum(dy[:, :, i::s] for i in range(s))  # (N, C, sH, sW) -> (N, C, H, sW)
        return sum(rows[..., j::s] for j in range(s))  # -> (N, C, H, W)


@implements(UpsampleNearest, "kernels", devices=GPU)
class UpsampleNearestKernels(UpsampleNearest):
    """Nearest-neighbour upsampling with one launch for each pass."""

    def forward(self, x: Array) -> Array:
        (N, C, H, W), s = x.shape, self.scale_factor
        y = array_module(x).empty((N, C, s * H, s * W), x.dtype)
        kernels.launch("upsample_forward", *cover_planes(y.shape), contiguous(x), y, H, W, s)
        return y

    def backward(self, dy: Array) -> Array:
        (N, C, OH, OW), s = dy.shape, self.scale_factor
        dx = array_module(dy).empty((N, C, OH // s, OW // s), dy.dtype)
        kernels.launch("upsample_backward", *cover_planes(dx.shape), contiguous(dy), dx, OH // s, OW // s, s)
        return dx


def upsample_nearest(x: Tensor, scale_factor: int = 2) -> Tensor:
    """Repeat every pixel, x (N, C, H, W) -> y (N, C, s H, s W)."""
    if x.ndim != 4:
        raise ValueError(f"upsample_nearest: expected x (N, C, H, W), got {x.shape}")
    if not isinstance(scale_factor, int | np.integer):
        raise TypeError(f"upsample_nearest: scale_factor must be a whole number, got {scale_factor}")
    if scale_factor < 1:
        raise ValueError(f"upsample_nearest: scale_factor must be at least 1, got {scale_factor}")
    return choose(UpsampleNearest, x.device)(scale_factor)(x)

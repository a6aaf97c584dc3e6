"""Nearest-neighbour up-sampling: every pixel becomes a square of s x s equal pixels.

y[i, j] = x[i // s, j // s]    =>    dx[i, j] = sum of dy over the square that pixel (i, j) became.
"""

from __future__ import annotations

from minidl.backend import Array
from minidl.tensor import Function, Tensor


class UpsampleNearest(Function):
    """Every pixel repeated to a square of s x s."""

    def __init__(self, scale_factor: int) -> None:
        self.scale_factor = scale_factor

    def forward(self, x: Array) -> Array:
        s = self.scale_factor
        return x.repeat(s, axis=2).repeat(s, axis=3)  # (N, C, H, W) -> (N, C, sH, sW)

    def backward(self, dy: Array) -> Array:
        s = self.scale_factor
        N, C, OH, OW = dy.shape
        return dy.reshape(N, C, OH // s, s, OW // s, s).sum(axis=(3, 5))  # -> (N, C, H, W)


def upsample_nearest(x: Tensor, scale_factor: int = 2) -> Tensor:
    """Repeat every pixel, x (N, C, H, W) -> y (N, C, s H, s W)."""
    if scale_factor < 1:
        raise ValueError(f"upsample_nearest: scale_factor must be at least 1, got {scale_factor}")
    return UpsampleNearest(scale_factor)(x)

"""Max-pooling: of each window of pixels, keep the largest.

    y[n,c,i,j] = max over kh,kw of x[n,c, SH i + kh - PH, SW j + kw - PW]

The output depends on one pixel a window only, the one that won, so that pixel takes the whole gradient
and the others none. If several are equal, the first in reading order wins; where windows overlap, a pixel
that won several sums their gradients. The border is padded with minus infinity, so that it never wins:
with zeros it would, wherever the image is negative.

What is kept for the backward pass is the number kh * KW + kw of the winner, one byte an output pixel.
"""

from __future__ import annotations

import math

import numpy as np

from minidl.backend import Array, Kernels, array_module, contiguous, device_of, runs_kernels
from minidl.ops.window import Pair, as_pair, output_size, windows
from minidl.tensor import Function, Tensor

kernels = Kernels(__file__)
TILE = (32, 8)  # threads of a block, along a row and down the columns


class MaxPool2d(Function):
    """The largest pixel of each window, and which one it was."""

    def __init__(self, kernel: Pair, stride: Pair, padding: Pair) -> None:
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def forward(self, x: Array) -> Array:
        (N, C, H, W), (PH, PW) = x.shape, self.padding
        OH, OW = output_size((H, W), self.kernel, self.stride, self.padding)
        self.shape = x.shape
        if runs_kernels(x):
            return self._forward_kernel(x, (N, C, OH, OW))
        padded = x
        if self.padding != (0, 0):
            padded = np.full((N, C, H + 2 * PH, W + 2 * PW), -np.inf, x.dtype)
            padded[:, :, PH : PH + H, PW : PW + W] = x
        y = np.full((N, C, OH, OW), -np.inf, x.dtype)
        self.winner = np.zeros(y.shape, np.min_scalar_type(self.kernel[0] * self.kernel[1]))
        for kh, kw, rows, columns in windows((H, W), self.kernel, self.stride, self.padding):
            candidate = padded[:, :, rows, columns].copy()  # (N, C, OH, OW), in a row: it is read twice
            larger = candidate > y  # not >=: of equal pixels the first one keeps the place
            number = self.winner.dtype.type(kh * self.kernel[1] + kw)
            # Numbers rise, so the last that was larger is a maximum, too: without the branch of an assignment
            # to the larger ones, which a processor guesses wrong for every other pixel, four times as fast.
            np.maximum(self.winner, larger * number, out=self.winner)
            np.maximum(y, candidate, out=y)
        return y

    def _forward_kernel(self, x: Array, shape: tuple[int, ...]) -> Array:
        if math.prod(self.kernel) > 255:
            raise ValueError(
                f"a window on {device_of(x)} has at most 255 pixels, got {self.kernel}; use the cpu"
            )
        xp = array_module(x)
        y, self.winner = xp.empty(shape, x.dtype), xp.empty(shape, xp.uint8)
        arguments = contiguous(x), y, self.winner, *self._sizes(shape)
        kernels.launch("max_pool2d_forward", *cover_planes(shape), *arguments)
        return y

    def backward(self, dy: Array) -> Array:
        if runs_kernels(dy):
            dx = array_module(dy).empty(self.shape, dy.dtype)
            arguments = contiguous(dy), self.winner, dx, *self._sizes(dy.shape)
            kernels.launch("max_pool2d_backward", *cover_planes(dx.shape), *arguments)
            return dx
        (N, C, H, W), (PH, PW) = self.shape, self.padding
        padded = np.zeros((N, C, H + 2 * PH, W + 2 * PW), dy.dtype)
        for kh, kw, rows, columns in windows((H, W), self.kernel, self.stride, self.padding):
            padded[:, :, rows, columns] += dy * (self.winner == kh * self.kernel[1] + kw)
        return padded[:, :, PH : PH + H, PW : PW + W]

    def _sizes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return H, W, OH, OW, KH, KW, SH, SW, PH, PW: what both kernels end with."""
        return *self.shape[2:], *shape[2:], *self.kernel, *self.stride, *self.padding


def cover_planes(shape: tuple[int, ...]) -> tuple[tuple[int, int, int], tuple[int, int]]:
    """Return the (grid, block) of a launch with a thread for every pixel of images (N, C, H, W).

    The first axis of the grid counts the N C planes, since CUDA allows it 2^31 blocks and the others 65535.
    """
    N, C, H, W = shape
    return (N * C, math.ceil(H / TILE[1]), math.ceil(W / TILE[0])), TILE


def max_pool2d(
    x: Tensor, kernel_size: int | Pair = 2, stride: int | Pair | None = None, padding: int | Pair = 0
) -> Tensor:
    """Keep the largest pixel of each window, x (N, C, H, W) -> y (N, C, OH, OW); stride is the window's size.

    Raises ValueError if the image is smaller than the window, or the padding more than half of it: a
    window could then hold nothing but padding. On a GPU also for windows of more than 255 pixels, whose
    number would not fit a byte.
    """
    kernel, padding = as_pair(kernel_size), as_pair(padding)
    stride = kernel if stride is None else as_pair(stride)
    if x.ndim != 4:
        raise ValueError(f"max_pool2d: want an image (N, C, H, W), got {x.shape}")
    if any(p < 0 or 2 * p > k for p, k in zip(padding, kernel, strict=True)) or min(*kernel, *stride) < 1:
        raise ValueError(
            "max_pool2d: want a window and a stride of at least 1 and padding up to half the window, got "
            f"{kernel}, {stride} and {padding}"
        )
    if min(output_size(x.shape[2:], kernel, stride, padding)) < 1:
        raise ValueError(f"max_pool2d: the {kernel} window does not fit the image {x.shape}")
    return MaxPool2d(kernel, stride, padding)(x)

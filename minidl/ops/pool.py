"""Max-pooling: keep the largest pixel of each window.

    y[n,c,i,j] = max over kh,kw of x[n,c, SH i + kh - PH, SW j + kw - PW]

The output depends on only one pixel of each window, the largest, so this pixel receives the whole gradient
and the others receive none. If several are equal, the first in reading order counts as the largest; where
windows overlap, a pixel that is the largest of several sums their gradients. The border is padded with minus
infinity, which is never the largest: zeros would be, wherever the image is negative.

For the backward pass, only the index kh KW + kw of the largest pixel of each window is stored.
"""

from __future__ import annotations

import math

import numpy as np

from minidl.backend import (
    CPU,
    GPU,
    Array,
    Kernels,
    address,
    array_module,
    contiguous,
    cover,
    cover_planes,
)
from minidl.implementation import choose, implements
from minidl.ops.window import Pair, as_pair, output_size, windows
from minidl.tensor import Function, Tensor

kernels = Kernels(__file__)


class MaxPool2d(Function):
    """The largest pixel of each window; its index in the window is stored for the backward pass."""

    def __init__(self, kernel: Pair, stride: Pair, padding: Pair) -> None:
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def forward(self, x: Array) -> Array:
        self.shape = x.shape
        padded, places = self.padded(x), windows(x.shape[2:], self.kernel, self.stride, self.padding)
        pixels = array_module(x).stack([padded[:, :, rows, columns] for _, _, rows, columns in places])
        self.winner = pixels.argmax(0)  # (KH KW, N, C, OH, OW) -> (N, C, OH, OW), the first of equal pixels
        return pixels.max(0)

    def backward(self, dy: Array) -> Array:
        (N, C, H, W), (PH, PW) = self.shape, self.padding
        padded = array_module(dy).zeros((N, C, H + 2 * PH, W + 2 * PW), dy.dtype)
        for kh, kw, rows, columns in windows((H, W), self.kernel, self.stride, self.padding):
            padded[:, :, rows, columns] += dy * (self.winner == kh * self.kernel[1] + kw)
        return padded[:, :, PH : PH + H, PW : PW + W]

    def padded(self, x: Array) -> Array:
        """Return x with a border of minus infinity, (N, C, H, W) -> (N, C, H + 2 PH, W + 2 PW)."""
        if self.padding == (0, 0):
            return x
        (N, C, H, W), (PH, PW) = x.shape, self.padding
        padded = array_module(x).full((N, C, H + 2 * PH, W + 2 * PW), -np.inf, x.dtype)
        padded[:, :, PH : PH + H, PW : PW + W] = x
        return padded


@implements(MaxPool2d, "running maximum", devices=CPU)
class RunningMaxPool2d(MaxPool2d):
    """Max-pooling that compares the pixels of a window one by one; an index usually takes one byte.

    Where a window contains a NaN, y is NaN, too, but the gradient may go to another pixel of the window.
    """

    def forward(self, x: Array) -> Array:
        self.shape, padded = x.shape, self.padded(x)
        size = output_size(x.shape[2:], self.kernel, self.stride, self.padding)
        y = np.full((*x.shape[:2], *size), -np.inf, x.dtype)
        self.winner = np.zeros(y.shape, np.min_scalar_type(self.kernel[0] * self.kernel[1]))
        for kh, kw, rows, columns in windows(x.shape[2:], self.kernel, self.stride, self.padding):
            candidate = padded[:, :, rows, columns].copy()  # (N, C, OH, OW), contiguous: it is read twice
            larger = candidate > y  # not >=: the first of equal pixels stays the largest
            number = self.winner.dtype.type(kh * self.kernel[1] + kw)
            # The index increases, so the last index at which `larger` was true is the maximum. Unlike
            # `winner[larger] = number`, this has no branch, which the processor would mispredict at every
            # other pixel; it is four times as fast.
            np.maximum(self.winner, larger * number, out=self.winner)
            np.maximum(y, candidate, out=y)
        return y


def index_fits_a_byte(kernel: Pair) -> bool:
    """Return whether the index of every pixel of a window fits into a byte, with one value to spare."""
    return math.prod(kernel) <= 255


@implements(MaxPool2d, "kernels", devices=GPU, can=index_fits_a_byte)
class MaxPool2dKernels(MaxPool2d):
    """Max-pooling by CUDA kernels, which store one byte per window."""

    def forward(self, x: Array) -> Array:
        self.shape, xp = x.shape, array_module(x)
        shape = (*x.shape[:2], *output_size(x.shape[2:], self.kernel, self.stride, self.padding))
        y, self.winner = xp.empty(shape, x.dtype), xp.empty(shape, xp.uint8)
        arrays = contiguous(x), y, self.winner
        if self._windows_tile(arrays[0]):
            self._launch_2x2("max_pool2d_forward_2x2", y.size, arrays)
        else:
            kernels.launch("max_pool2d_forward", *cover_planes(shape), *arrays, *self._sizes(shape))
        return y

    def backward(self, dy: Array) -> Array:
        dx = array_module(dy).empty(self.shape, dy.dtype)
        arrays = contiguous(dy), self.winner, dx
        if self._windows_tile(arrays[0]):
            self._launch_2x2("max_pool2d_backward_2x2", dy.size, arrays)
        else:
            sizes = self._sizes(dy.shape)
            kernels.launch("max_pool2d_backward", *cover_planes(dx.shape), *arrays, *sizes)
        return dx

    def _windows_tile(self, read: Array) -> bool:
        """Return whether 2x2 windows tile the image, as in a U-Net, and several numbers can be read at once.

        For this, the array must begin at a multiple of 16 bytes, as every array with its own memory does.
        """
        tiled = self.shape[2] % 2 == self.shape[3] % 4 == 0 and address(read) % 16 == 0
        return tiled and self.kernel == self.stride == (2, 2) and self.padding == (0, 0)

    def _launch_2x2(self, name: str, windows: int, arrays: tuple[Array, ...]) -> None:
        """Launch a thread for every two windows."""
        threads = windows // 2
        kernels.launch(name, *cover(threads), *arrays, threads, self.shape[3] // 4)

    def _sizes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return H, W, OH, OW, KH, KW, SH, SW, PH, PW, the last arguments of the kernels for any window."""
        return *self.shape[2:], *shape[2:], *self.kernel, *self.stride, *self.padding


def max_pool2d(
    x: Tensor, kernel_size: int | Pair = 2, stride: int | Pair | None = None, padding: int | Pair = 0
) -> Tensor:
    """Keep the largest pixel of each window, x (N, C, H, W) -> y (N, C, OH, OW).

    The default stride is the size of the window. Raises ValueError if the image is smaller than the
    window, or if the padding is more than half of it: a window could then consist of padding alone.
    """
    kernel, padding = as_pair(kernel_size), as_pair(padding)
    stride = kernel if stride is None else as_pair(stride)
    if x.ndim != 4:
        raise ValueError(f"max_pool2d: expected an image (N, C, H, W), got {x.shape}")
    if any(p < 0 or 2 * p > k for p, k in zip(padding, kernel, strict=True)) or min(*kernel, *stride) < 1:
        raise ValueError(
            "max_pool2d: expected a window and a stride of at least 1 and padding up to half the window, got "
            f"{kernel}, {stride} and {padding}"
        )
    if min(output_size(x.shape[2:], kernel, stride, padding)) < 1:
        raise ValueError(f"max_pool2d: the {kernel} window does not fit the image {x.shape}")
    return choose(MaxPool2d, x.device, kernel)(kernel, stride, padding)(x)

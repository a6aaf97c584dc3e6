"""Max-pooling: of each window of pixels, keep the largest.

    y[n,c,i,j] = max over kh,kw of x[n,c, SH i + kh - PH, SW j + kw - PW]

The output depends on one pixel a window only, the one that won, so that pixel takes the whole gradient
and the others none. If several are equal, the first in reading order wins; where windows overlap, a pixel
that won several sums their gradients. The border is padded with minus infinity, so that it never wins:
with zeros it would, wherever the image is negative.

What is kept for the backward pass is the number kh * KW + kw of the winner, one byte an output pixel.
"""

from __future__ import annotations

from minidl.backend import Array, array_module
from minidl.ops.conv import Pair, as_pair, output_size, windows
from minidl.tensor import Function, Tensor


class MaxPool2d(Function):
    """The largest pixel of each window, and which one it was."""

    def __init__(self, kernel: Pair, stride: Pair, padding: Pair) -> None:
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def forward(self, x: Array) -> Array:
        xp = array_module(x)
        (N, C, H, W), (PH, PW) = x.shape, self.padding
        OH, OW = output_size((H, W), self.kernel, self.stride, self.padding)
        padded = x
        if self.padding != (0, 0):
            padded = xp.full((N, C, H + 2 * PH, W + 2 * PW), -xp.inf, x.dtype)
            padded[:, :, PH : PH + H, PW : PW + W] = x
        y = xp.full((N, C, OH, OW), -xp.inf, x.dtype)
        winner = xp.zeros((N, C, OH, OW), xp.min_scalar_type(self.kernel[0] * self.kernel[1]))
        for kh, kw, rows, columns in windows((H, W), self.kernel, self.stride, self.padding):
            candidate = padded[:, :, rows, columns]  # (N, C, OH, OW)
            larger = candidate > y  # not >=: of equal pixels the first one keeps the place
            winner[larger] = kh * self.kernel[1] + kw
            y = xp.maximum(y, candidate)
        self.winner, self.shape = winner, x.shape
        return y

    def backward(self, dy: Array) -> Array:
        (N, C, H, W), (PH, PW) = self.shape, self.padding
        padded = array_module(dy).zeros((N, C, H + 2 * PH, W + 2 * PW), dy.dtype)
        for kh, kw, rows, columns in windows((H, W), self.kernel, self.stride, self.padding):
            padded[:, :, rows, columns] += dy * (self.winner == kh * self.kernel[1] + kw)
        return padded[:, :, PH : PH + H, PW : PW + W]


def max_pool2d(
    x: Tensor, kernel_size: int | Pair = 2, stride: int | Pair | None = None, padding: int | Pair = 0
) -> Tensor:
    """Keep the largest pixel of each window, x (N, C, H, W) -> y (N, C, OH, OW); stride is the window's size.

    Raises ValueError if the image is smaller than the window, or the padding more than half of it: a
    window could then hold nothing but padding.
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

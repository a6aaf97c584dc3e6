"""3x3 convolutions of stride 1 on the GPU: each thread computes a strip of pixels in 8 output channels.

Nearly all convolutions of a U-Net are of this kind. A multiprocessor does four multiply-adds in the time of
one read from shared memory, so a number that is in a register must serve many of them. In `strips.cu` a
thread computes ROWS x 8 outputs: a strip of ROWS pixels, one below the other, in 8 output channels. With
ROWS = 8 it reads 30 pixels and 72 weights for 576 multiply-adds in each input channel. The implicit GEMM
reads 9 pixels and 72 weights for 72.

**Reading ahead.** A block reads pixels, then multiplies them. All blocks that a GPU can hold begin together,
so they would all wait for the memory at the same time, and then all multiply. Therefore a block works in
*stages* of one to four input channels: while it multiplies those of one stage, the numbers of the next are on
their way. With 8 channels of 256 x 256 pixels, batch 16, this took 40 us instead of 52 on an H200.

The input gradient is a convolution of the same kind: each pixel of x was under weight (kh, kw) of the window
at (h + PH - kh, w + PW - kw), so

    dx[n,c,h,w] = sum over oc,kh,kw of w[oc,c,2-kh,2-kw] dy[n,oc, h + kh - (2 - PH), w + kw - (2 - PW)]

is a convolution of dy with padding 2 - PH and the window rotated by half a turn. The weight gradient is in
`columns.py`. One more version of the kernel computes the forward pass at stride 2, for `phases.py`.

**Which ROWS.** A tall strip saves reads, but there are fewer blocks. Measured on an H200, float32, batch 16,
microseconds for a forward pass; in parentheses the number of blocks:

| channels, size | ROWS 8 | ROWS 4 | ROWS 2 |
|---|---|---|---|
| 8, 256 x 256 | **40.2** (1024) | 42.5 (2048) | 48.1 (4096) |
| 16, 128 x 128 | **37.0** (512) | 39.2 (1024) | 44.7 (2048) |
| 32, 64 x 64 | 38.3 (256) | **38.0** (512) | 44.5 (1024) |
| 64, 32 x 32 | 45.4 (128) | **40.3** (256) | 44.1 (512) |

So `strip_rows` chooses the tallest strip that leaves BLOCKS = 256 blocks, about two for each of the 132
multiprocessors. This is the fastest one, or 1 % slower. The four layers then reach 59 to 64 % of the rate of
a large matrix product, and the input gradients take the same times, within 3 %.
"""

from __future__ import annotations

import math

from minidl.backend import GPU, Array, Kernels, array_module, contiguous
from minidl.implementation import implements
from minidl.ops.conv import columns
from minidl.ops.conv.definition import Conv2d, ConvTranspose2d
from minidl.ops.window import Pair, output_size

kernels = Kernels(__file__)

COLUMNS, STRIPS, TILE = 32, 4, 8  # as in strips.cu
ROWS = (8, 4, 2)  # pixels of a strip: the versions of the kernel
HALVING_ROWS = 2  # the same at stride 2: a stage of taller strips would be less than one channel
BLOCKS = 256  # that occupy a large GPU; see above
# The widest layer that was measured. A step of R2U-Net with 16 to 128 channels (256 x 256, batch 16) takes
# 29.1 ms as a CUDA graph on an H200, and 79.6 ms in PyTorch.
MAX_CHANNELS = 128


def convolve(x: Array, w: Array, b: Array | None, stride: Pair, padding: Pair) -> Array:
    """Return y, x (N, C, H, W), w (OC, C, 3, 3), b (OC,) -> y (N, OC, OH, OW)."""
    size = output_size(x.shape[2:], (3, 3), (1, 1), padding)
    rows = strip_rows(len(x), len(w), size)
    return launch(f"strips_forward_{rows}", rows, len(w), x, w, b, size, padding)


def input_gradient(dy: Array, w: Array, b: Array | None, size: Pair, stride: Pair, padding: Pair) -> Array:
    """Return dx, plus b (C,) if given, dy (N, OC, OH, OW), w (OC, C, 3, 3) -> dx (N, C, *size)."""
    rows, padding = strip_rows(len(dy), w.shape[1], size), (2 - padding[0], 2 - padding[1])
    return launch(f"strips_adjoint_{rows}", rows, w.shape[1], dy, w, b, size, padding)


def weight_gradient(x: Array, dy: Array, kernel: Pair, stride: Pair, padding: Pair) -> Array:
    """Return dw, summed over images, x (N, C, H, W), dy (N, OC, OH, OW) -> dw (OC, C, 3, 3)."""
    return columns.weight_gradient(x, dy, padding)


def halve(x: Array, w: Array, b: Array | None, padding: Pair) -> Array:
    """Return y at stride 2, x (N, C, H, W), w (OC, C, 3, 3), b (OC,) -> y (N, OC, OH, OW)."""
    size = output_size(x.shape[2:], (3, 3), (2, 2), padding)
    return launch("strips_halving", HALVING_ROWS, len(w), x, w, b, size, padding)


def launch(
    name: str, rows: int, OC: int, x: Array, w: Array, b: Array | None, size: Pair, padding: Pair
) -> Array:
    """Launch a kernel whose strips have this many rows, x (N, C, H, W) -> y (N, OC, *size)."""
    xp = array_module(x)
    N, C, H, W = x.shape
    y = xp.empty((N, OC, *size), x.dtype)
    b = xp.zeros(OC, x.dtype) if b is None else b
    arguments = contiguous(x), contiguous(w), b, y, C, H, W, OC, *size, *padding
    kernels.launch(name, grid(rows, N, OC, size), (COLUMNS, STRIPS), *arguments)
    return y


def grid(rows: int, N: int, OC: int, size: Pair) -> tuple[int, int, int]:
    """Return the number of patches, of tiles of channels and of images for strips of this many rows."""
    patches = math.ceil(size[0] / (STRIPS * rows)) * math.ceil(size[1] / COLUMNS)
    return patches, math.ceil(OC / TILE), N


def strip_rows(N: int, OC: int, size: Pair) -> int:
    """Return the rows of a strip: the most that leave BLOCKS blocks, or the fewest if none does."""
    enough = (rows for rows in ROWS if math.prod(grid(rows, N, OC, size)) >= BLOCKS)
    return next(enough, ROWS[-1])


def can(weight_shape: tuple[int, ...], stride: Pair, padding: Pair) -> bool:
    """Return whether this is a 3x3 convolution of stride 1, with a padding of at most 1."""
    return tuple(weight_shape[2:]) == (3, 3) and stride == (1, 1) and max(padding) <= 1


def pays(weight_shape: tuple[int, ...], stride: Pair, padding: Pair) -> bool:
    """Return whether the layer is not wider than those in which this was measured to be fast."""
    return max(weight_shape[:2]) <= MAX_CHANNELS


class StripPasses:
    """The three passes defined in this file."""

    convolve = staticmethod(convolve)
    input_gradient = staticmethod(input_gradient)
    weight_gradient = staticmethod(weight_gradient)


@implements(Conv2d, "strips", devices=GPU, can=can, pays=pays)
class StripConv2d(StripPasses, Conv2d):
    """Conv2d by strips."""


@implements(ConvTranspose2d, "strips", devices=GPU, can=can, pays=pays)
class StripConvTranspose2d(StripPasses, ConvTranspose2d):
    """ConvTranspose2d by strips."""

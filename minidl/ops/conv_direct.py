"""Convolution without `col`, for images whose ninefold copy would cost more than the products made with it.

The letters are those of `conv.py`, and so are the results; only the order of the sums differs. On the CPU,
row views stand in for the copies, for a stride of one: `conv_rows.py`. On the GPU, for any stride, the
kernels in `conv_direct.cu` gather each number of `col` just where it is multiplied; which thread owns which
part of which matrix is told there.
"""

from __future__ import annotations

import math

from minidl.backend import Array, Kernels, array_module, contiguous, runs_kernels
from minidl.ops import conv_rows
from minidl.ops.window import Pair, output_size

kernels = Kernels(__file__)

TILES = (8, 16, 32)  # output channels of a block: the versions of the kernel in conv_direct.cu
PIXELS = (
    128  # threads of a block: one pixel each, and whole warps that hold the SIDE x SIDE threads of a tile
)
SIDE = 8  # of a tile of the weight gradient, as in conv_direct.cu
BLOCKS = 2048  # enough to keep a large GPU busy
PIECE_PIXELS = (
    1024  # at least so many in a piece of the weight gradient: adding up at its end has a price too
)


def forward(x: Array, w: Array, b: Array | None, stride: Pair, padding: Pair) -> Array:
    """Convolve, x (N, C, H, W), w (OC, C, KH, KW), b (OC,) -> y (N, OC, OH, OW)."""
    if not runs_kernels(x):
        return conv_rows.forward(x, w, b, padding)
    size = output_size(x.shape[2:], w.shape[2:], stride, padding)
    return tiles_forward("forward", len(w), x, w, b, size, stride, padding)


def input_gradient(dy: Array, w: Array, b: Array | None, size: Pair, stride: Pair, padding: Pair) -> Array:
    """Return dx, dy (N, OC, OH, OW), w (OC, C, KH, KW) -> dx (N, C, H, W), plus b (C,): see `conv.py`."""
    if not runs_kernels(dy):
        return conv_rows.input_gradient(dy, w, b, padding)
    return tiles_forward("adjoint", w.shape[1], dy, w, b, size, stride, padding)


def weight_gradient(x: Array, dy: Array, kernel: Pair, stride: Pair, padding: Pair) -> Array:
    """Return dw, x (N, C, H, W), dy (N, OC, OH, OW) -> dw (OC, C, KH, KW)."""
    if not runs_kernels(x):
        return conv_rows.weight_gradient(x, dy, kernel, padding)
    return tiles_weight_gradient(x, dy, kernel, stride, padding)


def tiles_forward(
    direction: str, OC: int, x: Array, w: Array, b: Array | None, size: Pair, stride: Pair, padding: Pair
) -> Array:
    """Launch the kernel "forward" or "adjoint" for OC output channels, x (N, C, H, W) -> y (N, OC, *size)."""
    xp = array_module(x)
    x, w = contiguous(x), contiguous(w)
    N, C, H, W = x.shape
    y = xp.empty((N, OC, *size), x.dtype)
    b = xp.zeros(OC, x.dtype) if b is None else b
    tile = next((t for t in TILES if t >= OC), TILES[-1])
    grid = (math.ceil(size[0] * size[1] / PIXELS), math.ceil(OC / tile), N)
    sizes = C, H, W, OC, *size, *w.shape[2:], *stride, *padding
    kernels.launch(f"direct_{direction}_{tile}", grid, (PIXELS,), x, w, b, y, *sizes)
    return y


def tiles_weight_gradient(x: Array, dy: Array, kernel: Pair, stride: Pair, padding: Pair) -> Array:
    """Launch the kernel for dw and add its pieces up, x (N, C, H, W) -> dw (OC, C, KH, KW)."""
    x, dy = contiguous(x), contiguous(dy)
    (N, C, H, W), (_, OC, OH, OW) = x.shape, dy.shape
    tiles = math.ceil(C * kernel[0] * kernel[1] / SIDE), math.ceil(OC / SIDE)
    pieces = max(1, min(BLOCKS // (tiles[0] * tiles[1]), N * OH * OW // PIECE_PIXELS))
    parts = array_module(x).empty((pieces, OC, C, *kernel), x.dtype)
    sizes = N, C, H, W, OC, OH, OW, *kernel, *stride, *padding
    kernels.launch("direct_weight_gradient", (*tiles, pieces), (PIXELS,), x, dy, parts, *sizes)
    return parts.sum(axis=0)

"""Convolution without `col`, for images whose ninefold copy would cost more than the products made with it.

The letters are those of `conv.py`, and so are the results; only the order of the sums differs.

**On the CPU**, for a stride of one. im2col copies every pixel KH KW times, but two thirds of these copies are
needless: the rows of the image under weight kh are the rows under weight 0, moved down by kh, and a part
of an array that begins kh rows later is no copy but a view. So only the columns are copied, KW of them:

    stack (KW C, rows OW)     stack[kw, c, r, j] = x[c, r - PH, j + kw - PW], or 0 outside the image
    y = sum over kh of   w[:, :, kh, :] as (OC, KW C)   times   stack[:, from row kh on]

          kh = 0   +-----------+
                   |   stack   |  kh = 1   Three views of one stack, each OH rows high, stand in for the
                   |           |           nine copies: a third of the memory to write and to read.
                   +-----------+  kh = 2

The input gradient is the same function: pixel i of dx receives w[kh] from window i - kh + PH, and that is a
convolution of dy with the kernel flipped and its channels exchanged. The weight gradient for row kh is
the product of dy with the same view. All work goes image by image and in bands of rows, so that a band's
stack stays in the processor's cache.

**On the GPU**, for any stride, the kernels in `conv_direct.cu` gather each number of `col` just where it is
multiplied. Which thread owns which part of which matrix is told there.
"""

from __future__ import annotations

import math

import numpy as np

from minidl.allocator import short_buffers
from minidl.backend import Array, Kernels, array_module, contiguous, runs_kernels
from minidl.ops.window import Pair, output_size
from minidl.threads import for_each, get_threads

kernels = Kernels(__file__)

BAND_PIXELS = 4096  # at most so many of output in a band: few enough for the cache
SMALL_PRODUCT = 10**6  # multiply-adds; up to here OpenBLAS multiplies without rearranging the matrices first
SHARED_WORK = 1 << 23  # multiply-adds of a product worth a thread of its own; `minidl.threads` says why
PARTS = 4  # sums of the weight gradient that are kept apart, so that several threads can add
TILES = (8, 16, 32)  # output channels of a block: the versions of the kernel in conv_direct.cu
PIXELS = 128  # threads of a block, one pixel each
SIDE = 8  # of a tile of the weight gradient
BLOCKS = 2048  # enough to keep a large GPU busy
PIECE_PIXELS = 1024  # at least so many in a piece: adding a tile up at its end costs as much as some hundred


def forward(x: Array, w: Array, b: Array | None, stride: Pair, padding: Pair) -> Array:
    """Convolve, x (N, C, H, W), w (OC, C, KH, KW), b (OC,) -> y (N, OC, OH, OW). The CPU wants stride one."""
    if not runs_kernels(x):
        return rows_forward(x, w, b, padding)
    size = output_size(x.shape[2:], w.shape[2:], stride, padding)
    return tiles_forward("forward", len(w), x, w, b, size, stride, padding)


def input_gradient(dy: Array, w: Array, b: Array | None, size: Pair, stride: Pair, padding: Pair) -> Array:
    """Return dx, dy (N, OC, OH, OW), w (OC, C, KH, KW) -> dx (N, C, H, W), plus b (C,): see `conv.py`."""
    if not runs_kernels(dy):
        turned = w[:, :, ::-1, ::-1].swapaxes(0, 1)  # (C, OC, KH, KW), by half a turn
        return rows_forward(dy, turned, b, (w.shape[2] - 1 - padding[0], w.shape[3] - 1 - padding[1]))
    return tiles_forward("adjoint", w.shape[1], dy, w, b, size, stride, padding)


def weight_gradient(x: Array, dy: Array, kernel: Pair, stride: Pair, padding: Pair) -> Array:
    """Return dw, x (N, C, H, W), dy (N, OC, OH, OW) -> dw (OC, C, KH, KW)."""
    if not runs_kernels(x):
        return rows_weight_gradient(x, dy, kernel, padding)
    return tiles_weight_gradient(x, dy, kernel, stride, padding)


def bands(N: int, OH: int, OW: int, KH: int, weights: int) -> list[tuple[slice, int, int]]:
    """Return (images, first row, end row) of every band: several small images, or rows of a large one.

    `weights` are those of a row of the kernel; a product with them should have so few pixels that it is a
    small one. But a band also reads KH - 1 rows of its neighbour, so low ones would read most rows twice.
    """
    pixels = min(max(SMALL_PRODUCT // weights, BAND_PIXELS // 4), BAND_PIXELS)
    images = max(1, pixels // (OH * OW))
    most = max(pixels // OW, 4 * KH)
    height = math.ceil(OH / math.ceil(OH / most))  # of about one height all
    firsts = range(0, OH, height)
    return [(slice(n, n + images), i, min(i + height, OH)) for n in range(0, N, images) for i in firsts]


def shifted_columns(x: Array, rows: range, OW: int, KW: int, PW: int) -> Array:
    """Stack KW copies of some rows, each a column further: x (n, C, H, W) -> (n, KW C, len(rows) OW).

    Rows and columns outside the image are zeros.
    """
    n, C, H, W = x.shape
    first, end = max(rows.start, 0), min(rows.stop, H)
    stack = np.empty((n, KW, C, len(rows), OW), x.dtype)
    stack[:, :, :, : first - rows.start] = 0.0
    stack[:, :, :, max(end, first) - rows.start :] = 0.0
    for kw in range(KW):
        inside = stack[:, kw, :, first - rows.start : max(end, first) - rows.start]
        left, right = max(PW - kw, 0), min(W + PW - kw, OW)  # the columns of output that see the image
        inside[..., :left] = 0.0
        inside[..., max(left, right) :] = 0.0
        if left < right:
            inside[..., left:right] = x[:, :, first:end, left + kw - PW : right + kw - PW]
    return stack.reshape(n, KW * C, -1)


def threads_for(weights: int) -> int:
    """Return how many threads share a convolution with so many weights in a row of its kernel."""
    return get_threads() if weights * BAND_PIXELS >= SHARED_WORK else 1


@short_buffers()
def rows_forward(x: Array, w: Array, b: Array | None, padding: Pair) -> Array:
    """Convolve with stride one by row views, x (N, C, H, W), w (OC, C, KH, KW) -> y (N, OC, OH, OW)."""
    N, C, H, W = x.shape
    OC, _, KH, KW = w.shape
    PH, PW = padding
    OH, OW = output_size((H, W), (KH, KW), (1, 1), padding)
    y = np.empty((N, OC, OH, OW), x.dtype)
    matrices = np.ascontiguousarray(w.transpose(2, 0, 3, 1)).reshape(KH, OC, KW * C)

    def one_band(band: tuple[slice, int, int]) -> None:
        images, i, end = band
        pixels = (end - i) * OW
        stack = shifted_columns(x[images], range(i - PH, end - PH + KH - 1), OW, KW, PW)
        sums = y[images].reshape(-1, OC, OH * OW)[:, :, i * OW : end * OW]  # a view
        np.matmul(matrices[0], stack[:, :, :pixels], out=sums)
        product = np.empty(sums.shape, x.dtype)
        for kh in range(1, KH):
            sums += np.matmul(matrices[kh], stack[:, :, kh * OW : kh * OW + pixels], out=product)
        if b is not None:
            sums += b[:, None]

    for_each(one_band, bands(N, OH, OW, KH, C * KW * OC), threads_for(C * KW * OC))
    return y


def rows_weight_gradient(x: Array, dy: Array, kernel: Pair, padding: Pair) -> Array:
    """Return dw for stride one by row views, x (N, C, H, W), dy (N, OC, OH, OW) -> dw (OC, C, KH, KW)."""
    N, OC, OH, OW = dy.shape
    C, (KH, KW), (PH, PW) = x.shape[1], kernel, padding
    parts = np.zeros((PARTS, KH, KW * C, OC), x.dtype)
    all_bands = bands(N, OH, OW, KH, C * KW * OC)

    def one_part(part: int) -> None:
        for images, i, end in all_bands[part::PARTS]:
            pixels = (end - i) * OW
            stack = shifted_columns(x[images], range(i - PH, end - PH + KH - 1), OW, KW, PW)
            d = dy[images].reshape(-1, OC, OH * OW)[:, :, i * OW : end * OW].transpose(0, 2, 1)
            for kh in range(KH):
                parts[part, kh] += (stack[:, :, kh * OW : kh * OW + pixels] @ d).sum(axis=0)

    for_each(one_part, range(PARTS), threads_for(C * KW * OC))
    return np.ascontiguousarray(parts.sum(axis=0).reshape(KH, KW, C, OC).transpose(3, 2, 0, 1))


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

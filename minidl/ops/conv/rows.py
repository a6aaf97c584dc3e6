"""Convolution with a stride of 1 on the CPU, by views of rows: the sums of `col` with a third of its memory.

The notation and the results are those of `definition.py`; only the order of the sums differs. im2col copies
every pixel KH KW times, but not all of these copies are needed: the rows of the image under weight kh are the
rows under weight 0, moved down by kh, and the part of an array that starts kh rows later is a view, not a
copy. Therefore only KW shifted copies are made:

    stack[kw, c, r, j] = x[c, r - PH, j + kw - PW], or 0 outside the image

          kh = 0   +-----------+
                   |   stack   |  kh = 1   Three views of one stack, each OH rows high, replace the nine
                   |           |           copies: a third of the memory to write and to read.
                   +-----------+  kh = 2

The order of the stack in memory decides which products are possible.

**By row** (rows, KW, C, OW). The columns of `col` for output row i are then a view of (KH KW C) x OW numbers,
because the rows i to i + KH - 1 follow each other. Each row is one product:

    y[:, i] (OC, OW)  =  w as (OC, KH KW C)  times  stack[i : i + KH] as (KH KW C, OW)

**By channel** (KW, C, rows, OW). The pixels of many rows follow each other, for longer products, and KH of
them are added:

    y = sum over kh of   w[:, :, kh, :] as (OC, KW C)   times   stack[:, from row kh on] as (KW C, OH OW)

The first needs no additions and takes 10 to 40 % less time, unless many weights are multiplied by few
columns (`product_by_row`).

The input gradient is the same function: pixel i of dx receives w[kh] from window i - kh + PH, which is a
convolution of dy with the kernel rotated by 180 degrees and its channels exchanged. The weight gradient for
row kh is the product of dy and the same view, a sum over pixels, so its stack is by channel. Every pass works
in bands of rows, so that the stack of a band stays in the processor's cache.
"""

from __future__ import annotations

import math

import numpy as np

from minidl.allocator import short_buffers
from minidl.backend import CPU, Array
from minidl.implementation import implements
from minidl.ops.conv.definition import Conv2d, ConvTranspose2d
from minidl.ops.window import Pair, output_size
from minidl.threads import for_each, get_threads

SMALL_PRODUCT = 10**6  # multiply-adds; up to this size OpenBLAS multiplies without packing the matrices first
STACK_BYTES = 384 << 10  # of a stack by row, at most, if it has enough rows: it fits into a core's cache
BAND_PIXELS = 4096  # output pixels of a stack by channel, at most; also for the cache
SHORT_ROW, LONG_ROW = 32, 64  # pixels; see `product_by_row`
SHARED_WORK = 1 << 23  # multiply-adds from which a product is worth its own thread; see `minidl.threads`
PARTS = 4  # partial sums of the weight gradient, so that several threads can work


def bands(N: int, OH: int, OW: int, KH: int, pixels: int) -> list[tuple[slice, int, int]]:
    """Return (images, first row, end row) of every band: several small images, or some rows of a large image.

    A band has about so many output pixels. It also reads KH - 1 rows of its neighbour, so bands of few rows
    would read most rows twice.
    """
    images = max(1, pixels // (OH * OW))
    max_rows = max(pixels // OW, 3 * KH)
    height = math.ceil(OH / math.ceil(OH / max_rows))  # all bands of about the same height
    firsts = range(0, OH, height)
    return [(slice(n, n + images), i, min(i + height, OH)) for n in range(0, N, images) for i in firsts]


def small_product_pixels(work: int) -> int:
    """Return the pixels of a small product with `work` multiply-adds for each pixel, within limits."""
    return min(max(SMALL_PRODUCT // work, BAND_PIXELS // 4), BAND_PIXELS)


def product_by_row(KH: int, OW: int, work: int) -> bool:
    """Return whether one product for each row is faster, with KH `work` multiply-adds for each pixel.

    A short row is too few columns for so many weights. If a product is not small, OpenBLAS packs the weights
    again for each row, which only a long row makes up for.
    """
    return KH > 1 and OW >= SHORT_ROW and (OW >= LONG_ROW or KH * work * OW <= SMALL_PRODUCT)


def fill_stack(stack: Array, x: Array, rows: range, PW: int) -> None:
    """Write KW copies of some rows, each shifted by a column: x (n, C, H, W) -> (n, KW, C, len(rows), OW).

    Rows and columns outside the image are zeros.
    """
    H, W = x.shape[2:]
    KW, OW = stack.shape[1], stack.shape[4]
    first, end = max(rows.start, 0), min(rows.stop, H)
    if first > rows.start:
        stack[:, :, :, : first - rows.start] = 0.0
    if end < rows.stop:
        stack[:, :, :, max(end, first) - rows.start :] = 0.0
    for kw in range(KW):
        inside = stack[:, kw, :, first - rows.start : max(end, first) - rows.start]
        left, right = max(PW - kw, 0), min(W + PW - kw, OW)  # output columns whose pixel is inside the image
        if left > 0:
            inside[..., :left] = 0.0
        if right < OW:
            inside[..., max(left, right) :] = 0.0
        if left < right:
            inside[..., left:right] = x[:, :, first:end, left + kw - PW : right + kw - PW]


def columns_by_row(x: Array, rows: range, OW: int, KH: int, KW: int, PW: int) -> Array:
    """Return the columns of each output row, x (n, C, H, W) -> (n, output rows, KH KW C, OW), a view."""
    n, C = x.shape[:2]
    stack = np.empty((n, len(rows), KW, C, OW), x.dtype)
    fill_stack(stack.transpose(0, 2, 3, 1, 4), x, rows, PW)
    image, row, _, channel, pixel = stack.strides
    shape, strides = (n, len(rows) - KH + 1, KH * KW * C, OW), (image, row, channel, pixel)
    return np.ndarray(shape, x.dtype, stack, strides=strides)


def columns_by_channel(x: Array, rows: range, OW: int, KH: int, KW: int, PW: int) -> Array:
    """Return the columns of a band for each kh, x (n, C, H, W) -> (KH, n, KW C, output pixels), a view."""
    n, C = x.shape[:2]
    if KH == KW == 1:  # no shifts, and `can` excludes padding
        return x.reshape(1, n, C, -1)[..., rows.start * OW : rows.stop * OW]
    stack = np.empty((n, KW, C, len(rows), OW), x.dtype)
    fill_stack(stack, x, rows, PW)
    image, _, channel, row, pixel = stack.strides
    shape, strides = (KH, n, KW * C, (len(rows) - KH + 1) * OW), (row, image, channel, pixel)
    return np.ndarray(shape, x.dtype, stack, strides=strides)


def threads_for(work: int) -> int:
    """Return how many threads share a convolution with this number of multiply-adds for each pixel."""
    return get_threads() if work * BAND_PIXELS >= SHARED_WORK else 1


@short_buffers()
def convolve(x: Array, w: Array, b: Array | None, stride: Pair, padding: Pair) -> Array:
    """Return y = w col + b, x (N, C, H, W), w (OC, C, KH, KW), b (OC,) -> y (N, OC, OH, OW), for stride 1."""
    N, C, H, W = x.shape
    OC, _, KH, KW = w.shape
    PH, PW = padding
    OH, OW = output_size((H, W), (KH, KW), (1, 1), padding)
    y = np.empty((N, OC, OH, OW), x.dtype)
    matrix = np.ascontiguousarray(w.transpose(0, 2, 3, 1)).reshape(OC, KH * KW * C)
    matrices = matrix.reshape(OC, KH, KW * C).swapaxes(0, 1)  # (KH, OC, KW C)
    work = C * KW * OC
    by_row = product_by_row(KH, OW, work)
    pixels = STACK_BYTES // (KW * C * x.itemsize) if by_row else small_product_pixels(work)

    def one_band(band: tuple[slice, int, int]) -> None:
        images, i, end = band
        part = x[images], range(i - PH, end - PH + KH - 1), OW, KH, KW, PW
        out = y[images, :, i:end]  # (n, OC, rows, OW), a view
        if by_row:
            np.matmul(matrix, columns_by_row(*part), out=out.swapaxes(1, 2))
        else:
            columns = columns_by_channel(*part)
            sums = y[images].reshape(-1, OC, OH * OW)[:, :, i * OW : end * OW]  # a view
            np.matmul(matrices[0], columns[0], out=sums)
            product = np.empty(sums.shape, x.dtype)
            for kh in range(1, KH):
                sums += np.matmul(matrices[kh], columns[kh], out=product)
        if b is not None:
            out += b[:, None, None]

    for_each(one_band, bands(N, OH, OW, KH, pixels), threads_for(work))
    return y


def input_gradient(dy: Array, w: Array, b: Array | None, size: Pair, stride: Pair, padding: Pair) -> Array:
    """Return dx, plus b (C,) if given, dy (N, OC, OH, OW), w (OC, C, KH, KW) -> dx (N, C, *size)."""
    rotated = w[:, :, ::-1, ::-1].swapaxes(0, 1)  # (C, OC, KH, KW)
    return convolve(dy, rotated, b, stride, (w.shape[2] - 1 - padding[0], w.shape[3] - 1 - padding[1]))


def weight_gradient(x: Array, dy: Array, kernel: Pair, stride: Pair, padding: Pair) -> Array:
    """Return dw, summed over images, x (N, C, H, W), dy (N, OC, OH, OW) -> dw (OC, C, KH, KW)."""
    N, OC, OH, OW = dy.shape
    C, (KH, KW), (PH, PW) = x.shape[1], kernel, padding
    parts = np.zeros((PARTS, KH, KW * C, OC), x.dtype)
    all_bands = bands(N, OH, OW, KH, small_product_pixels(C * KW * OC))

    def one_part(part: int) -> None:
        for images, i, end in all_bands[part::PARTS]:
            columns = columns_by_channel(x[images], range(i - PH, end - PH + KH - 1), OW, KH, KW, PW)
            d = dy[images].reshape(-1, OC, OH * OW)[:, :, i * OW : end * OW].transpose(0, 2, 1)
            parts[part] += (columns @ d).sum(axis=1)  # (KH, n, KW C, OC) -> (KH, KW C, OC)

    for_each(one_part, range(PARTS), threads_for(C * KW * OC))
    return np.ascontiguousarray(parts.sum(axis=0).reshape(KH, KW, C, OC).transpose(3, 2, 0, 1))


def can(weight_shape: tuple[int, ...], stride: Pair, padding: Pair) -> bool:
    """Return whether views can replace the copies: a stride of 1, and less padding than kernel."""
    return stride == (1, 1) and padding[0] < weight_shape[2] and padding[1] < weight_shape[3]


class RowPasses:
    """The three passes defined in this file."""

    convolve = staticmethod(convolve)
    input_gradient = staticmethod(input_gradient)
    weight_gradient = staticmethod(weight_gradient)


@implements(Conv2d, "rows", devices=CPU, can=can)
class RowConv2d(RowPasses, Conv2d):
    """Conv2d by views of rows."""


@implements(ConvTranspose2d, "rows", devices=CPU, can=can)
class RowConvTranspose2d(RowPasses, ConvTranspose2d):
    """ConvTranspose2d by views of rows."""

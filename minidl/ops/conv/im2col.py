"""The definition of convolution with CUDA kernels for `im2col` and `col2im`; matrix products are cuBLAS's.

The definition in array code needs a launch for every weight of the window. Here one launch copies all of col.
The columns of several images stand side by side, of as many as fit into `PIECE_BYTES`, n at a time:

    col (C KH KW, n OH OW),    y = w col,    dw = dy col^T,    dcol = w^T dy

Each pass is then one large matrix product, and that of dw also sums over the images. cuBLAS reads a
transposed matrix without a copy. One product for each image would need copies of transposed operands and a
sum in the end, and small products do not occupy a GPU. The price is that images must be rearranged, from
(n, OC, OH OW) to (OC, n OH OW) and back: y while the bias is added, dy by a copy. Both are small compared
with col. Which thread copies which number is explained in `im2col.cu`.

For a 1x1 window of stride 1, col would be as large as x, and nothing but a copy of it. So y = w x and
dx = w^T dy are batches of products, one for each image, without col and without rearranging. dw needs the
images side by side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from minidl.backend import (
    GPU,
    THREADS,
    Array,
    Kernels,
    array_module,
    contiguous,
    cover,
    cover_planes,
    device_of,
)
from minidl.implementation import implements
from minidl.ops.conv import implicit_gemm
from minidl.ops.conv.definition import Conv2d, ConvTranspose2d, add_bias
from minidl.ops.window import Pair, output_size

kernels = Kernels(__file__)

# Bytes of `col` at a time: enough work to fill the thousands of cores of a GPU.
PIECE_BYTES = {"cuda": 256 << 20, "cuda-on-cpu": 4 << 20}
CHANNELS = 4  # that a thread of `col2im` owns, as in im2col.cu
PIXELS = 4  # that a thread of `side_by_side` copies


def im2col(x: Array, kernel: Pair, stride: Pair, padding: Pair) -> Array:
    """Copy the window of every output pixel into a column, x (N, C, H, W) -> col (C KH KW, N OH OW)."""
    (N, C, H, W), (KH, KW) = x.shape, kernel
    OH, OW = output_size((H, W), kernel, stride, padding)
    col = array_module(x).empty((C * KH * KW, N * OH * OW), x.dtype)
    threads, sizes = N * C * OH * OW, (N, H, W, KH, KW, *stride, *padding, OH, OW)
    kernels.launch("im2col", *cover(threads), contiguous(x), col, threads, *sizes)
    return col


def col2im(
    col: Array, size: Pair, kernel: Pair, stride: Pair, padding: Pair, out: Array | None = None
) -> Array:
    """Add every column to its window, the adjoint of im2col: col (C KH KW, N OH OW) -> x (N, C, H, W).

    With `out`, x is written there.
    """
    OH, OW = output_size(size, kernel, stride, padding)
    N, C = col.shape[1] // (OH * OW), col.shape[0] // (kernel[0] * kernel[1])
    x = array_module(col).empty((N, C, *size), col.dtype) if out is None else out
    sizes = *x.shape, *kernel, *stride, *padding, OH, OW
    shares = N, math.ceil(C / CHANNELS), *size
    kernels.launch("col2im", *cover_planes(shares), contiguous(col), x, *sizes)
    return x


def side_by_side(images: Array) -> Array:
    """Return images side by side, (n, C, H, W) or (n, C, H W) -> (C, n H W); a copy, unless n or C is 1."""
    n, C = images.shape[:2]
    if 1 in (n, C):
        return images.reshape(C, -1)
    copy = array_module(images).empty((C, images.size // C), images.dtype)
    HW = copy.shape[1] // n
    grid = n * C, math.ceil(HW / (PIXELS * THREADS))
    kernels.launch("side_by_side", grid, (THREADS,), contiguous(images), copy, n, C, HW)
    return copy


def pieces(x: Array, rows: int, OH: int, OW: int) -> Iterator[slice]:
    """Yield slices of the batch, of at least one image, for which `col` stays within PIECE_BYTES."""
    step = max(1, PIECE_BYTES[device_of(x)] // (rows * OH * OW * x.itemsize))
    for start in range(0, len(x), step):
        yield slice(start, start + step)


def is_one_pixel(kernel: Pair, stride: Pair, padding: Pair) -> bool:
    """Return whether each window is one pixel, and each pixel one window, so that im2col would only copy."""
    return tuple(kernel) == stride == (1, 1) and padding == (0, 0)


def convolve(x: Array, w: Array, b: Array | None, stride: Pair, padding: Pair) -> Array:
    """Return y = w col + b, x (N, C, H, W), w (OC, C, KH, KW), b (OC,) -> y (N, OC, OH, OW)."""
    N, OC, kernel = len(x), len(w), w.shape[2:]
    OH, OW = output_size(x.shape[2:], kernel, stride, padding)
    xp, matrix = array_module(x), w.reshape(OC, -1)  # (OC, C KH KW)
    if is_one_pixel(kernel, stride, padding):
        images = matrix @ x.reshape(N, -1, OH * OW)  # (OC, C) (N, C, H W)
        return add_bias(images.reshape(N, OC, OH, OW), b)
    y = xp.empty((N, OC, OH, OW), x.dtype)
    for piece in pieces(x, matrix.shape[1], OH, OW):
        product = matrix @ im2col(x[piece], kernel, stride, padding)  # (OC, n OH OW)
        images = product.reshape(OC, -1, OH, OW).swapaxes(0, 1)  # (n, OC, OH, OW), a view
        xp.add(images, 0 if b is None else b[:, None, None], out=y[piece])
    return y


def input_gradient(dy: Array, w: Array, b: Array | None, size: Pair, stride: Pair, padding: Pair) -> Array:
    """Return dx = col2im(w^T dy) + b, dy (N, OC, OH, OW), w (OC, C, KH, KW) -> dx (N, C, *size)."""
    N, OC, OH, OW = dy.shape
    transposed = w.reshape(OC, -1).T  # (C KH KW, OC)
    if is_one_pixel(w.shape[2:], stride, padding):
        images = transposed @ dy.reshape(N, OC, -1)  # (C, OC) (N, OC, H W)
        return add_bias(images.reshape(N, -1, *size), b)
    dx = array_module(dy).empty((N, w.shape[1], *size), dy.dtype)
    for piece in pieces(dy, len(transposed), OH, OW):
        dcol = transposed @ side_by_side(dy[piece])  # (C KH KW, n OH OW)
        col2im(dcol, size, w.shape[2:], stride, padding, out=dx[piece])
    return add_bias(dx, b)


def weight_gradient(x: Array, dy: Array, kernel: Pair, stride: Pair, padding: Pair) -> Array:
    """Return dw = dy col^T, summed over images, x (N, C, H, W), dy (N, OC, OH, OW) -> (OC, C, KH, KW)."""
    (_, OC, OH, OW), C, (KH, KW) = dy.shape, x.shape[1], kernel
    one_pixel = is_one_pixel(kernel, stride, padding)
    parts = []
    for piece in pieces(x, C * KH * KW, OH, OW):
        col = side_by_side(x[piece]) if one_pixel else im2col(x[piece], kernel, stride, padding)
        parts.append(side_by_side(dy[piece]) @ col.T)  # (OC, C KH KW)
    return sum(parts[1:], start=parts[0]).reshape(OC, C, KH, KW)


def pays(weight_shape: tuple[int, ...], stride: Pair, padding: Pair) -> bool:
    """Return whether the matrix product is large enough to be faster than the implicit GEMM."""
    return not implicit_gemm.pays(weight_shape, stride, padding)


class Im2colPasses:
    """The three passes defined in this file."""

    convolve = staticmethod(convolve)
    input_gradient = staticmethod(input_gradient)
    weight_gradient = staticmethod(weight_gradient)


@implements(Conv2d, "im2col", devices=GPU, pays=pays)
class Im2colConv2d(Im2colPasses, Conv2d):
    """Conv2d by im2col."""


@implements(ConvTranspose2d, "im2col", devices=GPU, pays=pays)
class Im2colConvTranspose2d(Im2colPasses, ConvTranspose2d):
    """ConvTranspose2d by im2col."""

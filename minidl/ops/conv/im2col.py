"""The definition of convolution with CUDA kernels for `im2col` and `col2im`; matrix products are cuBLAS's.

The definition in array code needs a launch for every weight of the window. Here one launch copies all of col,
and several images go into one batched matrix product, as many as fit into `PIECE_BYTES`. Which thread copies
which number is explained in `im2col.cu`.
"""

from __future__ import annotations

from collections.abc import Iterator

from minidl.backend import GPU, Array, Kernels, array_module, contiguous, cover, device_of
from minidl.implementation import implements
from minidl.ops.conv import implicit_gemm
from minidl.ops.conv.definition import Conv2d, ConvTranspose2d, add_bias
from minidl.ops.window import Pair, output_size

kernels = Kernels(__file__)

# Bytes of `col` at a time: enough work to fill the thousands of cores of a GPU.
PIECE_BYTES = {"cuda": 256 << 20, "cuda-on-cpu": 4 << 20}


def im2col(x: Array, kernel: Pair, stride: Pair, padding: Pair) -> Array:
    """Copy the window of every output pixel into a column, x (N, C, H, W) -> col (N, C KH KW, OH OW)."""
    (N, C, H, W), (KH, KW) = x.shape, kernel
    OH, OW = output_size((H, W), kernel, stride, padding)
    col = array_module(x).empty((N, C * KH * KW, OH * OW), x.dtype)
    threads, sizes = N * C * OH * OW, (H, W, KH, KW, *stride, *padding, OH, OW)
    kernels.launch("im2col", *cover(threads), contiguous(x), col, threads, *sizes)
    return col


def col2im(col: Array, size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Array:
    """Add every column to its window, the adjoint of im2col: col (N, C KH KW, OH OW) -> x (N, C, H, W)."""
    OH, OW = output_size(size, kernel, stride, padding)
    x = array_module(col).empty((len(col), col.shape[1] // (kernel[0] * kernel[1]), *size), col.dtype)
    sizes = *size, *kernel, *stride, *padding, OH, OW
    kernels.launch("col2im", *cover(x.size), contiguous(col), x, x.size, *sizes)
    return x


def pieces(x: Array, rows: int, OH: int, OW: int) -> Iterator[slice]:
    """Yield slices of the batch, of at least one image, for which `col` stays within PIECE_BYTES."""
    step = max(1, PIECE_BYTES[device_of(x)] // (rows * OH * OW * x.itemsize))
    for start in range(0, len(x), step):
        yield slice(start, start + step)


def convolve(x: Array, w: Array, b: Array | None, stride: Pair, padding: Pair) -> Array:
    """Return y = w col + b, x (N, C, H, W), w (OC, C, KH, KW), b (OC,) -> y (N, OC, OH, OW)."""
    N, OC, kernel = len(x), len(w), w.shape[2:]
    OH, OW = output_size(x.shape[2:], kernel, stride, padding)
    xp = array_module(x)
    y = xp.empty((N, OC, OH * OW), x.dtype)
    matrix = w.reshape(OC, -1)  # (OC, C KH KW)
    for piece in pieces(x, matrix.shape[1], OH, OW):
        col = im2col(x[piece], kernel, stride, padding)  # (n, C KH KW, OH OW)
        xp.matmul(matrix, col, out=y[piece])  # (n, OC, OH OW)
    return add_bias(y.reshape(N, OC, OH, OW), b)


def input_gradient(dy: Array, w: Array, b: Array | None, size: Pair, stride: Pair, padding: Pair) -> Array:
    """Return dx = col2im(w^T dy) + b, dy (N, OC, OH, OW), w (OC, C, KH, KW) -> dx (N, C, *size)."""
    N, OC, OH, OW = dy.shape
    dx = array_module(dy).empty((N, w.shape[1], *size), dy.dtype)
    transposed = w.reshape(OC, -1).T  # (C KH KW, OC)
    for piece in pieces(dy, len(transposed), OH, OW):
        dcol = transposed @ dy[piece].reshape(-1, OC, OH * OW)  # (n, C KH KW, OH OW)
        dx[piece] = col2im(dcol, size, w.shape[2:], stride, padding)
    return add_bias(dx, b)


def weight_gradient(x: Array, dy: Array, kernel: Pair, stride: Pair, padding: Pair) -> Array:
    """Return dw = (col dy^T)^T, summed over images, x (N, C, H, W), dy (N, OC, OH, OW) -> (OC, C, KH, KW).

    For a batch of products CuPy copies a transposed operand, so the small dy is transposed and not col.
    """
    (_, OC, OH, OW), C, (KH, KW) = dy.shape, x.shape[1], kernel
    transposed = array_module(x).zeros((C * KH * KW, OC), x.dtype)  # dw^T
    for piece in pieces(x, len(transposed), OH, OW):
        col = im2col(x[piece], kernel, stride, padding)  # (n, C KH KW, OH OW)
        pixels = dy[piece].reshape(-1, OC, OH * OW).transpose(0, 2, 1)  # (n, OH OW, OC)
        transposed += (col @ pixels).sum(axis=0)
    return contiguous(transposed.T).reshape(OC, C, KH, KW)


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

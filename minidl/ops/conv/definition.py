"""Convolution and its adjoint, the transposed convolution: the definition, which runs on every device.

Notation, here and in every kernel:

    x   (N, C, H, W)        N images of C channels, H rows, W columns
    w   (OC, C, KH, KW)     a kernel: one C x KH x KW window of weights per output channel
    y   (N, OC, OH, OW)     OH = (H + 2 PH - KH) // SH + 1, and OW likewise

               W + 2 PW                    The window moves by the stride, SH rows and SW columns, over the
        +------------------+               image, which is padded with PH rows and PW columns of zeros on each
        | +---+            |               side. Where its corner is at (SH i, SW j), one output pixel is
     H  | |   | KH         |
     +  | +---+   -> SW    |                 y[n,o,i,j] = sum over c,kh,kw of
    2PH |  KW              |                              w[o,c,kh,kw] x[n,c, SH i + kh - PH, SW j + kw - PW]
        |                  |
        +------------------+               (strictly a cross-correlation: the kernel is not flipped).

**As a matrix product.** Write the pixels under the window of one output pixel as a column, and these columns
side by side: `col` (C KH KW, OH OW). Then y = w col is a single matrix product, which a processor computes at
full speed. `im2col` builds col from x. It only copies, so it is a linear map, and its adjoint `col2im` adds
every element of col to the pixel that it was copied from.

**The gradients** are those of a matrix product, y = w col:

    dcol = w^T dy    =>    dx = col2im(dcol)          each pixel sums the gradients of all its copies
    dw   = dy col^T                                   summed over the images of the batch
    db   = dy summed over images and pixels

**The transposed convolution** is by definition the map dy -> dx above: the adjoint of a convolution. It turns
OH x OW pixels back into H x W pixels, and with stride 2 it doubles an image. Its own adjoint is the
convolution, so the three passes of `ConvTranspose2d` are those of `Conv2d` with the roles exchanged.

**Memory.** col is KH KW times as large as x: 144 MiB for a 3x3 window and 64 channels of 256 x 256 pixels. It
is therefore never stored: each pass processes the batch image by image, and the backward pass rebuilds it.

The faster implementations are beside this file; `__init__.py` lists them. Each has the same three passes
under the same names: `convolve`, `input_gradient` and `weight_gradient`.
"""

from __future__ import annotations

from minidl.backend import Array, array_module
from minidl.ops.window import Pair, output_size, transposed_output_size, windows
from minidl.tensor import Function


def im2col(x: Array, kernel: Pair, stride: Pair, padding: Pair) -> Array:
    """Copy the window of every output pixel into a column, x (N, C, H, W) -> col (N, C KH KW, OH OW)."""
    xp = array_module(x)
    (N, C, H, W), (KH, KW), (PH, PW) = x.shape, kernel, padding
    OH, OW = output_size((H, W), kernel, stride, padding)
    padded = xp.zeros((N, C, H + 2 * PH, W + 2 * PW), x.dtype)
    padded[:, :, PH : PH + H, PW : PW + W] = x
    col = xp.empty((N, C, KH, KW, OH, OW), x.dtype)
    for kh, kw, rows, columns in windows((H, W), kernel, stride, padding):
        col[:, :, kh, kw] = padded[:, :, rows, columns]
    return col.reshape(N, C * KH * KW, OH * OW)


def col2im(col: Array, size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Array:
    """Add every column to its window, the adjoint of im2col: col (N, C KH KW, OH OW) -> x (N, C, H, W)."""
    (H, W), (KH, KW), (PH, PW) = size, kernel, padding
    OH, OW = output_size(size, kernel, stride, padding)
    N, C = col.shape[0], col.shape[1] // (KH * KW)
    col = col.reshape(N, C, KH, KW, OH, OW)
    padded = array_module(col).zeros((N, C, H + 2 * PH, W + 2 * PW), col.dtype)
    for kh, kw, rows, columns in windows(size, kernel, stride, padding):
        padded[:, :, rows, columns] += col[:, :, kh, kw]
    return padded[:, :, PH : PH + H, PW : PW + W]


def convolve(x: Array, w: Array, b: Array | None, stride: Pair, padding: Pair) -> Array:
    """Return y = w col + b, x (N, C, H, W), w (OC, C, KH, KW), b (OC,) -> y (N, OC, OH, OW)."""
    N, OC, kernel = len(x), len(w), w.shape[2:]
    OH, OW = output_size(x.shape[2:], kernel, stride, padding)
    y = array_module(x).empty((N, OC, OH * OW), x.dtype)
    for n in range(N):
        col = im2col(x[n : n + 1], kernel, stride, padding)[0]  # (C KH KW, OH OW)
        y[n] = w.reshape(OC, -1) @ col  # (OC, C KH KW) (C KH KW, OH OW)
    return add_bias(y.reshape(N, OC, OH, OW), b)


def input_gradient(dy: Array, w: Array, b: Array | None, size: Pair, stride: Pair, padding: Pair) -> Array:
    """Return dx = col2im(w^T dy), dy (N, OC, OH, OW), w (OC, C, KH, KW) -> dx (N, C, H, W), size = (H, W).

    A gradient has no bias, but this map is also the transposed convolution, which may have one: b (C,).
    """
    N, OC, OH, OW = dy.shape
    dx = array_module(dy).empty((N, w.shape[1], *size), dy.dtype)
    for n in range(N):
        dcol = w.reshape(OC, -1).T @ dy[n].reshape(OC, OH * OW)  # (C KH KW, OH OW)
        dx[n] = col2im(dcol[None], size, w.shape[2:], stride, padding)[0]
    return add_bias(dx, b)


def weight_gradient(x: Array, dy: Array, kernel: Pair, stride: Pair, padding: Pair) -> Array:
    """Return dw = dy col^T, summed over images, x (N, C, H, W), dy (N, OC, OH, OW) -> (OC, C, KH, KW)."""
    (N, C), (_, OC, OH, OW), (KH, KW) = x.shape[:2], dy.shape, kernel
    dw = array_module(x).zeros((OC, C * KH * KW), x.dtype)
    for n in range(N):
        col = im2col(x[n : n + 1], kernel, stride, padding)[0]  # (C KH KW, OH OW)
        dw += dy[n].reshape(OC, OH * OW) @ col.T
    return dw.reshape(OC, C, KH, KW)


def add_bias(y: Array, b: Array | None) -> Array:
    """Add one number to every pixel of an output channel, in place; nothing else refers to y yet."""
    if b is not None:
        y += b[:, None, None]
    return y


def bias_gradient(dy: Array, needs: tuple[bool, ...]) -> tuple[Array | None, ...]:
    """Return db (OC,) as a tuple, the third gradient; an empty tuple without a bias."""
    # Pixels first, then images: the pixels of a channel are contiguous, which makes the sum fast.
    return tuple(dy.sum(axis=(2, 3)).sum(axis=0) if needed else None for needed in needs[2:])


class Passes:
    """The three passes of both operations; a faster implementation replaces these and nothing else.

    All implementations take the same arguments, even where one does not need them all.
    """

    convolve = staticmethod(convolve)
    input_gradient = staticmethod(input_gradient)
    weight_gradient = staticmethod(weight_gradient)


class Conv2d(Passes, Function):
    """y = w col + b, and its three gradients, each computed only if it is needed."""

    def __init__(self, stride: Pair = (1, 1), padding: Pair = (0, 0)) -> None:
        self.stride, self.padding = stride, padding

    def forward(self, x: Array, w: Array, b: Array | None = None) -> Array:
        self.x, self.w = x, w
        return self.convolve(x, w, b, self.stride, self.padding)

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        x, w, stride, padding = self.x, self.w, self.stride, self.padding
        dx = self.input_gradient(dy, w, None, x.shape[2:], stride, padding) if self.needs[0] else None
        dw = self.weight_gradient(x, dy, w.shape[2:], stride, padding) if self.needs[1] else None
        return (dx, dw, *bias_gradient(dy, self.needs))


class ConvTranspose2d(Passes, Function):
    """The adjoint of Conv2d: its input is Conv2d's dy, and its output is Conv2d's dx."""

    def __init__(self, stride: Pair = (1, 1), padding: Pair = (0, 0), output_padding: Pair = (0, 0)) -> None:
        self.stride, self.padding, self.output_padding = stride, padding, output_padding

    def forward(self, x: Array, w: Array, b: Array | None = None) -> Array:
        self.x, self.w = x, w
        stride, padding = self.stride, self.padding
        size = transposed_output_size(x.shape[2:], w.shape[2:], stride, padding, self.output_padding)
        return self.input_gradient(x, w, b, size, stride, padding)

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        x, w, stride, padding = self.x, self.w, self.stride, self.padding
        dx = self.convolve(dy, w, None, stride, padding) if self.needs[0] else None
        dw = self.weight_gradient(dy, x, w.shape[2:], stride, padding) if self.needs[1] else None
        return (dx, dw, *bias_gradient(dy, self.needs))

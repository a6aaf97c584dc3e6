"""Convolution and its adjoint, the transposed convolution.

The letters, here and in every kernel:

    x   (N, C, H, W)        N images of C channels, H rows, W columns
    w   (OC, C, KH, KW)     one C x KH x KW window of weights for each of OC output channels
    y   (N, OC, OH, OW)     OH = (H + 2 PH - KH) // SH + 1, and OW likewise

               W + 2 PW                    The window steps by SH rows and SW columns over the image, which
        +------------------+               has PH rows and PW columns of zeros around it. Where its corner
        | +---+            |               is at (SH i, SW j), one output pixel is
     H  | |   | KH         |
     +  | +---+   -> SW    |                 y[n,o,i,j] = sum over c,kh,kw of
    2PH |  KW              |                              w[o,c,kh,kw] x[n,c, SH i + kh - PH, SW j + kw - PW]
        |                  |
        +------------------+               (a cross-correlation: nobody flips the kernel any more).

**As a matrix product.** Write all the pixels that one output pixel looks at as a column, and all those
columns side by side: `col` (C KH KW, OH OW). Then y = w col, one product of matrices, which a processor
does at full speed. `im2col` builds col from x; it only copies, so it is a linear map, and its adjoint
`col2im` adds every element of col back to the pixel it was copied from.

**The gradients** are those of a matrix product, y = w col:

    dcol = w^T dy    =>    dx = col2im(dcol)          each pixel sums what all its copies received
    dw   = dy col^T                                   summed over the images of the batch
    db   = dy summed over images and pixels

dw is computed as its transpose, dw^T = col dy^T, so that the small dy is transposed and not the large col:
for a batch of products CuPy copies whatever is.

**The transposed convolution** is by definition the map x -> dx above: the adjoint of a convolution, which
turns OH x OW pixels back into H x W and so, with stride 2, doubles an image. Its own adjoint is then the
convolution: all three passes of `ConvTranspose2d` are passes of `Conv2d` with the roles exchanged.

**Memory.** col is KH KW times larger than x: 144 MiB for 64 channels of 256 x 256. It is rebuilt in the
backward pass, never stored, and the batch is worked through in pieces, small enough on the CPU to stay in
the processor's cache.

**Two methods.** im2col is the definition, the general case and the one to read first. `conv_direct.py`
computes the same sums without building col. `convolution("im2col")`, or "direct", chooses between them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from minidl.backend import Array, Kernels, array_module, contiguous, cover, device_of, runs_kernels
from minidl.ops import conv_direct
from minidl.ops.window import Pair, as_pair, output_size, transposed_output_size, windows
from minidl.tensor import Function, Tensor

kernels = Kernels(__file__)

# Bytes of `col` at a time. A CPU wants it in its cache; a GPU wants enough work to fill thousands of cores.
PIECE_BYTES = {"cpu": 4 << 20, "cuda": 256 << 20, "cuda-on-cpu": 4 << 20}

METHODS = ("auto", "im2col", "direct")
_method: ContextVar[str] = ContextVar("method", default="auto")


@contextlib.contextmanager
def convolution(method: str) -> Iterator[None]:
    """Convolve by one of METHODS inside this block; "auto", the default, takes the faster one.

    The results agree to rounding. Raises ValueError for another method.
    """
    if method not in METHODS:
        raise ValueError(f"unknown convolution method {method!r}; choose from {', '.join(METHODS)}")
    token = _method.set(method)
    try:
        yield
    finally:
        _method.reset(token)


def use_direct(method: str, x: Array, weight_shape: tuple[int, ...], stride: Pair, padding: Pair) -> bool:
    """Return whether a convolution of x goes the direct way.

    On the CPU that way exists for a stride of one and less padding than kernel. On the GPU it exists
    always; there "auto" takes it for up to 64 channels on either side, beyond which its blocks would gather
    the same pixels too often: one large product of matrices should be faster then. That number is
    reckoned, not measured.
    """
    if method == "im2col":
        return False
    OC, C, KH, KW = weight_shape
    if runs_kernels(x):
        return method == "direct" or max(OC, C) <= 64
    return stride == (1, 1) and padding[0] < KH and padding[1] < KW


def im2col(x: Array, kernel: Pair, stride: Pair, padding: Pair) -> Array:
    """Lay the window of every output pixel out as a column, x (N, C, H, W) -> col (N, C KH KW, OH OW)."""
    xp = array_module(x)
    (N, C, H, W), (KH, KW), (PH, PW) = x.shape, kernel, padding
    OH, OW = output_size((H, W), kernel, stride, padding)
    col = xp.empty((N, C, KH, KW, OH, OW), x.dtype)
    if runs_kernels(x):
        threads, sizes = N * C * OH * OW, (H, W, KH, KW, *stride, PH, PW, OH, OW)
        kernels.launch("im2col", *cover(threads), contiguous(x), col, threads, *sizes)
    else:
        padded = xp.zeros((N, C, H + 2 * PH, W + 2 * PW), x.dtype)
        padded[:, :, PH : PH + H, PW : PW + W] = x
        for kh, kw, rows, columns in windows((H, W), kernel, stride, padding):
            col[:, :, kh, kw] = padded[:, :, rows, columns]
    return col.reshape(N, C * KH * KW, OH * OW)


def col2im(col: Array, size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Array:
    """Add every column back to its window, im2col's adjoint: col (N, C KH KW, OH OW) -> x (N, C, H, W)."""
    xp = array_module(col)
    (H, W), (KH, KW), (PH, PW) = size, kernel, padding
    OH, OW = output_size(size, kernel, stride, padding)
    N, C = col.shape[0], col.shape[1] // (KH * KW)
    if runs_kernels(col):
        x = xp.empty((N, C, H, W), col.dtype)
        sizes = H, W, KH, KW, *stride, PH, PW, OH, OW
        kernels.launch("col2im", *cover(x.size), contiguous(col), x, x.size, *sizes)
        return x
    col = col.reshape(N, C, KH, KW, OH, OW)
    padded = xp.zeros((N, C, H + 2 * PH, W + 2 * PW), col.dtype)
    for kh, kw, rows, columns in windows(size, kernel, stride, padding):
        padded[:, :, rows, columns] += col[:, :, kh, kw]
    return padded[:, :, PH : PH + H, PW : PW + W]


def pieces(x: Array, rows: int, OH: int, OW: int) -> Iterator[slice]:
    """Yield slices of the batch, of at least one image, for which `col` stays within PIECE_BYTES."""
    step = max(1, PIECE_BYTES[device_of(x)] // (rows * OH * OW * x.itemsize))
    for start in range(0, len(x), step):
        yield slice(start, start + step)


def conv2d_forward(
    x: Array, w: Array, b: Array | None, stride: Pair, padding: Pair, method: str = "im2col"
) -> Array:
    """Convolve raw arrays, y = w col + b, x (N, C, H, W), w (OC, C, KH, KW), b (OC,) -> y (N, OC, OH, OW)."""
    if use_direct(method, x, w.shape, stride, padding):
        return conv_direct.forward(x, w, b, stride, padding)
    N, OC, kernel = len(x), len(w), w.shape[2:]
    OH, OW = output_size(x.shape[2:], kernel, stride, padding)
    xp = array_module(x)
    y = xp.empty((N, OC, OH * OW), x.dtype)
    matrix = w.reshape(OC, -1)  # (OC, C KH KW)
    for piece in pieces(x, matrix.shape[1], OH, OW):
        col = im2col(x[piece], kernel, stride, padding)  # (n, C KH KW, OH OW)
        xp.matmul(matrix, col, out=y[piece])  # (n, OC, OH OW)
    return add_bias(y.reshape(N, OC, OH, OW), b)


def conv2d_input_gradient(
    dy: Array, w: Array, b: Array | None, size: Pair, stride: Pair, padding: Pair, method: str = "im2col"
) -> Array:
    """Return dx = col2im(w^T dy), dy (N, OC, OH, OW), w (OC, C, KH, KW) -> dx (N, C, H, W), size = (H, W).

    A gradient has no bias, but this map is also the transposed convolution, which may: b (C,).
    """
    if use_direct(method, dy, w.shape, stride, padding):
        return conv_direct.input_gradient(dy, w, b, size, stride, padding)
    N, OC, OH, OW = dy.shape
    dx = array_module(dy).empty((N, w.shape[1], *size), dy.dtype)
    transposed = w.reshape(OC, -1).T  # (C KH KW, OC)
    for piece in pieces(dy, len(transposed), OH, OW):
        dcol = transposed @ dy[piece].reshape(-1, OC, OH * OW)  # (n, C KH KW, OH OW)
        dx[piece] = col2im(dcol, size, w.shape[2:], stride, padding)
    return add_bias(dx, b)


def conv2d_weight_gradient(
    x: Array, dy: Array, kernel: Pair, stride: Pair, padding: Pair, method: str = "im2col"
) -> Array:
    """Return dw = (col dy^T)^T, summed over images, x (N, C, H, W), dy (N, OC, OH, OW) -> (OC, C, KH, KW)."""
    _, OC, OH, OW = dy.shape
    C = x.shape[1]
    if use_direct(method, x, (OC, C, *kernel), stride, padding):
        return conv_direct.weight_gradient(x, dy, kernel, stride, padding)
    transposed = array_module(x).zeros((C * kernel[0] * kernel[1], OC), x.dtype)  # dw^T
    for piece in pieces(x, len(transposed), OH, OW):
        col = im2col(x[piece], kernel, stride, padding)  # (n, C KH KW, OH OW)
        pixels = dy[piece].reshape(-1, OC, OH * OW).transpose(0, 2, 1)  # (n, OH OW, OC)
        transposed += (col @ pixels).sum(axis=0)
    return contiguous(transposed.T).reshape(OC, C, *kernel)


def add_bias(y: Array, b: Array | None) -> Array:
    """Add one number to every pixel of an output channel, in place: nobody else has y yet."""
    if b is not None:
        y += b[:, None, None]
    return y


def bias_gradient(dy: Array, needs: tuple[bool, ...]) -> tuple[Array | None, ...]:
    """Return db (OC,), alone in a tuple as the third gradient, or no third one where there is no bias."""
    # Pixels first and images then: the pixels of a channel lie side by side, and sums like that.
    return tuple(dy.sum(axis=(2, 3)).sum(axis=0) if needed else None for needed in needs[2:])


class Conv2d(Function):
    """y = w col + b: the three gradients of the docstring above, each where it is asked for."""

    def __init__(self, stride: Pair = (1, 1), padding: Pair = (0, 0)) -> None:
        self.settings = stride, padding, _method.get()

    def forward(self, x: Array, w: Array, b: Array | None = None) -> Array:
        self.x, self.w = x, w
        return conv2d_forward(x, w, b, *self.settings)

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        x, w = self.x, self.w
        dx = conv2d_input_gradient(dy, w, None, x.shape[2:], *self.settings) if self.needs[0] else None
        dw = conv2d_weight_gradient(x, dy, w.shape[2:], *self.settings) if self.needs[1] else None
        return (dx, dw, *bias_gradient(dy, self.needs))


class ConvTranspose2d(Function):
    """The adjoint of Conv2d: what is `dy` there is the input here, and what is `dx` there is the output."""

    def __init__(self, stride: Pair = (1, 1), padding: Pair = (0, 0), output_padding: Pair = (0, 0)) -> None:
        self.settings, self.output_padding = (stride, padding, _method.get()), output_padding

    def forward(self, x: Array, w: Array, b: Array | None = None) -> Array:
        self.x, self.w = x, w
        stride, padding, _ = self.settings
        size = transposed_output_size(x.shape[2:], w.shape[2:], stride, padding, self.output_padding)
        return conv2d_input_gradient(x, w, b, size, *self.settings)

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        x, w = self.x, self.w
        dx = conv2d_forward(dy, w, None, *self.settings) if self.needs[0] else None
        dw = conv2d_weight_gradient(dy, x, w.shape[2:], *self.settings) if self.needs[1] else None
        return (dx, dw, *bias_gradient(dy, self.needs))


def conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | Pair = 1, padding: int | Pair = 0
) -> Tensor:
    """Convolve, x (N, C, H, W), weight (OC, C, KH, KW), bias (OC,) -> y (N, OC, OH, OW).

    Raises ValueError if the shapes do not fit. The number of output rows is (H + 2 PH - KH) // SH + 1.
    """
    stride, padding = as_pair(stride), as_pair(padding)
    check_shapes("conv2d", x, weight, bias, channel_axis=1, bias_axis=0, stride=stride, padding=padding)
    if min(output_size(x.shape[2:], weight.shape[2:], stride, padding)) < 1:
        raise ValueError(
            f"conv2d: the {weight.shape[2:]} window does not fit the image {x.shape} with padding {padding}"
        )
    return Conv2d(stride, padding)(*(t for t in (x, weight, bias) if t is not None))


def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    output_padding: int | Pair = 0,
) -> Tensor:
    """Apply the adjoint of conv2d, x (N, C, H, W), weight (C, OC, KH, KW), bias (OC,) -> y (N, OC, OH, OW).

    OH = (H - 1) SH - 2 PH + KH + output_padding, and OW likewise; output_padding < stride chooses among the
    sizes that a convolution of this stride would map to the same H. Raises ValueError if shapes do not fit.
    """
    stride, padding, extra = as_pair(stride), as_pair(padding), as_pair(output_padding)
    check_shapes(
        "conv_transpose2d", x, weight, bias, channel_axis=0, bias_axis=1, stride=stride, padding=padding
    )
    if not all(0 <= e < s for e, s in zip(extra, stride, strict=True)):
        raise ValueError(f"conv_transpose2d: output_padding {extra} must be smaller than the stride {stride}")
    if min(transposed_output_size(x.shape[2:], weight.shape[2:], stride, padding, extra)) < 1:
        raise ValueError(f"conv_transpose2d: nothing is left of {x.shape} after cropping padding {padding}")
    return ConvTranspose2d(stride, padding, extra)(*(t for t in (x, weight, bias) if t is not None))


def check_shapes(
    name: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    channel_axis: int,
    bias_axis: int,
    stride: Pair,
    padding: Pair,
) -> None:
    """Raise ValueError, naming the operation and the shapes, unless image, weight and bias fit together."""
    if x.ndim != 4 or weight.ndim != 4:
        raise ValueError(f"{name}: want 4 axes each, got the image {x.shape} and the weight {weight.shape}")
    if x.shape[1] != weight.shape[channel_axis]:
        raise ValueError(
            f"{name}: the image {x.shape} has {x.shape[1]} channels, the weight {weight.shape} wants "
            f"{weight.shape[channel_axis]}"
        )
    if bias is not None and bias.shape != (weight.shape[bias_axis],):
        raise ValueError(f"{name}: want a bias of ({weight.shape[bias_axis]},), got {bias.shape}")
    if min(stride) < 1 or min(padding) < 0:
        raise ValueError(f"{name}: want stride >= 1 and padding >= 0, got {stride} and {padding}")

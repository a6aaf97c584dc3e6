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

**The transposed convolution** is by definition the map x -> dx above: the adjoint of a convolution, which
turns OH x OW pixels back into H x W and so, with stride 2, doubles an image. Its own adjoint is then the
convolution: all three passes of `ConvTranspose2d` are passes of `Conv2d` with the roles exchanged.

**Memory.** col is KH KW times larger than x: 144 MiB for 64 channels of 256 x 256. It is rebuilt in the
backward pass, never stored, and the batch is worked through in pieces small enough to stay in the
processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterator

from minidl.backend import Array, array_module, device_of
from minidl.tensor import Function, Tensor

Pair = tuple[int, int]

# Bytes of `col` at a time. A CPU wants it in its cache; a GPU wants enough work to fill thousands of cores.
PIECE_BYTES = {"cpu": 4 << 20, "cuda": 256 << 20}


def output_size(size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Pair:
    """Return (OH, OW), the number of places where the window fits, for an image of (H, W)."""
    (H, W), (KH, KW), (SH, SW), (PH, PW) = size, kernel, stride, padding
    return (H + 2 * PH - KH) // SH + 1, (W + 2 * PW - KW) // SW + 1


def windows(size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Iterator[tuple[int, int, slice, slice]]:
    """Yield (kh, kw, rows, columns): the pixels of the padded image under weight (kh, kw), for all windows.

    Loops over the KH KW weights and never over pixels: nine steps for a 3x3 kernel.
    """
    OH, OW = output_size(size, kernel, stride, padding)
    for kh in range(kernel[0]):
        for kw in range(kernel[1]):
            yield kh, kw, slice(kh, kh + stride[0] * OH, stride[0]), slice(kw, kw + stride[1] * OW, stride[1])


def im2col(x: Array, kernel: Pair, stride: Pair, padding: Pair) -> Array:
    """Lay the window of every output pixel out as a column, x (N, C, H, W) -> col (N, C KH KW, OH OW)."""
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
    """Add every column back to its window, im2col's adjoint: col (N, C KH KW, OH OW) -> x (N, C, H, W)."""
    (H, W), (KH, KW), (PH, PW) = size, kernel, padding
    OH, OW = output_size(size, kernel, stride, padding)
    N, C = col.shape[0], col.shape[1] // (KH * KW)
    col = col.reshape(N, C, KH, KW, OH, OW)
    padded = array_module(col).zeros((N, C, H + 2 * PH, W + 2 * PW), col.dtype)
    for kh, kw, rows, columns in windows(size, kernel, stride, padding):
        padded[:, :, rows, columns] += col[:, :, kh, kw]
    return padded[:, :, PH : PH + H, PW : PW + W]


def pieces(x: Array, w: Array, OH: int, OW: int) -> Iterator[slice]:
    """Yield slices of the batch for which `col` stays within PIECE_BYTES, at least one image each."""
    N = x.shape[0]
    image_bytes = w[0].size * OH * OW * w.itemsize
    step = max(1, PIECE_BYTES[device_of(x)] // image_bytes)
    for start in range(0, N, step):
        yield slice(start, start + step)


def conv2d_forward(x: Array, w: Array, stride: Pair, padding: Pair) -> Array:
    """Convolve raw arrays, y = w col, x (N, C, H, W), w (OC, C, KH, KW) -> y (N, OC, OH, OW)."""
    N, OC, kernel = len(x), len(w), w.shape[2:]
    OH, OW = output_size(x.shape[2:], kernel, stride, padding)
    y = array_module(x).empty((N, OC, OH * OW), x.dtype)
    matrix = w.reshape(OC, -1)  # (OC, C KH KW)
    for piece in pieces(x, w, OH, OW):
        y[piece] = matrix @ im2col(x[piece], kernel, stride, padding)  # (n, OC, OH OW)
    return y.reshape(N, OC, OH, OW)


def conv2d_input_gradient(dy: Array, w: Array, size: Pair, stride: Pair, padding: Pair) -> Array:
    """Return dx = col2im(w^T dy), dy (N, OC, OH, OW), w (OC, C, KH, KW) -> dx (N, C, H, W), size = (H, W)."""
    N, OC, OH, OW = dy.shape
    C, kernel = w.shape[1], w.shape[2:]
    if stride == (1, 1) and padding[0] < kernel[0] and padding[1] < kernel[1]:
        # Pixel i of dx receives w[kh] from the windows i - kh + PH, which is a convolution too: of dy,
        # with the kernel flipped and its channels exchanged. It gathers where col2im scatters.
        flipped = w[:, :, ::-1, ::-1].swapaxes(0, 1)  # (C, OC, KH, KW)
        return conv2d_forward(dy, flipped, stride, (kernel[0] - 1 - padding[0], kernel[1] - 1 - padding[1]))
    dx = array_module(dy).empty((N, C, *size), dy.dtype)
    transposed = w.reshape(OC, -1).T  # (C KH KW, OC)
    for piece in pieces(dy, w, OH, OW):
        dcol = transposed @ dy[piece].reshape(-1, OC, OH * OW)  # (n, C KH KW, OH OW)
        dx[piece] = col2im(dcol, size, kernel, stride, padding)
    return dx


def conv2d_weight_gradient(x: Array, dy: Array, kernel: Pair, stride: Pair, padding: Pair) -> Array:
    """Return dw = sum over images of dy col^T, x (N, C, H, W), dy (N, OC, OH, OW) -> dw (OC, C, KH, KW)."""
    N, OC, OH, OW = dy.shape
    dw = array_module(x).zeros((OC, x.shape[1], *kernel), x.dtype)
    for piece in pieces(x, dw, OH, OW):
        col = im2col(x[piece], kernel, stride, padding)  # (n, C KH KW, OH OW)
        product = dy[piece].reshape(-1, OC, OH * OW) @ col.transpose(0, 2, 1)  # (n, OC, C KH KW)
        dw += product.sum(axis=0).reshape(dw.shape)
    return dw


def add_bias(y: Array, b: Array | None) -> Array:
    """Add one number to every pixel of an output channel, in place: nobody else has y yet."""
    if b is not None:
        y += b[:, None, None]
    return y


def bias_gradient(dy: Array, needs: tuple[bool, ...]) -> tuple[Array | None, ...]:
    """Return db (OC,), alone in a tuple as the third gradient, or no third one where there is no bias."""
    return tuple(dy.sum(axis=(0, 2, 3)) if needed else None for needed in needs[2:])


class Conv2d(Function):
    """y = w col + b: the three gradients of the docstring above, each where it is asked for."""

    def __init__(self, stride: Pair = (1, 1), padding: Pair = (0, 0)) -> None:
        self.stride, self.padding = stride, padding

    def forward(self, x: Array, w: Array, b: Array | None = None) -> Array:
        self.x, self.w = x, w
        return add_bias(conv2d_forward(x, w, self.stride, self.padding), b)

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        x, w, settings = self.x, self.w, (self.stride, self.padding)
        dx = conv2d_input_gradient(dy, w, x.shape[2:], *settings) if self.needs[0] else None
        dw = conv2d_weight_gradient(x, dy, w.shape[2:], *settings) if self.needs[1] else None
        return (dx, dw, *bias_gradient(dy, self.needs))


class ConvTranspose2d(Function):
    """The adjoint of Conv2d: what is `dy` there is the input here, and what is `dx` there is the output."""

    def __init__(self, stride: Pair = (1, 1), padding: Pair = (0, 0), output_padding: Pair = (0, 0)) -> None:
        self.stride, self.padding, self.output_padding = stride, padding, output_padding

    def forward(self, x: Array, w: Array, b: Array | None = None) -> Array:
        self.x, self.w = x, w
        size = transposed_output_size(
            x.shape[2:], w.shape[2:], self.stride, self.padding, self.output_padding
        )
        return add_bias(conv2d_input_gradient(x, w, size, self.stride, self.padding), b)

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        x, w, settings = self.x, self.w, (self.stride, self.padding)
        dx = conv2d_forward(dy, w, *settings) if self.needs[0] else None
        dw = conv2d_weight_gradient(dy, x, w.shape[2:], *settings) if self.needs[1] else None
        return (dx, dw, *bias_gradient(dy, self.needs))


def transposed_output_size(size: Pair, kernel: Pair, stride: Pair, padding: Pair, extra: Pair) -> Pair:
    """Return the (H, W) whose convolution has `size`. With a stride several have; `extra` picks one."""
    settings = zip(size, kernel, stride, padding, extra, strict=True)
    return tuple((n - 1) * s - 2 * p + k + e for n, k, s, p, e in settings)


def as_pair(value: int | Pair) -> Pair:
    """Turn 3 into (3, 3), and leave (3, 1) as it is."""
    return (int(value),) * 2 if hasattr(value, "__index__") else tuple(value)


def conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | Pair = 1, padding: int | Pair = 0
) -> Tensor:
    """Convolve, x (N, C, H, W), weight (OC, C, KH, KW), bias (OC,) -> y (N, OC, OH, OW).

    Raises ValueError if the shapes do not fit. The number of output rows is (H + 2 PH - KH) // SH + 1.
    """
    stride, padding = as_pair(stride), as_pair(padding)
    check_shapes("conv2d", x, weight, bias, channels=1, bias_axis=0, stride=stride, padding=padding)
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
    check_shapes("conv_transpose2d", x, weight, bias, channels=0, bias_axis=1, stride=stride, padding=padding)
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
    channels: int,
    bias_axis: int,
    stride: Pair,
    padding: Pair,
) -> None:
    """Raise ValueError, naming the operation and the shapes, unless image, weight and bias fit together."""
    if x.ndim != 4 or weight.ndim != 4:
        raise ValueError(f"{name}: want 4 axes each, got the image {x.shape} and the weight {weight.shape}")
    if x.shape[1] != weight.shape[channels]:
        raise ValueError(
            f"{name}: the image {x.shape} has {x.shape[1]} channels, the weight {weight.shape} wants "
            f"{weight.shape[channels]}"
        )
    if bias is not None and bias.shape != (weight.shape[bias_axis],):
        raise ValueError(f"{name}: want a bias of ({weight.shape[bias_axis]},), got {bias.shape}")
    if min(stride) < 1 or min(padding) < 0:
        raise ValueError(f"{name}: want stride >= 1 and padding >= 0, got {stride} and {padding}")

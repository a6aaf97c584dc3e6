"""Convolution and transposed convolution: the functions to call, and the choice of how they are computed.

| file | implementation | device |
|---|---|---|
| `definition.py` | im2col and a matrix product; read this file first | every device |
| `rows.py` | views of rows replace most copies | CPU, stride 1, padding smaller than the window |
| `strips.py`, `.cu` | a strip of pixels in 8 channels in registers | GPU, 3x3, stride 1, up to 128 channels |
| `columns.py`, `.cu` | its weight gradient: a window walks down a column | the same |
| `phases.py`, `.cu` | stride 2: strips, columns, and 2x2 pixels at a time | GPU, 3x3, up to 128 channels |
| `pointwise.py`, `.cu` | a product at every pixel | GPU, 1x1, stride 1, up to 256 channels |
| `implicit_gemm.py`, `.cu` | any window and stride, without building `col` | GPU, up to 128 channels |
| `parts.py`, `.cu` | the sum over the parts of a weight gradient | GPU |
| `im2col.py`, `.cu` | the definition, with kernels for the copies | GPU, other layers |
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from minidl.implementation import choose, implementation
from minidl.ops.conv import im2col, implicit_gemm, rows, strips  # noqa: F401  (importing registers them)
from minidl.ops.conv.definition import Conv2d, ConvTranspose2d
from minidl.ops.window import Pair, as_pair, output_size, transposed_output_size
from minidl.tensor import Tensor

# The values of the option --conv, and the names of their implementations.
METHODS = {
    "auto": (),
    "im2col": ("im2col",),
    "direct": ("rows", "strips", "phases", "pointwise", "implicit GEMM"),
}


def convolution(method: str) -> AbstractContextManager[None]:
    """Use one of METHODS for convolutions inside this block; the results agree up to rounding.

    "im2col" builds col, and "direct" avoids it where an implementation can. "auto" changes nothing: the one
    that should be faster runs, or the one that an outer block asks for. Raises ValueError for another method.
    """
    if method not in METHODS:
        raise ValueError(f"unknown convolution method {method!r}; choose from {', '.join(METHODS)}")
    if method == "auto":
        return nullcontext()
    return implementation(*METHODS[method], of=(Conv2d, ConvTranspose2d))


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
    operation = choose(Conv2d, x.device, weight.shape, stride, padding)
    return operation(stride, padding)(*(t for t in (x, weight, bias) if t is not None))


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
    sizes that a convolution with this stride would map to the same H. Raises ValueError if shapes do not fit.
    """
    stride, padding, extra = as_pair(stride), as_pair(padding), as_pair(output_padding)
    check_shapes(
        "conv_transpose2d", x, weight, bias, channel_axis=0, bias_axis=1, stride=stride, padding=padding
    )
    if not all(0 <= e < s for e, s in zip(extra, stride, strict=True)):
        raise ValueError(f"conv_transpose2d: output_padding {extra} must be smaller than the stride {stride}")
    if min(transposed_output_size(x.shape[2:], weight.shape[2:], stride, padding, extra)) < 1:
        raise ValueError(f"conv_transpose2d: nothing is left of {x.shape} after cropping padding {padding}")
    operation = choose(ConvTranspose2d, x.device, weight.shape, stride, padding)
    return operation(stride, padding, extra)(*(t for t in (x, weight, bias) if t is not None))


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
        raise ValueError(
            f"{name}: expected 4 axes each, got the image {x.shape} and the weight {weight.shape}"
        )
    if x.shape[1] != weight.shape[channel_axis]:
        raise ValueError(
            f"{name}: the image {x.shape} has {x.shape[1]} channels, the weight {weight.shape} expects "
            f"{weight.shape[channel_axis]}"
        )
    if bias is not None and bias.shape != (weight.shape[bias_axis],):
        raise ValueError(f"{name}: expected a bias of ({weight.shape[bias_axis]},), got {bias.shape}")
    if min(stride) < 1 or min(padding) < 0:
        raise ValueError(f"{name}: expected stride >= 1 and padding >= 0, got {stride} and {padding}")

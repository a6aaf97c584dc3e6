"""Convolution on the GPU without `col`: an implicit GEMM, for any stride.

A GEMM is a general matrix-matrix product. This one is implicit because its operand `col` is never built: the
kernels read each element of col from the image at the moment when it is multiplied. The notation and the
results are those of `definition.py`; which thread owns which part of which matrix is explained in
`implicit_gemm.cu`.
"""

from __future__ import annotations

import math

from minidl.backend import GPU, Array, Kernels, array_module, contiguous
from minidl.implementation import implements
from minidl.ops.conv import phases, pointwise, strips  # noqa: F401  (registered first, and so preferred)
from minidl.ops.conv.definition import Conv2d, ConvTranspose2d
from minidl.ops.conv.parts import add_parts
from minidl.ops.window import Pair, output_size

kernels = Kernels(__file__)

TILES = (8, 16, 32)  # output channels of a block: the versions of the kernel in implicit_gemm.cu
PIXELS = 128  # threads of a block, each with one pixel: whole warps, and at least SIDE x SIDE threads
SIDE = 8  # output and input channels of a tile of the weight gradient, as in implicit_gemm.cu
# Blocks of the weight gradient, to occupy a large GPU: eight for each of an H100's 132 multiprocessors.
BLOCKS = 1056
# The minimum number of pixels in a piece of the weight gradient: each piece ends with a sum over its threads.
PIECE_PIXELS = 1024
# Beyond this number of channels im2col.py computes the layer. A block reads its pixels again for every TILE
# output channels, so one large matrix product is faster for wide layers. The widest network measured on an
# H200 in which this file computed everything but the 3x3 convolutions of stride 1 (strips.py) has 16 to 128
# channels, 256 x 256 pixels and batch 16. A training step took 35.5 ms, 29.1 ms as a CUDA graph, 65.4 ms by
# im2col in all layers, and 79.6 ms in PyTorch. One layer by im2col would have prevented the graph: CuPy
# cannot capture cuBLAS. Single layers have not been compared. A 1x1 convolution may be wider (pointwise.py).
MAX_CHANNELS = 128


def convolve(x: Array, w: Array, b: Array | None, stride: Pair, padding: Pair) -> Array:
    """Return y = w col + b, x (N, C, H, W), w (OC, C, KH, KW), b (OC,) -> y (N, OC, OH, OW)."""
    size = output_size(x.shape[2:], w.shape[2:], stride, padding)
    return launch("forward", len(w), x, w, b, size, stride, padding)


def input_gradient(dy: Array, w: Array, b: Array | None, size: Pair, stride: Pair, padding: Pair) -> Array:
    """Return dx, plus b (C,) if given, dy (N, OC, OH, OW), w (OC, C, KH, KW) -> dx (N, C, *size)."""
    return launch("adjoint", w.shape[1], dy, w, b, size, stride, padding)


def launch(
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
    kernels.launch(f"implicit_gemm_{direction}_{tile}", grid, (PIXELS,), x, w, b, y, *sizes)
    return y


def weight_gradient(x: Array, dy: Array, kernel: Pair, stride: Pair, padding: Pair) -> Array:
    """Return dw, summed over images, x (N, C, H, W), dy (N, OC, OH, OW) -> dw (OC, C, KH, KW)."""
    x, dy = contiguous(x), contiguous(dy)
    (N, C, H, W), (_, OC, OH, OW) = x.shape, dy.shape
    tiles = math.ceil(C / SIDE) * kernel[0] * kernel[1], math.ceil(OC / SIDE)
    pieces = max(1, min(BLOCKS // (tiles[0] * tiles[1]), N * OH * OW // PIECE_PIXELS))
    parts = array_module(x).empty((pieces, OC, C, *kernel), x.dtype)
    sizes = N, C, H, W, OC, OH, OW, *kernel, *stride, *padding
    kernels.launch("implicit_gemm_weight_gradient", (*tiles, pieces), (PIXELS,), x, dy, parts, *sizes)
    return add_parts(parts)


def pays(weight_shape: tuple[int, ...], stride: Pair, padding: Pair) -> bool:
    """Return whether the layer has few enough channels; the reasons are beside MAX_CHANNELS."""
    one_by_one = tuple(weight_shape[2:]) == (1, 1)
    return max(weight_shape[:2]) <= (pointwise.MAX_CHANNELS if one_by_one else MAX_CHANNELS)


class ImplicitGemmPasses:
    """The three passes defined in this file."""

    convolve = staticmethod(convolve)
    input_gradient = staticmethod(input_gradient)
    weight_gradient = staticmethod(weight_gradient)


@implements(Conv2d, "implicit GEMM", devices=GPU, pays=pays)
class ImplicitGemmConv2d(ImplicitGemmPasses, Conv2d):
    """Conv2d by an implicit GEMM."""


@implements(ConvTranspose2d, "implicit GEMM", devices=GPU, pays=pays)
class ImplicitGemmConvTranspose2d(ImplicitGemmPasses, ConvTranspose2d):
    """ConvTranspose2d by an implicit GEMM."""

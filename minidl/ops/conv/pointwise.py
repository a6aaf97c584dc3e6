"""1x1 convolutions of stride 1 on the GPU: a product at every pixel.

A window of one pixel needs no neighbours, so an image is a matrix (C, H W) and the three passes are

    y[n,oc,p]  = sum over c of w[oc,c] x[n,c,p] + b[oc]
    dx[n,c,p]  = sum over oc of w[oc,c] dy[n,oc,p]          the same with the channels exchanged
    dw[oc,c]   = sum over n,p of dy[n,oc,p] x[n,c,p]

With the few channels of a U-Net, memory limits all three: a number that has been read serves few
multiply-adds, and it takes long to arrive. In `pointwise.cu` a thread therefore owns two pixels in up to 32
output channels, so that a pixel is read once for all of them if possible, and it asks for 8 channels before
it computes. The weight gradient sums over all pixels: a thread reads 8 channels of x and of dy at a pixel and
adds 64 products to 64 sums. `parts.py` adds the sums of the blocks.

On an H200, with 16 channels to 8 at 256 x 256 pixels and batch 16, the passes take 27, 28 and 34 us; by the
implicit GEMM they took 47, 52 and 84 (docs/kernels.md).
"""

from __future__ import annotations

import math

from minidl.backend import GPU, Array, Kernels, array_module, contiguous
from minidl.implementation import implements
from minidl.ops.conv.definition import Conv2d, ConvTranspose2d
from minidl.ops.conv.parts import add_parts
from minidl.ops.window import Pair

kernels = Kernels(__file__)

THREADS, PIXELS, SIDE = 128, 2, 8  # as in pointwise.cu
TILES = (32, 16, 8)  # output channels of a block: the versions of the kernel
BLOCKS = 528  # four for each of an H100's 132 multiprocessors; no other number has been timed
# The minimum number of pixels in a piece of the weight gradient: each piece ends with a sum over its threads.
PIECE_PIXELS = 1024
# Twice as many as in the other kernels: a decoder applies a 1x1 convolution to two images that are joined,
# and one layer by im2col would prevent the CUDA graph of a step. The widest layer timed has 64 channels.
MAX_CHANNELS = 256


def convolve(x: Array, w: Array, b: Array | None, stride: Pair, padding: Pair) -> Array:
    """Return y, x (N, C, H, W), w (OC, C, 1, 1), b (OC,) -> y (N, OC, H, W)."""
    return launch("forward", len(w), x, w, b)


def input_gradient(dy: Array, w: Array, b: Array | None, size: Pair, stride: Pair, padding: Pair) -> Array:
    """Return dx, plus b (C,) if given, dy (N, OC, H, W), w (OC, C, 1, 1) -> dx (N, C, H, W)."""
    return launch("adjoint", w.shape[1], dy, w, b)


def launch(direction: str, OC: int, x: Array, w: Array, b: Array | None) -> Array:
    """Launch the kernel "forward" or "adjoint" for OC output channels, x (N, C, H, W) -> y (N, OC, H, W)."""
    xp = array_module(x)
    N, C, H, W = x.shape
    y = xp.empty((N, OC, H, W), x.dtype)
    b = xp.zeros(OC, x.dtype) if b is None else b
    tile = channels_of_a_block(N, OC, H * W)
    arguments = contiguous(x), contiguous(w), b, y, C, OC, H * W
    kernels.launch(f"pointwise_{direction}_{tile}", grid(tile, N, OC, H * W), (THREADS,), *arguments)
    return y


def grid(tile: int, N: int, OC: int, size: int) -> tuple[int, int, int]:
    """Return the number of blocks along the pixels of an image, of tiles of channels, and of images."""
    return math.ceil(size / (PIXELS * THREADS)), math.ceil(OC / tile), N


def channels_of_a_block(N: int, OC: int, size: int) -> int:
    """Return the largest tile that is at most half empty and leaves BLOCKS blocks, or the smallest."""
    enough = (t for t in TILES if t // 2 < OC and math.prod(grid(t, N, OC, size)) >= BLOCKS)
    return next(enough, TILES[-1])


def weight_gradient(x: Array, dy: Array, kernel: Pair, stride: Pair, padding: Pair) -> Array:
    """Return dw, summed over images, x (N, C, H, W), dy (N, OC, H, W) -> dw (OC, C, 1, 1)."""
    (N, C, H, W), OC = x.shape, dy.shape[1]
    tiles = math.ceil(C / SIDE), math.ceil(OC / SIDE)
    pieces = max(1, min(BLOCKS // (tiles[0] * tiles[1] * N), H * W // PIECE_PIXELS))  # of each image
    parts = array_module(x).empty((N * pieces, OC, C, 1, 1), x.dtype)
    arguments = contiguous(x), contiguous(dy), parts, C, OC, H * W, pieces
    kernels.launch("pointwise_weight_gradient", (*tiles, N * pieces), (THREADS,), *arguments)
    return add_parts(parts)


def can(weight_shape: tuple[int, ...], stride: Pair, padding: Pair) -> bool:
    """Return whether this is a 1x1 convolution of stride 1 without padding."""
    return tuple(weight_shape[2:]) == (1, 1) and stride == (1, 1) and padding == (0, 0)


def pays(weight_shape: tuple[int, ...], stride: Pair, padding: Pair) -> bool:
    """Return whether the layer has few enough channels; the reasons are beside MAX_CHANNELS."""
    return max(weight_shape[:2]) <= MAX_CHANNELS


class PointwisePasses:
    """The three passes defined in this file."""

    convolve = staticmethod(convolve)
    input_gradient = staticmethod(input_gradient)
    weight_gradient = staticmethod(weight_gradient)


@implements(Conv2d, "pointwise", devices=GPU, can=can, pays=pays)
class PointwiseConv2d(PointwisePasses, Conv2d):
    """A 1x1 Conv2d, pixel by pixel."""


@implements(ConvTranspose2d, "pointwise", devices=GPU, can=can, pays=pays)
class PointwiseConvTranspose2d(PointwisePasses, ConvTranspose2d):
    """A 1x1 ConvTranspose2d, pixel by pixel."""

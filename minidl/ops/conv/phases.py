"""3x3 convolutions of stride 2 on the GPU, and their adjoint: the up-sampling of a U-Net.

With KH = 3 and SH = 2, pixel oh of the output is under weight kh of window h if oh + PH = 2 h + kh. So it
depends on whether oh + PH is odd or even:

    oh + PH = 2 h + 1:   weight 1 of window h
    oh + PH = 2 h + 2:   weight 2 of window h, and weight 0 of window h + 1

and likewise in the columns: four cases, the *phases*. Four neighbouring pixels of the output, one of each
phase, are a *square*. Together they need 2x2 pixels of the input, and 1 + 2 + 2 + 4 = 9 multiply-adds for
each pair of channels: every weight once.

           columns of y       odd              even           x (rows h, h + 1; columns v, v + 1)

           odd            w[1,1] a         w[1,2] a + w[1,0] b              a  b
           even           w[2,1] a         w[2,2] a + w[2,0] b              c  d
                        + w[0,1] c       + w[0,2] c + w[0,0] d

The implicit GEMM asks for each of the nine weights whether a pixel needs it. In `phases.cu` a thread owns
squares instead, in 8 output channels, and nothing is asked. The forward pass is in `strips.py`, the weight
gradient in `columns.py`.

On an H200, up-sampling from 16 channels to 8 of 256 x 256 pixels, batch 16, takes 34 us, and took 191 by the
implicit GEMM; its input gradient 50 (54), its weight gradient 52 (161). docs/kernels.md has other shapes.
"""

from __future__ import annotations

import math

from minidl.backend import GPU, Array, Kernels, array_module, contiguous
from minidl.implementation import implements
from minidl.ops.conv import columns, strips
from minidl.ops.conv.definition import Conv2d, ConvTranspose2d
from minidl.ops.window import Pair

kernels = Kernels(__file__)

COLUMNS, STRIPS, ROWS, TILE = 32, 4, 2, 8  # as in phases.cu


def convolve(x: Array, w: Array, b: Array | None, stride: Pair, padding: Pair) -> Array:
    """Return y, x (N, C, H, W), w (OC, C, 3, 3), b (OC,) -> y (N, OC, OH, OW)."""
    return strips.halve(x, w, b, padding)


def input_gradient(dy: Array, w: Array, b: Array | None, size: Pair, stride: Pair, padding: Pair) -> Array:
    """Return dx, plus b (C,) if given, dy (N, OC, OH, OW), w (OC, C, 3, 3) -> dx (N, C, *size)."""
    xp = array_module(dy)
    (N, OC, OH, OW), C = dy.shape, w.shape[1]
    dx = xp.empty((N, C, *size), dy.dtype)
    b = xp.zeros(C, dy.dtype) if b is None else b
    missing = 1 - padding[0], 1 - padding[1]  # without padding, the first square begins outside the image
    down, across = ((s + m + 1) // 2 for s, m in zip(size, missing, strict=True))  # squares
    grid = math.ceil(down / (STRIPS * ROWS)) * math.ceil(across / COLUMNS), math.ceil(C / TILE), N
    arguments = contiguous(dy), contiguous(w), b, dx, OC, OH, OW, C, *size, *missing
    kernels.launch("phases_adjoint", grid, (COLUMNS, STRIPS), *arguments)
    return dx


def weight_gradient(x: Array, dy: Array, kernel: Pair, stride: Pair, padding: Pair) -> Array:
    """Return dw, summed over images, x (N, C, H, W), dy (N, OC, OH, OW) -> dw (OC, C, 3, 3)."""
    return columns.weight_gradient(x, dy, padding, stride=2)


def can(weight_shape: tuple[int, ...], stride: Pair, padding: Pair) -> bool:
    """Return whether this is a 3x3 convolution of stride 2, with a padding of at most 1."""
    return tuple(weight_shape[2:]) == (3, 3) and stride == (2, 2) and max(padding) <= 1


class PhasePasses:
    """The three passes defined in this file."""

    convolve = staticmethod(convolve)
    input_gradient = staticmethod(input_gradient)
    weight_gradient = staticmethod(weight_gradient)


@implements(Conv2d, "phases", devices=GPU, can=can, pays=strips.pays)
class PhaseConv2d(PhasePasses, Conv2d):
    """A 3x3 Conv2d of stride 2, whose input gradient is computed by phases."""


@implements(ConvTranspose2d, "phases", devices=GPU, can=can, pays=strips.pays)
class PhaseConvTranspose2d(PhasePasses, ConvTranspose2d):
    """A 3x3 ConvTranspose2d of stride 2 by phases."""

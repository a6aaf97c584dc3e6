"""Batch norm and ReLU in as few passes over x as possible: shared by the CPU and CUDA implementations.

Reading x from memory takes longer than computing with it. With the statistics known, z is a multiply-add for
each channel,

    z = a x + c,   a = g r,   c = b - a mean

and so is the gradient, because mean(dn) = g db / m, mean(dn n) = g dg / m and n = (x - mean) r:

    dx = A dz + B x + D,   A = g r,   B = -A r dg / m,   D = -A db / m - B mean

In evaluation the statistics are constants, and B = D = 0. Only x is kept for the backward pass: computing
z > 0 again is cheaper than storing it. The only new arrays of the size of x are y and dx.

**Precision.** E[x^2] - E[x]^2 is a small difference of large numbers where the mean is far from zero. With
d = x - shift,

    mean = shift + mean(d),   var = mean(d^2) - mean(d)^2

hold for any shift, and little precision is lost if the shift is close to the channel's values. On the CPU it
is the mean of the first image, so that mean(d)^2 <= (N - 1) var; in the CUDA kernels it is the first pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from minidl.backend import Array, contiguous


class Norm(NamedTuple):
    """The parameters of the normalisation: four arrays (C,) and two settings, in the order of the kernels."""

    weight: Array
    bias: Array
    mean: Array
    var: Array
    eps: float
    relu: bool


class FusedPasses:
    """Both passes of BatchNorm and BatchNormInference, built from three functions of each device."""

    moments: Callable  # x -> mean, var
    normalise: Callable  # x, norm -> y
    gradients: Callable  # dy, x, norm, training -> dx, dg, db

    def forward(self, x: Array, weight: Array, bias: Array) -> Array:
        self.x = contiguous(x)
        if self.training:
            self.mean, self.var = self.moments(self.x)
        self.norm = Norm(weight, bias, self.mean, self.var, self.eps, self.relu)
        return self.normalise(self.x, self.norm)

    def backward(self, dy: Array) -> tuple[Array, Array, Array]:
        return self.gradients(contiguous(dy), self.x, self.norm, self.training)

"""A norm and its ReLU in as few passes over x as possible: shared by the CPU and CUDA implementations.

Reading x from memory takes longer than computing with it. With the statistics of batch norm known, z is a
multiply-add for each channel,

    z = a x + c,   a = g r,   c = b - a mean

and so is the gradient, because mean(dn) = g db / m, mean(dn n) = g dg / m and n = (x - mean) r:

    dx = A dz + B x + D,   A = g r,   B = -A r dg / m,   D = -A db / m - B mean

In evaluation the statistics are constants, and B = D = 0. Only x is kept for the backward pass: computing
z > 0 again is cheaper than storing it. The only new arrays of the size of x are y and dx.

**Group norm** is the same with different numbers for each row, a channel c of an image n: its group has the
statistics, its channel g and b. The gradient needs two means over the m values of the group. They are sums of
s1 = sum(dz) and s2 = sum(dz n) of its rows, each with the g of its channel:

    M1 = mean(dn) = sum_c(g s1) / m,   M2 = mean(dn n) = sum_c(g s2) / m

    dx = A dz + B x + D,   A = r g,   B = -r^2 M2,   D = -r M1 - B mean

    dg = sum_n(s2),   db = sum_n(s1)

**Precision.** E[x^2] - E[x]^2 is a small difference of large numbers where the mean is far from zero. With
d = x - shift,

    mean = shift + mean(d),   var = mean(d^2) - mean(d)^2

hold for any shift, and little precision is lost if the shift is close to the values. On the CPU it is the
mean of the first of the k rows that share their statistics: of the first image in batch norm, of the group's
first channel in group norm. The other k - 1 rows must balance its distance from the mean, so that
mean(d)^2 <= (k - 1) var. In the CUDA kernels the shift is the first pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from minidl.backend import Array, contiguous


class Norm(NamedTuple):
    """The parameters of the normalisation: four arrays and two settings, in the order of the kernels.

    weight and bias are (C,); mean and var are (C,) in batch norm and (N G,) in group norm.
    """

    weight: Array
    bias: Array
    mean: Array
    var: Array
    eps: float
    relu: bool


# dg and db of one process's share of a batch -> dg and db of the whole batch, and its m = N H W
Sums = Callable[[Array, Array], tuple[Array, Array, int]]


class FusedPasses:
    """Both passes of BatchNorm and BatchNormInference, built from three functions of each device."""

    moments: Callable  # x -> mean, var
    normalise: Callable  # x, norm -> y
    gradients: Callable  # dy, x, norm, sums -> dx, dg, db

    def forward(self, x: Array, weight: Array, bias: Array) -> Array:
        self.x = contiguous(x)
        if self.training:
            self.mean, self.var = self.statistics(self.x)
        self.norm = Norm(weight, bias, self.mean, self.var, self.eps, self.relu)
        return self.normalise(self.x, self.norm)

    def backward(self, dy: Array) -> tuple[Array, Array, Array]:
        return self.gradients(contiguous(dy), self.x, self.norm, self.sums if self.training else None)

    def sums(self, dg: Array, db: Array) -> tuple[Array, Array, int]:
        """Return dg and db of the whole batch and m, on which dx depends in training."""
        return *self.of_whole_batch(dg, db), self.m


def has_several_values(shape: tuple[int, ...], groups: int) -> bool:
    """Return whether a group has several values; for a single one only the definition gives y = b exactly."""
    _, C, H, W = shape
    return C // groups * H * W > 1


class FusedGroupPasses:
    """Both passes of GroupNorm, built from three functions of each device."""

    moments: Callable  # x, groups -> mean, var
    normalise: Callable  # x, norm -> y
    gradients: Callable  # dy, x, norm -> dx, dg, db

    def forward(self, x: Array, weight: Array, bias: Array) -> Array:
        self.x = contiguous(x)
        self.norm = Norm(weight, bias, *self.moments(self.x, self.groups), self.eps, self.relu)
        return self.normalise(self.x, self.norm)

    def backward(self, dy: Array) -> tuple[Array, Array, Array]:
        return self.gradients(contiguous(dy), self.x, self.norm)

"""Group norm on the CPU: the formulas of `fused.py`, with the statistics of a group repeated for its rows.

A group of an image is `size` consecutive rows, so the rows of x are also (groups of all images, size).
"""

from __future__ import annotations

import numpy as np

from minidl.allocator import short_buffers
from minidl.backend import CPU, Array
from minidl.implementation import implements
from minidl.ops.norm.fused import FusedGroupPasses, Norm, has_several_values
from minidl.ops.norm.group import GroupNorm
from minidl.ops.norm.row_passes import (
    as_rows,
    gradient_sums,
    mean_and_variance,
    moment_sums,
    normalise_rows,
    row_means,
    write_input_gradient,
)


def over_groups(v: Array, size: int) -> Array:
    """Sum over the rows of each group, v (N C,) -> (N G,)."""
    return v.reshape(-1, size).sum(1)


@short_buffers()
def moments(x: Array, groups: int) -> tuple[Array, Array]:
    """Return the mean and the variance of every group of every image, x (N, C, H, W) -> (N G,), (N G,)."""
    size, rows = x.shape[1] // groups, as_rows(x)
    shift = row_means(rows[::size])  # of the first row of each group
    sums, squares = moment_sums(rows, np.repeat(shift, size))
    m = size * rows.shape[1]
    return mean_and_variance(shift, over_groups(sums, size), over_groups(squares, size), m)


def row_parameters(x: Array, norm: Norm) -> tuple[Array, Array, Array, Array]:
    """Return g, r, mean and c of each row, with z = g r x + c, (N C,) each."""
    N, C = x.shape[:2]
    size = N * C // len(norm.mean)
    g, r, mean = np.tile(norm.weight, N), 1.0 / np.sqrt(norm.var + norm.eps), np.repeat(norm.mean, size)
    r = np.repeat(r, size)
    return g, r, mean, np.tile(norm.bias, N) - g * r * mean


@short_buffers()
def normalise(x: Array, norm: Norm) -> Array:
    """Return y = a x + c, or its ReLU, (N, C, H, W)."""
    g, r, _, c = row_parameters(x, norm)
    return normalise_rows(x, g * r, c, norm.relu)


@short_buffers()
def gradients(dy: Array, x: Array, norm: Norm) -> tuple[Array, Array, Array]:
    """Return dx (N, C, H, W), dg and db (C,)."""
    N, C, H, W = x.shape
    size = N * C // len(norm.mean)
    g, r, mean, c = row_parameters(x, norm)
    dx = np.empty(x.shape, x.dtype)
    x_rows, dx_rows = as_rows(x), as_rows(dx)
    dz, s2, s1 = gradient_sums(as_rows(dy), x_rows, dx_rows, g * r, c, mean, norm.relu)
    s2 *= r  # the sums of dz n
    M1, M2 = (np.repeat(over_groups(g * s, size) / (size * H * W), size) for s in (s1, s2))
    B = -r * r * M2
    write_input_gradient(dx_rows, dz, r * g, x_rows, B, -r * M1 - B * mean)
    return dx, s2.reshape(N, C).sum(0), s1.reshape(N, C).sum(0)


@implements(GroupNorm, "fused", devices=CPU, can=has_several_values)
class FusedGroupNorm(FusedGroupPasses, GroupNorm):
    """GroupNorm in few passes over x, of which only x is kept."""

    moments = staticmethod(moments)
    normalise = staticmethod(normalise)
    gradients = staticmethod(gradients)

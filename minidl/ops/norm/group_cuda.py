"""Group norm by CUDA kernels: the formulas of `fused.py`; `group_cuda.cu` lists what each thread owns.

The statistics need no kernel of their own: the groups of all images are the channels of one long image, x
(N, C, H, W) as (1, N G, 1, m), so that batch norm's kernels compute them. The backward pass sums over each
row, one channel of one image, and then combines these few sums in two ways: over the rows of a group for dx,
and over the images for dg and db.
"""

from __future__ import annotations

import math

from minidl.backend import GPU, THREADS, Array, Kernels, array_module, cover
from minidl.implementation import implements
from minidl.ops.norm import fused_cuda
from minidl.ops.norm.fused import FusedGroupPasses, Norm, has_several_values
from minidl.ops.norm.group import GroupNorm

kernels = Kernels(__file__)

PIXELS = 8  # of a row per thread: so often it uses the row's parameters
SUM_THREADS = 1024  # at most, in the block that sums over a row: a channel of one image is a small share of x


def shares(x: Array) -> tuple[tuple[int, int], tuple[int]]:
    """Return (grid, block): about PIXELS pixels of a row per thread, in whole blocks."""
    N, C, H, W = x.shape
    return (N * C, math.ceil(H * W / (PIXELS * THREADS))), (THREADS,)


def sizes(x: Array, norm: Norm) -> tuple[int, int, int]:
    """Return C, the channels of a group, and H W."""
    N, C, H, W = x.shape
    return C, N * C // len(norm.mean), H * W


def moments(x: Array, groups: int) -> tuple[Array, Array]:
    """Return the mean and the variance of every group of every image, (N G,), (N G,)."""
    return fused_cuda.moments(x.reshape(1, len(x) * groups, 1, -1))


def normalise(x: Array, norm: Norm) -> Array:
    """Return y, (N, C, H, W)."""
    y = array_module(x).empty_like(x)
    kernels.launch("group_normalise", *shares(x), x, *norm, y, *sizes(x, norm))
    return y


def gradients(dy: Array, x: Array, norm: Norm) -> tuple[Array, Array, Array]:
    """Return dx (N, C, H, W), dg and db (C,)."""
    xp, (N, C), groups, (_, size, HW) = array_module(x), x.shape[:2], len(norm.mean), sizes(x, norm)
    sums, means = xp.empty((2, N * C), x.dtype), xp.empty((2, groups), x.dtype)
    dx, dg, db = xp.empty_like(x), xp.empty(C, x.dtype), xp.empty(C, x.dtype)
    block = (min(SUM_THREADS, 32 * math.ceil(HW / 32)),)
    kernels.launch("group_gradient_sums", (N * C,), block, dy, x, *norm, sums, C, size, HW)
    kernels.launch("group_gradient_means", *cover(groups), sums, norm.weight, means, groups, C, size, HW)
    kernels.launch("group_gradient_totals", *cover(C), sums, dg, db, N, C)
    kernels.launch("group_input_gradient", *shares(x), dy, x, *norm, means, dx, groups, C, size, HW)
    return dx, dg, db


def fits_a_grid(shape: tuple[int, ...], groups: int) -> bool:
    """Return whether a group has several values, and CUDA allows a row of blocks for each group."""
    return has_several_values(shape, groups) and shape[0] * groups < 2**16


@implements(GroupNorm, "kernels", devices=GPU, can=fits_a_grid)
class GroupNormKernels(FusedGroupPasses, GroupNorm):
    """GroupNorm by CUDA kernels."""

    moments = staticmethod(moments)
    normalise = staticmethod(normalise)
    gradients = staticmethod(gradients)

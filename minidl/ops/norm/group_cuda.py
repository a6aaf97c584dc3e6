"""Group norm by CUDA kernels: the formulas of `fused.py`; `group_cuda.cu` lists what each thread owns.

The statistics need no kernel of their own: the groups of all images are the channels of one long image, x
(N, C, H, W) as (1, N G, 1, m), so that batch norm's kernels compute them. The backward pass sums over each
row, one channel of one image, and then combines these few sums in two ways: over the rows of a group for dx,
and over the images for dg and db.
"""

from __future__ import annotations

from minidl.backend import GPU, THREADS, Array, Kernels, array_module
from minidl.implementation import implements
from minidl.ops.norm import fused_cuda
from minidl.ops.norm.fused import FusedGroupPasses, Norm, has_several_values
from minidl.ops.norm.fused_cuda import gradient_totals, shares
from minidl.ops.norm.group import GroupNorm

kernels = Kernels(__file__)


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
    xp, (grid, block), groups, (C, size, HW) = array_module(x), shares(x), len(norm.mean), sizes(x, norm)
    sums, means, dx = xp.empty((2, *grid), x.dtype), xp.empty((2, groups), x.dtype), xp.empty_like(x)
    kernels.launch("group_gradient_sums", grid, block, dy, x, *norm, sums, C, size, HW)
    of_groups = sums, norm.weight, means, C, size, HW, grid[1]
    kernels.launch("group_gradient_means", (groups,), (THREADS,), *of_groups)
    kernels.launch("group_input_gradient", grid, block, dy, x, *norm, means, dx, groups, C, size, HW)
    return dx, *gradient_totals(sums, len(x))


@implements(GroupNorm, "kernels", devices=GPU, can=has_several_values)
class GroupNormKernels(FusedGroupPasses, GroupNorm):
    """GroupNorm by CUDA kernels."""

    moments = staticmethod(moments)
    normalise = staticmethod(normalise)
    gradients = staticmethod(gradients)

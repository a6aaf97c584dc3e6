"""Batch norm by CUDA kernels: the formulas of `fused.py`; `fused_cuda.cu` lists what each thread owns.

The sums over a channel take two launches, because blocks cannot wait for each other: first each block sums
over its pixels, then one block per channel sums over the blocks.
"""

from __future__ import annotations

import math

from minidl.backend import GPU, THREADS, Array, Kernels, array_module, cover
from minidl.implementation import implements
from minidl.ops.norm.batch import BatchNorm, BatchNormInference
from minidl.ops.norm.fused import FusedPasses, Norm, Sums

kernels = Kernels(__file__)


def shares(x: Array) -> tuple[tuple[int, int], tuple[int]]:
    """Return (grid, block): a thread per pixel of a channel, in at most as many blocks as a block can sum."""
    return (min(cover(x[0, 0].size)[0][0], THREADS), x.shape[1]), (THREADS,)


def sizes(x: Array) -> tuple[int, int, int]:
    """Return N, C and H W."""
    N, C, H, W = x.shape
    return N, C, H * W


def moments(x: Array) -> tuple[Array, Array]:
    """Return the mean and the variance of every channel, (C,), (C,)."""
    xp, (grid, block), (N, C, HW) = array_module(x), shares(x), sizes(x)
    sums, mean, var = xp.empty((2, C, grid[0]), x.dtype), xp.empty(C, x.dtype), xp.empty(C, x.dtype)
    kernels.launch("moment_sums", grid, block, x, sums, N, C, HW)
    kernels.launch("moments", (C,), block, x, sums, mean, var, grid[0], N, C, HW)
    return mean, var


def normalise(x: Array, norm: Norm) -> Array:
    """Return y, (N, C, H, W)."""
    y = array_module(x).empty_like(x)
    kernels.launch("normalise", *shares(x), x, *norm, y, *sizes(x))
    return y


def gradients(dy: Array, x: Array, norm: Norm, sums: Sums | None) -> tuple[Array, Array, Array]:
    """Return dx (N, C, H, W), dg and db (C,); in training the statistics depend on x, through `sums`."""
    xp, (grid, block), (N, C, HW) = array_module(x), shares(x), sizes(x)
    partial, dg, db = xp.empty((2, C, grid[0]), x.dtype), xp.empty(C, x.dtype), xp.empty(C, x.dtype)
    dx = xp.empty_like(x)
    kernels.launch("gradient_sums", grid, block, dy, x, *norm, partial, N, C, HW)
    kernels.launch("gradient_totals", (C,), block, partial, dg, db, grid[0], C)
    all_dg, all_db, m = sums(dg, db) if sums else (dg, db, math.inf)
    share = 1.0 / m  # the weight of one pixel in a mean over the channel; 0 in evaluation
    kernels.launch("input_gradient", grid, block, dy, x, *norm, all_dg, all_db, dx, share, N, C, HW)
    return dx, dg, db


class CudaPasses(FusedPasses):
    """The functions defined in this file."""

    moments = staticmethod(moments)
    normalise = staticmethod(normalise)
    gradients = staticmethod(gradients)


@implements(BatchNorm, "kernels", devices=GPU)
class BatchNormKernels(CudaPasses, BatchNorm):
    """BatchNorm by CUDA kernels."""


@implements(BatchNormInference, "kernels", devices=GPU)
class BatchNormInferenceKernels(CudaPasses, BatchNormInference):
    """BatchNormInference by CUDA kernels."""

"""Batch norm by CUDA kernels: the formulas of `fused.py`; `fused_cuda.cu` lists what each thread owns.

The sums over a channel take two launches, because blocks cannot wait for each other: first each block sums
over its pixels of one image, then one block per channel sums over the blocks of all images.
"""

from __future__ import annotations

import math

from minidl.backend import GPU, THREADS, Array, Kernels, array_module
from minidl.implementation import implements
from minidl.ops.norm.batch import BatchNorm, BatchNormInference
from minidl.ops.norm.fused import FusedPasses, Norm, Sums

kernels = Kernels(__file__)


BLOCKS = 1024  # at most, if there are fewer rows: a large GPU runs them all at a time
PIXELS = 4  # of a thread, at least: it reads four at a time
WARP = 32


def shares(x: Array) -> tuple[tuple[int, int], tuple[int]]:
    """Return (grid, block): the rows, each one channel of one image, times the blocks of a row."""
    N, C, H, W = x.shape
    block = min(THREADS, WARP * max(1, math.ceil(H * W / (PIXELS * WARP))))
    of_row = max(1, BLOCKS // max(1, N * C))
    return (N * C, min(of_row, math.ceil(H * W / (PIXELS * block)))), (block,)


def sizes(x: Array) -> tuple[int, int]:
    """Return C and H W."""
    _, C, H, W = x.shape
    return C, H * W


def moments(x: Array) -> tuple[Array, Array]:
    """Return the mean and the variance of every channel, (C,), (C,)."""
    xp, (grid, block), N, (C, HW) = array_module(x), shares(x), len(x), sizes(x)
    sums, mean, var = xp.empty((2, *grid), x.dtype), xp.empty(C, x.dtype), xp.empty(C, x.dtype)
    kernels.launch("moment_sums", grid, block, x, sums, C, HW)
    kernels.launch("moments", (C,), (THREADS,), x, sums, mean, var, N, C, HW, grid[1])
    return mean, var


def normalise(x: Array, norm: Norm) -> Array:
    """Return y, (N, C, H, W)."""
    y = array_module(x).empty_like(x)
    kernels.launch("normalise", *shares(x), x, *norm, y, *sizes(x))
    return y


def gradient_totals(sums: Array, N: int) -> tuple[Array, Array]:
    """Return dg and db (C,), given the sums of dz n and of dz over every block of a row, (2, N C, blocks)."""
    xp, C, blocks = array_module(sums), sums.shape[1] // N, sums.shape[2]
    dg, db = xp.empty(C, sums.dtype), xp.empty(C, sums.dtype)
    kernels.launch("gradient_totals", (C,), (THREADS,), sums, dg, db, N, C, blocks)
    return dg, db


def gradients(dy: Array, x: Array, norm: Norm, sums: Sums | None) -> tuple[Array, Array, Array]:
    """Return dx (N, C, H, W), dg and db (C,); in training the statistics depend on x, through `sums`."""
    xp, (grid, block), (C, HW) = array_module(x), shares(x), sizes(x)
    of_blocks, dx = xp.empty((2, *grid), x.dtype), xp.empty_like(x)
    kernels.launch("gradient_sums", grid, block, dy, x, *norm, of_blocks, C, HW)
    dg, db = gradient_totals(of_blocks, len(x))
    all_dg, all_db, m = sums(dg, db) if sums else (dg, db, math.inf)
    share = 1.0 / m  # the weight of one pixel in a mean over the channel; 0 in evaluation
    kernels.launch("input_gradient", grid, block, dy, x, *norm, all_dg, all_db, dx, share, C, HW)
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

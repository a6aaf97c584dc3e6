"""Batch norm on the CPU: the formulas of `fused.py`, applied to pieces of x that fit into the cache."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minidl.allocator import short_buffers
from minidl.backend import CPU, Array
from minidl.implementation import implements
from minidl.ops.norm.batch import BatchNorm, BatchNormInference
from minidl.ops.norm.fused import FusedPasses, Norm

PIECE_BYTES = 256 << 10  # of x at a time: with as much of dy, dx and z it fits into a core's cache


def as_rows(x: Array) -> Array:
    """Return x (N, C, H, W) as (N C, H W): row i is an image of channel i % C."""
    N, C, H, W = x.shape
    return x.reshape(N * C, H * W)


def by_row(rows: Array, *numbers: Array) -> Iterator[Array]:
    """Repeat each array of one number per channel (C,) for all rows: (N C, 1)."""
    return (np.tile(v, len(rows) // len(v))[:, None] for v in numbers)


def over_images(v: Array, C: int) -> Array:
    """Sum over the images of each channel, v (N C,) -> (C,)."""
    return v.reshape(-1, C).sum(0)


def row_dot(u: Array, v: Array) -> Array:
    """Return the inner product of each row of u with the same row of v, (n, HW), (n, HW) -> (n,)."""
    return (u[:, None] @ v[:, :, None])[:, 0, 0]


def pieces(rows: Array) -> Iterator[tuple[slice, Array]]:
    """Yield slices of the rows that fit into the cache, each with a scratch array of its shape."""
    HW = rows.shape[1]
    step = max(1, PIECE_BYTES // (HW * rows.itemsize))
    scratch = np.empty((min(step, len(rows)), HW), rows.dtype)
    for start in range(0, len(rows), step):
        yield slice(start, start + step), scratch[: len(rows) - start]


def scale(norm: Norm) -> tuple[Array, Array]:
    """Return r and a = g r, (C,) each."""
    r = 1.0 / np.sqrt(norm.var + norm.eps)
    return r, norm.weight * r


@short_buffers()
def moments(x: Array) -> tuple[Array, Array]:
    """Return the mean and the variance of every channel, x (N, C, H, W) -> (C,), (C,)."""
    C, m, rows = x.shape[1], x.size // x.shape[1], as_rows(x)
    ones = np.ones(rows.shape[1], x.dtype)
    shift = rows[:C] @ ones / len(ones)
    (shift_of,) = by_row(rows, shift)
    sums, squares = np.empty((2, len(rows)), x.dtype)
    for piece, scratch in pieces(rows):
        d = np.subtract(rows[piece], shift_of[piece], out=scratch)
        sums[piece], squares[piece] = d @ ones, row_dot(d, d)
    mean, square = over_images(sums, C) / m, over_images(squares, C) / m
    return shift + mean, np.maximum(square - mean * mean, 0.0)


@short_buffers()
def normalise(x: Array, norm: Norm) -> Array:
    """Return y = a x + c, or its ReLU, (N, C, H, W)."""
    _, a = scale(norm)
    y = np.empty(x.shape, x.dtype)
    x_rows, y_rows = as_rows(x), as_rows(y)
    a, c = by_row(x_rows, a, norm.bias - a * norm.mean)
    zeros = np.zeros(x_rows.shape[1], x.dtype)  # NumPy's maximum of two arrays is faster than with a scalar
    for piece, _ in pieces(x_rows):
        z = np.multiply(x_rows[piece], a[piece], out=y_rows[piece])
        z += c[piece]
        if norm.relu:
            np.maximum(z, zeros, out=z)
    return y


@short_buffers()
def gradients(dy: Array, x: Array, norm: Norm, training: bool) -> tuple[Array, Array, Array]:
    """Return dx (N, C, H, W), dg and db (C,); in training the statistics depend on x."""
    m, (r, a) = x.size // x.shape[1], scale(norm)
    dx = np.empty(x.shape, x.dtype)
    x_rows, dx_rows = as_rows(x), as_rows(dx)
    dz_rows, dg, db = gradient_sums(as_rows(dy), x_rows, dx_rows, norm)
    B = -a * r * dg / m
    A, B, D = by_row(x_rows, a, B, -a * db / m - B * norm.mean)
    for piece, scratch in pieces(x_rows):
        part = np.multiply(dz_rows[piece], A[piece], out=dx_rows[piece])
        if training:
            rest = np.multiply(x_rows[piece], B[piece], out=scratch)
            rest += D[piece]
            part += rest
    return dx, dg, db


def gradient_sums(dy: Array, x: Array, dz: Array, norm: Norm) -> tuple[Array, Array, Array]:
    """Return dz, dg and db. With a ReLU, dz is written to the rows `dz`; without one it is dy itself."""
    (r, a), C = scale(norm), len(norm.mean)
    a, c, mean = by_row(x, a, norm.bias - a * norm.mean, norm.mean)
    ones = np.ones(x.shape[1], x.dtype)
    dg, db = np.empty((2, len(x)), x.dtype)
    for piece, scratch in pieces(x):
        part = dy[piece]
        if norm.relu:
            z = np.multiply(x[piece], a[piece], out=scratch)
            z += c[piece]
            part = dz[piece]
            part[...] = z > 0.0  # relu'(0) = 0
            part *= dy[piece]
        d = np.subtract(x[piece], mean[piece], out=scratch)
        dg[piece], db[piece] = row_dot(part, d), part @ ones
    return dz if norm.relu else dy, over_images(dg, C) * r, over_images(db, C)


class CpuPasses(FusedPasses):
    """The functions defined in this file."""

    moments = staticmethod(moments)
    normalise = staticmethod(normalise)
    gradients = staticmethod(gradients)


@implements(BatchNorm, "fused", devices=CPU)
class FusedBatchNorm(CpuPasses, BatchNorm):
    """BatchNorm in few passes over x."""


@implements(BatchNormInference, "fused", devices=CPU)
class FusedBatchNormInference(CpuPasses, BatchNormInference):
    """BatchNormInference in few passes over x."""

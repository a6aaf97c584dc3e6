"""Passes over x on the CPU, in pieces that fit into the cache: shared by batch norm and group norm.

A row is one channel of one image: row i of x (N, C, H, W) is channel i % C of image i // C, with H W numbers.
Every parameter is one number per row, (N C,). The two norms differ only in how these numbers are computed: in
batch norm the rows of a channel share their statistics, in group norm the rows of a group of an image.

A pass broadcasts one number along each row, so the functions that call it use NumPy's short buffers
(`minidl.allocator.short_buffers`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minidl.backend import Array

PIECE_BYTES = 256 << 10  # of x at a time: with as much of dy, dx and z it fits into a core's cache


def as_rows(x: Array) -> Array:
    """Return x (N, C, H, W) as (N C, H W)."""
    N, C, H, W = x.shape
    return x.reshape(N * C, H * W)


def row_means(rows: Array) -> Array:
    """Return the mean of each row, (n, HW) -> (n,)."""
    HW = rows.shape[1]
    return rows @ np.ones(HW, rows.dtype) / HW


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


def moment_sums(rows: Array, shift: Array) -> tuple[Array, Array]:
    """Return the sums of x - shift and of its square over each row, rows (N C, HW), shift (N C,)."""
    shift = shift[:, None]
    ones = np.ones(rows.shape[1], rows.dtype)
    sums, squares = np.empty((2, len(rows)), rows.dtype)
    for piece, scratch in pieces(rows):
        d = np.subtract(rows[piece], shift[piece], out=scratch)
        sums[piece], squares[piece] = d @ ones, row_dot(d, d)
    return sums, squares


def mean_and_variance(shift: Array, sums: Array, squares: Array, m: int) -> tuple[Array, Array]:
    """Return the mean and the variance of m numbers x, from the sums of x - shift and of its square."""
    mean, square = sums / m, squares / m
    return shift + mean, np.maximum(square - mean * mean, 0.0)  # rounding can make it negative


def normalise_rows(x: Array, a: Array, c: Array, relu: bool) -> Array:
    """Return y = a x + c, or its ReLU, x (N, C, H, W), a and c (N C,) -> y (N, C, H, W)."""
    a, c = a[:, None], c[:, None]
    y = np.empty(x.shape, x.dtype)
    x_rows, y_rows = as_rows(x), as_rows(y)
    zeros = np.zeros(x_rows.shape[1], x.dtype)  # NumPy's maximum of two arrays is faster than with a scalar
    for piece, _ in pieces(x_rows):
        z = np.multiply(x_rows[piece], a[piece], out=y_rows[piece])
        z += c[piece]
        if relu:
            np.maximum(z, zeros, out=z)
    return y


def gradient_sums(
    dy: Array, x: Array, dz: Array, a: Array, c: Array, mean: Array, relu: bool
) -> tuple[Array, Array, Array]:
    """Return dz, and the sums of dz (x - mean) and of dz over each row, (N C,) each.

    dy and x are rows. With a ReLU, dz is written to the rows `dz`; without one it is dy itself.
    """
    a, c, mean = a[:, None], c[:, None], mean[:, None]
    ones = np.ones(x.shape[1], x.dtype)
    sums, total = np.empty((2, len(x)), x.dtype)
    for piece, scratch in pieces(x):
        part = dy[piece]
        if relu:
            part = dz[piece]
            part[...] = np.multiply(x[piece], a[piece], out=scratch) > -c[piece]  # z > 0; relu'(0) = 0
            part *= dy[piece]
        d = np.subtract(x[piece], mean[piece], out=scratch)
        sums[piece], total[piece] = row_dot(part, d), part @ ones
    return dz if relu else dy, sums, total


def write_input_gradient(
    dx: Array, dz: Array, A: Array, x: Array, B: Array | None = None, D: Array | None = None
) -> None:
    """Write dx = A dz + B x + D to the rows dx, which may be dz; A, B and D are (N C,), None stands for 0."""
    A = A[:, None]
    for piece, scratch in pieces(x):
        part = np.multiply(dz[piece], A[piece], out=dx[piece])
        if B is not None:
            rest = np.multiply(x[piece], B[piece, None], out=scratch)
            rest += D[piece, None]
            part += rest

"""Batch normalisation (Ioffe & Szegedy 2015), and the ReLU that may follow it.

In training, every channel of x is shifted and scaled to mean 0 and variance 1 over the m = N H W values it
has in this batch; then a learned weight g and bias b give it any mean and variance it wants:

    mean = sum x / m,   var = sum (x - mean)^2 / m,   r = 1 / sqrt(var + eps)
    n = (x - mean) r,   z = g n + b,   y = z or relu(z)

In evaluation an image must not depend on the others in its batch, so mean and var are constants, running
averages collected in training. Either way z is one multiply-add a channel:

    z = a x + c,   a = g r,   c = b - a mean

**Backward.** Let dz = dy; with a ReLU, dz = dy where z > 0, else 0. Let dn = g dz. Moving one x moves its own
n, but in training also the mean and the variance, and through them the n of every other pixel of the
channel. Collecting the three paths gives

    dx = r ( dn - mean(dn) - n mean(dn n) ),    dg = sum(dz n),    db = sum(dz)

which reads: take from dn what batch norm cannot pass on, namely its mean (z does not change if a constant
is added to x) and its component along n (nor if x is scaled). So sum(dx) = 0, and sum(dx n) = 0
but for eps, which is why a gradient check with dz all ones sees dx = 0 and would pass almost any mistake.
Now mean(dn) = g db / m, mean(dn n) = g dg / m and n = (x - mean) r, so this is a multiply-add too:

    dx = A dz + B x + D,   A = g r,   B = -A r dg / m,   D = -A db / m - B mean

In evaluation the statistics do not move, and B = D = 0.

**Precision.** E[x^2] - E[x]^2 is a small difference of large numbers where the mean is far from zero. With
d = x - shift,

    mean = shift + mean(d),   var = mean(d^2) - mean(d)^2

holds for any shift, and little is lost if it lies among the channel's values. On the CPU it is the mean of
the first image, so that mean(d)^2 <= (N - 1) var; in the kernels it is the first pixel.

**Speed.** Fetching x takes longer than computing with it. So x alone is kept for the backward pass, since
z > 0 is cheaper to compute again than to remember; nothing of x's size is made but y and dx; and the CPU
takes every step on one piece of x while that is in its cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from minidl.allocator import short_buffers
from minidl.backend import THREADS, Array, Kernels, array_module, contiguous, cover, device_of, runs_kernels
from minidl.tensor import Function, Tensor

kernels = Kernels(__file__)

PIECE_BYTES = 256 << 10  # of x at a time on the CPU: with as much of dy, dx and z it fits a core's cache


class Norm(NamedTuple):
    """How x is normalised: four arrays of (C,), and two settings. The kernels take them in this order."""

    weight: Array
    bias: Array
    mean: Array
    var: Array
    eps: float
    relu: bool

    def scale(self) -> tuple[Array, Array]:
        """Return r and a = g r, (C,) each."""
        r = 1.0 / np.sqrt(self.var + self.eps)
        return r, self.weight * r


class BatchNorm(Function):
    """With the batch's own statistics: training. Leaves them in `mean` and `var`, each (C,)."""

    def __init__(self, eps: float, relu: bool = False) -> None:
        self.eps, self.relu = eps, relu

    def forward(self, x: Array, weight: Array, bias: Array) -> Array:
        self.x = contiguous(x)
        self.mean, self.var = moments(self.x)
        self.norm = Norm(weight, bias, self.mean, self.var, self.eps, self.relu)
        return normalise(self.x, self.norm)

    def backward(self, dy: Array) -> tuple[Array, Array, Array]:
        return gradients(contiguous(dy), self.x, self.norm, training=True)


class BatchNormInference(Function):
    """With given statistics: evaluation."""

    def __init__(self, mean: Array, var: Array, eps: float, relu: bool = False) -> None:
        self.settings = mean, var, eps, relu

    def forward(self, x: Array, weight: Array, bias: Array) -> Array:
        self.x, self.norm = contiguous(x), Norm(weight, bias, *self.settings)
        return normalise(self.x, self.norm)

    def backward(self, dy: Array) -> tuple[Array, Array, Array]:
        return gradients(contiguous(dy), self.x, self.norm, training=False)


def as_rows(x: Array) -> Array:
    """Look at x (N, C, H, W) as (N C, H W): row i is an image of channel i % C."""
    N, C, H, W = x.shape
    return x.reshape(N * C, H * W)


def by_row(rows: Array, *numbers: Array) -> Iterator[Array]:
    """Repeat each array of one number a channel (C,) for all rows: (N C, 1)."""
    return (np.tile(v, len(rows) // len(v))[:, None] for v in numbers)


def over_images(v: Array, C: int) -> Array:
    """Add up what the images of each channel gave, v (N C,) -> (C,)."""
    return v.reshape(-1, C).sum(0)


def row_dot(u: Array, v: Array) -> Array:
    """Return the inner product of each row of u with the same row of v, (n, HW), (n, HW) -> (n,)."""
    return (u[:, None] @ v[:, :, None])[:, 0, 0]


def pieces(rows: Array) -> Iterator[tuple[slice, Array]]:
    """Yield slices of the rows that fit the cache, each with an array of its shape to work in."""
    HW = rows.shape[1]
    step = max(1, PIECE_BYTES // (HW * rows.itemsize))
    room = np.empty((min(step, len(rows)), HW), rows.dtype)
    for start in range(0, len(rows), step):
        yield slice(start, start + step), room[: len(rows) - start]


@short_buffers()
def moments(x: Array) -> tuple[Array, Array]:
    """Return the mean and the variance of every channel, x (N, C, H, W) -> (C,), (C,)."""
    if runs_kernels(x):
        return moments_by_kernels(x)
    C, m, rows = x.shape[1], x.size // x.shape[1], as_rows(x)
    ones = np.ones(rows.shape[1], x.dtype)
    shift = rows[:C] @ ones / len(ones)
    (shift_of,) = by_row(rows, shift)
    sums, squares = np.empty((2, len(rows)), x.dtype)
    for piece, room in pieces(rows):
        d = np.subtract(rows[piece], shift_of[piece], out=room)
        sums[piece], squares[piece] = d @ ones, row_dot(d, d)
    mean, square = over_images(sums, C) / m, over_images(squares, C) / m
    return shift + mean, np.maximum(square - mean * mean, 0.0)


@short_buffers()
def normalise(x: Array, norm: Norm) -> Array:
    """Return y = a x + c, or its ReLU, (N, C, H, W)."""
    if runs_kernels(x):
        return normalise_by_kernels(x, norm)
    _, a = norm.scale()
    y = np.empty(x.shape, x.dtype)
    x_rows, y_rows = as_rows(x), as_rows(y)
    a, c = by_row(x_rows, a, norm.bias - a * norm.mean)
    zeros = np.zeros(x_rows.shape[1], x.dtype)  # the larger of two arrays is found faster than of one and 0.0
    for piece, _ in pieces(x_rows):
        z = np.multiply(x_rows[piece], a[piece], out=y_rows[piece])
        z += c[piece]
        if norm.relu:
            np.maximum(z, zeros, out=z)
    return y


@short_buffers()
def gradients(dy: Array, x: Array, norm: Norm, training: bool) -> tuple[Array, Array, Array]:
    """Return dx (N, C, H, W), dg and db (C,); in training the statistics moved with x."""
    if runs_kernels(x):
        return gradients_by_kernels(dy, x, norm, training)
    m, (r, a) = x.size // x.shape[1], norm.scale()
    dx = np.empty(x.shape, x.dtype)
    x_rows, dx_rows = as_rows(x), as_rows(dx)
    dz_rows, dg, db = gradient_sums(as_rows(dy), x_rows, dx_rows, norm)
    B = -a * r * dg / m
    A, B, D = by_row(x_rows, a, B, -a * db / m - B * norm.mean)
    for piece, room in pieces(x_rows):
        part = np.multiply(dz_rows[piece], A[piece], out=dx_rows[piece])
        if training:
            rest = np.multiply(x_rows[piece], B[piece], out=room)
            rest += D[piece]
            part += rest
    return dx, dg, db


def gradient_sums(dy: Array, x: Array, dz: Array, norm: Norm) -> tuple[Array, Array, Array]:
    """Return dz, dg and db. A ReLU's dz is written to the rows `dz`; without one it is dy, and nothing is."""
    (r, a), C = norm.scale(), len(norm.mean)
    a, c, mean = by_row(x, a, norm.bias - a * norm.mean, norm.mean)
    ones = np.ones(x.shape[1], x.dtype)
    dg, db = np.empty((2, len(x)), x.dtype)
    for piece, room in pieces(x):
        part = dy[piece]
        if norm.relu:
            z = np.multiply(x[piece], a[piece], out=room)
            z += c[piece]
            part = dz[piece]
            part[...] = z > 0.0  # relu'(0) = 0
            part *= dy[piece]
        d = np.subtract(x[piece], mean[piece], out=room)
        dg[piece], db[piece] = row_dot(part, d), part @ ones
    return dz if norm.relu else dy, over_images(dg, C) * r, over_images(db, C)


def weighted_sum(p: float, u: Array, q: float, v: Array) -> Array:
    """Return p u + q v, for two arrays of one shape: a running average's step, in one launch."""
    if not runs_kernels(u):
        return p * u + q * v
    y = array_module(u).empty_like(u)
    kernels.launch("weighted_sum", *cover(u.size), u, v, y, p, q, u.size)
    return y


# The same on a device that runs kernels. A channel's sums take two launches, since blocks cannot wait for
# each other: each block adds up its pixels, then one block a channel adds up what the blocks found.


def shares(x: Array) -> tuple[tuple[int, int], tuple[int]]:
    """Return (grid, block): for each channel a thread a pixel, but no more blocks than one can add up."""
    return (min(cover(x[0, 0].size)[0][0], THREADS), x.shape[1]), (THREADS,)


def sizes(x: Array) -> tuple[int, int, int]:
    """Return N, C and H W."""
    N, C, H, W = x.shape
    return N, C, H * W


def moments_by_kernels(x: Array) -> tuple[Array, Array]:
    """Return the mean and the variance of every channel, (C,), (C,)."""
    xp, (grid, block), (N, C, HW) = array_module(x), shares(x), sizes(x)
    sums, mean, var = xp.empty((2, C, grid[0]), x.dtype), xp.empty(C, x.dtype), xp.empty(C, x.dtype)
    kernels.launch("moment_sums", grid, block, x, sums, N, C, HW)
    kernels.launch("moments", (C,), block, x, sums, mean, var, grid[0], N, C, HW)
    return mean, var


def normalise_by_kernels(x: Array, norm: Norm) -> Array:
    """Return y, (N, C, H, W)."""
    y = array_module(x).empty_like(x)
    kernels.launch("normalise", *shares(x), x, *norm, y, *sizes(x))
    return y


def gradients_by_kernels(dy: Array, x: Array, norm: Norm, training: bool) -> tuple[Array, Array, Array]:
    """Return dx (N, C, H, W), dg and db (C,)."""
    xp, (grid, block), (N, C, HW) = array_module(x), shares(x), sizes(x)
    sums, dg, db = xp.empty((2, C, grid[0]), x.dtype), xp.empty(C, x.dtype), xp.empty(C, x.dtype)
    dx = xp.empty_like(x)
    share = 1.0 / (N * HW) if training else 0.0  # of a sum over the channel that one pixel answers for
    kernels.launch("gradient_sums", grid, block, dy, x, *norm, sums, N, C, HW)
    kernels.launch("gradient_totals", (C,), block, sums, dg, db, grid[0], C)
    kernels.launch("input_gradient", grid, block, dy, x, *norm, dg, db, dx, share, N, C, HW)
    return dx, dg, db


def batch_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    statistics: tuple[Array, Array] | None = None,
    eps: float = 1e-5,
    relu: bool = False,
) -> tuple[Tensor, tuple[Array, Array]]:
    """Normalise every channel of x (N, C, H, W) with weight and bias (C,); return y and the statistics used.

    `statistics` are the (mean, variance) to normalise with, each (C,); without them the batch's own are
    computed, the variance dividing by m. With `relu`, y is the ReLU of what it is without: x is read and
    y written once for both. Raises ValueError for shapes that do not fit, and for a batch with a single value
    a channel, whose variance says nothing; TypeError for statistics of another dtype or device than x.
    """
    if x.ndim != 4 or weight.shape != (x.shape[1],) or bias.shape != (x.shape[1],):
        raise ValueError(
            "batch_norm: want x (N, C, H, W), weight (C,) and bias (C,), got "
            f"{x.shape}, {weight.shape} and {bias.shape}"
        )
    if statistics is not None:
        for v in statistics:
            if (v.dtype, device_of(v)) != (x.dtype, x.device):
                raise TypeError(
                    f"batch_norm: the statistics are {v.dtype} on {device_of(v)}, "
                    f"x is {x.dtype} on {x.device}; convert them first"
                )
        return BatchNormInference(*statistics, float(eps), relu)(x, weight, bias), statistics
    if x.size == x.shape[1]:
        raise ValueError(
            f"batch_norm: x {x.shape} has one value a channel, too few for a variance in training; "
            "use a larger batch or image"
        )
    norm = BatchNorm(float(eps), relu)
    y = norm(x, weight, bias)
    return y, (norm.mean, norm.var)

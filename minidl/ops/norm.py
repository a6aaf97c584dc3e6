"""Batch normalisation (Ioffe & Szegedy 2015).

In training, every channel of x is shifted and scaled to mean 0 and variance 1 over the m = N H W values it
has in this batch; then a learned weight g and bias b give it any mean and variance it wants:

    mean = sum x / m,   var = sum (x - mean)^2 / m,   r = 1 / sqrt(var + eps)
    n = (x - mean) r,   y = g n + b

**Backward.** Let dn = g dy. Moving one x moves its own n, but also the mean and the variance, and through
them the n of every other pixel of the channel. Collecting the three paths gives

    dx = r ( dn - mean(dn) - n mean(dn n) ),    dg = sum(dy n),    db = sum(dy)

which reads: take from dn what batch norm cannot pass on, namely its mean (y does not change if a constant
is added to x) and its component along n (nor if x is scaled). So sum(dx) = 0, and sum(dx n) = 0
but for eps, which is why a gradient check with dy all ones sees dx = 0 and would pass almost any mistake.

In evaluation an image must not depend on the others in its batch, so mean and var are constants, running
averages collected in training. Then y is one multiply-add a channel, and dx = g r dy.
"""

from __future__ import annotations

from minidl.backend import Array, array_module
from minidl.tensor import Function, Tensor

CHANNEL_SUM = (0, 2, 3)  # the axes of (N, C, H, W) that a channel's statistics are taken over


def by_channel(v: Array) -> Array:
    """Give (C,) numbers the shape (C, 1, 1), which broadcasts over images and pixels."""
    return v[:, None, None]


class BatchNorm(Function):
    """With the batch's own statistics: training. Leaves them in `mean` and `var`, each (C,)."""

    def __init__(self, eps: float) -> None:
        self.eps = eps

    def forward(self, x: Array, weight: Array, bias: Array) -> Array:
        self.mean = x.mean(CHANNEL_SUM)
        n = x - by_channel(self.mean)
        self.var = (n * n).mean(CHANNEL_SUM)
        self.r = 1.0 / array_module(x).sqrt(self.var + self.eps)
        n *= by_channel(self.r)
        self.n, self.weight = n, weight
        return n * by_channel(weight) + by_channel(bias)

    def backward(self, dy: Array) -> tuple[Array, Array, Array]:
        m = dy.size // len(self.weight)
        db = dy.sum(CHANNEL_SUM)
        dg = (dy * self.n).sum(CHANNEL_SUM)
        # mean(dn) = g db / m and mean(dn n) = g dg / m, so g can be taken out of the bracket.
        dx = self.n * by_channel(dg / -m)
        dx += dy
        dx -= by_channel(db / m)
        dx *= by_channel(self.weight * self.r)
        return dx, dg, db


class BatchNormInference(Function):
    """With given statistics: evaluation. Each channel is one multiply-add, y = a x + c."""

    def __init__(self, mean: Array, var: Array, eps: float) -> None:
        self.mean, self.var, self.eps = mean, var, eps

    def forward(self, x: Array, weight: Array, bias: Array) -> Array:
        self.r = 1.0 / array_module(x).sqrt(self.var + self.eps)
        self.x, self.weight = x, weight
        a = weight * self.r
        return x * by_channel(a) + by_channel(bias - a * self.mean)

    def backward(self, dy: Array) -> tuple[Array, Array, Array]:
        db = dy.sum(CHANNEL_SUM)
        dg = ((dy * self.x).sum(CHANNEL_SUM) - self.mean * db) * self.r  # sum(dy n)
        return dy * by_channel(self.weight * self.r), dg, db


def batch_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    statistics: tuple[Array, Array] | None = None,
    eps: float = 1e-5,
) -> tuple[Tensor, tuple[Array, Array]]:
    """Normalise every channel of x (N, C, H, W) with weight and bias (C,); return y and the statistics used.

    `statistics` are the (mean, variance) to normalise with, each (C,); without them the batch's own are
    computed, the variance dividing by m. Raises ValueError if a batch has a single value a channel,
    whose variance says nothing.
    """
    if x.ndim != 4 or weight.shape != (x.shape[1],) or bias.shape != (x.shape[1],):
        raise ValueError(
            "batch_norm: want x (N, C, H, W), weight (C,) and bias (C,), got "
            f"{x.shape}, {weight.shape} and {bias.shape}"
        )
    if statistics is not None:
        return BatchNormInference(*statistics, eps)(x, weight, bias), statistics
    if x.size == x.shape[1]:
        raise ValueError(
            f"batch_norm: x {x.shape} has one value a channel, too few for a variance in training; "
            "use a larger batch or image"
        )
    norm = BatchNorm(eps)
    y = norm(x, weight, bias)
    return y, (norm.mean, norm.var)

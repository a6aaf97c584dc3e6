"""Batch normalisation (Ioffe & Szegedy 2015), and the ReLU that may follow it: the definition.

In training, every channel of x is shifted and scaled to mean 0 and variance 1 over the m = N H W values that
it has in this batch; then a learned weight g and bias b give it any other mean and variance:

    mean = sum x / m,   var = sum (x - mean)^2 / m,   r = 1 / sqrt(var + eps)
    n = (x - mean) r,   z = g n + b,   y = z or relu(z)

In evaluation the result for an image must not depend on the other images of its batch. There mean and var
are constants: running averages that were collected in training.

**Backward.** Let dz = dy; with a ReLU, dz = dy where z > 0, else 0. Let dn = g dz. A change of one x changes
its own n, but in training also the mean and the variance, and through them the n of every other pixel of the
channel. The sum over the three paths is

    dx = r ( dn - mean(dn) - n mean(dn n) ),    dg = sum(dz n),    db = sum(dz)

and mean(dn) = g db / m, mean(dn n) = g dg / m.

The bracket removes from dn the two parts that cannot pass a batch norm: its mean, because z does not change
if a constant is added to x, and its component along n, because z does not change if x is scaled. So
sum(dx) = 0 and, apart from eps, sum(dx n) = 0. If dz is 1 everywhere, dx is therefore 0, and a gradient
check would pass almost any mistake; that is why the checks use a random dz. In evaluation the statistics are
constants, and dx = r dn.

**Several processes** (`minidl.parallel`) each compute a share of the batch, but its statistics are those of
the whole batch. Each process computes the mean and the variance of its share, and all exchange them. With the
share w_i of the images in process i, the sum of the w_i being 1 (Chan, Golub & LeVeque 1979),

    mean = sum w_i mean_i,    var = sum w_i (var_i + (mean_i - mean)^2)

In the backward pass, dg and db are summed over the processes before dx is computed. The sums of a process's
own share are its gradients of g and b: like all gradients of parameters, they are added later. The moments
are gathered, as PyTorch's SyncBatchNorm does, in one exchange; sums would need two, first for the mean.

`fused_cpu.py` and `fused_cuda.py` compute the same results with fewer passes over x.
"""

from __future__ import annotations

from typing import Protocol

from minidl.backend import Array, array_module, device_of
from minidl.implementation import choose
from minidl.tensor import Function, Tensor


def per_channel(v: Array) -> Array:
    """Reshape one number per channel for broadcasting over images, v (C,) -> (C, 1, 1)."""
    return v[:, None, None]


class Processes(Protocol):
    """What batch norm needs to know of the processes that share a batch (`minidl.parallel`)."""

    images: int  # in the whole batch
    weights: tuple[float, ...]  # the share of each process in these images
    rank: int  # this process is number `rank`

    def gather(self, array: Array) -> Array:
        """Return the arrays of all processes, (...) -> (size, ...)."""

    def sum(self, array: Array) -> None:
        """Add the arrays of all processes, in place."""


def values_per_channel(shape: tuple[int, ...], processes: Processes | None = None) -> int:
    """Return m = N H W, where N are the images of the whole batch."""
    N, _, H, W = shape
    return (processes.images if processes else N) * H * W


def moments(x: Array) -> tuple[Array, Array]:
    """Return the mean and the variance of every channel, x (N, C, H, W) -> (C,), (C,)."""
    mean = x.mean((0, 2, 3))  # (C,)
    d = x - per_channel(mean)  # (N, C, H, W)
    return mean, (d * d).mean((0, 2, 3))


class BatchNorm(Function):
    """Batch norm with the batch's own statistics, for training; they stay in `mean` and `var`, (C,) each.

    With `processes`, x is this process's share of the batch.
    """

    training = True
    moments = staticmethod(moments)

    def __init__(self, eps: float, relu: bool = False, processes: Processes | None = None) -> None:
        self.eps, self.relu, self.processes = eps, relu, processes

    def forward(self, x: Array, weight: Array, bias: Array) -> Array:
        self.mean, self.var = self.statistics(x)
        return self.normalise(x - per_channel(self.mean), weight, bias)

    def statistics(self, x: Array) -> tuple[Array, Array]:
        """Return the mean and the variance of every channel of the whole batch, (C,) each."""
        self.m = values_per_channel(x.shape, self.processes)
        own = self.moments(x)
        if self.processes is None:
            return own
        means, variances = self.processes.gather(array_module(x).stack(own)).swapaxes(0, 1)  # (size, C) each
        pairs = list(zip(self.processes.weights, means, variances, strict=True))
        mean = sum(w * mean_i for w, mean_i, _ in pairs)
        return mean, sum(w * (var_i + (mean_i - mean) ** 2) for w, mean_i, var_i in pairs)

    def of_whole_batch(self, dg: Array, db: Array) -> tuple[Array, Array]:
        """Return dg and db of the whole batch, given those of this process's share."""
        if self.processes is None:
            return dg, db
        both = array_module(dg).stack((dg, db))  # (2, C)
        if self.processes.weights[self.processes.rank] == 0.0:
            both[...] = 0.0
        self.processes.sum(both)
        return both[0], both[1]

    def normalise(self, d: Array, weight: Array, bias: Array) -> Array:
        """Return y for d = x - mean, and store what the backward pass needs."""
        self.weight = weight
        self.r = 1.0 / array_module(d).sqrt(self.var + self.eps)  # (C,)
        self.n = d * per_channel(self.r)  # (N, C, H, W)
        z = per_channel(weight) * self.n + per_channel(bias)
        self.positive = z > 0.0  # where a ReLU passes the gradient on; relu'(0) = 0
        return array_module(z).maximum(z, 0.0) if self.relu else z

    def backward(self, dy: Array) -> tuple[Array, Array, Array]:
        dz = dy * self.positive if self.relu else dy
        dg, db = (dz * self.n).sum((0, 2, 3)), dz.sum((0, 2, 3))
        return self.input_gradient(dz, dg, db), dg, db

    def input_gradient(self, dz: Array, dg: Array, db: Array) -> Array:
        """Return dx; the statistics depend on x."""
        dg, db = self.of_whole_batch(dg, db)
        means = per_channel(db / self.m) + self.n * per_channel(dg / self.m)
        return per_channel(self.r * self.weight) * (dz - means)


class BatchNormInference(BatchNorm):
    """Batch norm with given statistics, for evaluation."""

    training = False

    def __init__(self, mean: Array, var: Array, eps: float, relu: bool = False) -> None:
        super().__init__(eps, relu)
        self.mean, self.var = mean, var

    def forward(self, x: Array, weight: Array, bias: Array) -> Array:
        return self.normalise(x - per_channel(self.mean), weight, bias)

    def input_gradient(self, dz: Array, dg: Array, db: Array) -> Array:
        """Return dx; the statistics are constants."""
        return per_channel(self.r * self.weight) * dz


def batch_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    statistics: tuple[Array, Array] | None = None,
    eps: float = 1e-5,
    relu: bool = False,
    processes: Processes | None = None,
) -> tuple[Tensor, tuple[Array, Array]]:
    """Normalise every channel of x (N, C, H, W) with weight and bias (C,); return y and the statistics used.

    `statistics` are the (mean, variance) to normalise with, each (C,); without them those of the batch are
    computed, the variance dividing by m. With `relu`, the ReLU of the result is returned, computed in the
    same pass. With `processes`, x is this process's share of a batch, and the statistics are those of the
    whole batch. Raises ValueError for shapes that do not fit, and for a batch with less than two values per
    channel, which has no variance; TypeError for statistics of another dtype or device than x.
    """
    if x.ndim != 4 or weight.shape != (x.shape[1],) or bias.shape != (x.shape[1],):
        raise ValueError(
            "batch_norm: expected x (N, C, H, W), weight (C,) and bias (C,), got "
            f"{x.shape}, {weight.shape} and {bias.shape}"
        )
    if statistics is not None:
        for v in statistics:
            if v.shape != (x.shape[1],):
                raise ValueError(f"batch_norm: expected statistics ({x.shape[1]},), got {v.shape}")
            if (v.dtype, device_of(v)) != (x.dtype, x.device):
                raise TypeError(
                    f"batch_norm: the statistics are {v.dtype} on {device_of(v)}, "
                    f"x is {x.dtype} on {x.device}; convert them first"
                )
        inference = choose(BatchNormInference, x.device)
        return inference(*statistics, float(eps), relu)(x, weight, bias), statistics
    if (values := values_per_channel(x.shape, processes)) < 2 or not x.data.size:
        count = "one value" if values == 1 else "no value"
        raise ValueError(
            f"batch_norm: x {x.shape} has {count} per channel, too few for a variance in training; "
            "use a larger batch or image"
        )
    norm = choose(BatchNorm, x.device)(float(eps), relu, processes)
    y = norm(x, weight, bias)
    return y, (norm.mean, norm.var)

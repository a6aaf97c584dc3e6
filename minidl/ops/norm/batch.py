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

The bracket removes from dn the two parts that cannot pass a batch norm: its mean, because z does not change
if a constant is added to x, and its component along n, because z does not change if x is scaled. So
sum(dx) = 0 and, apart from eps, sum(dx n) = 0. If dz is 1 everywhere, dx is therefore 0, and a gradient
check would pass almost any mistake; that is why the checks use a random dz. In evaluation the statistics are
constants, and dx = r dn.

`fused_cpu.py` and `fused_cuda.py` compute the same results with fewer passes over x.
"""

from __future__ import annotations

from minidl.backend import Array, array_module, device_of
from minidl.implementation import choose
from minidl.tensor import Function, Tensor


def per_channel(v: Array) -> Array:
    """Reshape one number per channel for broadcasting over images, v (C,) -> (C, 1, 1)."""
    return v[:, None, None]


class BatchNorm(Function):
    """Batch norm with the batch's own statistics, for training; they stay in `mean` and `var`, (C,) each."""

    training = True

    def __init__(self, eps: float, relu: bool = False) -> None:
        self.eps, self.relu = eps, relu

    def forward(self, x: Array, weight: Array, bias: Array) -> Array:
        self.mean = x.mean((0, 2, 3))  # (C,)
        d = x - per_channel(self.mean)  # (N, C, H, W)
        self.var = (d * d).mean((0, 2, 3))  # (C,)
        return self.normalise(d, weight, bias)

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
        dn = per_channel(self.weight) * dz
        return self.input_gradient(dn), (dz * self.n).sum((0, 2, 3)), dz.sum((0, 2, 3))

    def input_gradient(self, dn: Array) -> Array:
        """Return dx; the statistics depend on x."""
        n, axes = self.n, (0, 2, 3)
        along_n = per_channel((dn * n).mean(axes))
        return per_channel(self.r) * (dn - per_channel(dn.mean(axes)) - n * along_n)


class BatchNormInference(BatchNorm):
    """Batch norm with given statistics, for evaluation."""

    training = False

    def __init__(self, mean: Array, var: Array, eps: float, relu: bool = False) -> None:
        super().__init__(eps, relu)
        self.mean, self.var = mean, var

    def forward(self, x: Array, weight: Array, bias: Array) -> Array:
        return self.normalise(x - per_channel(self.mean), weight, bias)

    def input_gradient(self, dn: Array) -> Array:
        """Return dx; the statistics are constants."""
        return per_channel(self.r) * dn


def batch_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    statistics: tuple[Array, Array] | None = None,
    eps: float = 1e-5,
    relu: bool = False,
) -> tuple[Tensor, tuple[Array, Array]]:
    """Normalise every channel of x (N, C, H, W) with weight and bias (C,); return y and the statistics used.

    `statistics` are the (mean, variance) to normalise with, each (C,); without them those of the batch are
    computed, the variance dividing by m. With `relu`, the ReLU of the result is returned, computed in the
    same pass. Raises ValueError for shapes that do not fit, and for a batch with a single value per channel,
    which has no variance; TypeError for statistics of another dtype or device than x.
    """
    if x.ndim != 4 or weight.shape != (x.shape[1],) or bias.shape != (x.shape[1],):
        raise ValueError(
            "batch_norm: expected x (N, C, H, W), weight (C,) and bias (C,), got "
            f"{x.shape}, {weight.shape} and {bias.shape}"
        )
    if statistics is not None:
        for v in statistics:
            if (v.dtype, device_of(v)) != (x.dtype, x.device):
                raise TypeError(
                    f"batch_norm: the statistics are {v.dtype} on {device_of(v)}, "
                    f"x is {x.dtype} on {x.device}; convert them first"
                )
        inference = choose(BatchNormInference, x.device)
        return inference(*statistics, float(eps), relu)(x, weight, bias), statistics
    if x.size == x.shape[1]:
        raise ValueError(
            f"batch_norm: x {x.shape} has one value per channel, too few for a variance in training; "
            "use a larger batch or image"
        )
    norm = choose(BatchNorm, x.device)(float(eps), relu)
    y = norm(x, weight, bias)
    return y, (norm.mean, norm.var)

"""Group normalisation (Wu & He 2018): the arithmetic of batch norm over groups of channels of one image.

The C channels are divided into G groups of C/G neighbours. Every group of every image is shifted and scaled
to mean 0 and variance 1 over its m = (C/G) H W values; then each channel has its own weight g and bias b:

    mean = sum x / m,   var = sum (x - mean)^2 / m,   r = 1 / sqrt(var + eps)
    n = (x - mean) r,   z = g n + b,   y = z or relu(z)

No sum runs over images. The result for an image therefore does not depend on its batch, and evaluation is the
same computation as training: there are no running statistics, of which batch norm needs one set for every
step of a recurrence.

**Backward.** Let dz = dy; with a ReLU, dz = dy where z > 0, else 0. With dn = g dz the derivation is that of
batch norm, with means over a group:

    dx = r ( dn - mean(dn) - n mean(dn n) ),    dg = sum(dz n),    db = sum(dz)

Here g differs within a group, so it stays inside the bracket. With one value in a group, n = 0, z = b and
dx = 0.

`group_cpu.py` and `group_cuda.py` compute the same results with fewer passes over x.
"""

from __future__ import annotations

from minidl.backend import Array, array_module
from minidl.implementation import choose
from minidl.ops.norm.batch import per_channel
from minidl.tensor import Function, Tensor


class GroupNorm(Function):
    """Normalise each group of channels of each image, then apply a weight and a bias per channel."""

    def __init__(self, groups: int, eps: float, relu: bool = False) -> None:
        self.groups, self.eps, self.relu = groups, eps, relu

    def forward(self, x: Array, weight: Array, bias: Array) -> Array:
        xp, n = array_module(x), self._grouped(x)  # (N, C, H, W) -> (N, G, m)
        n = n - n.mean(2, keepdims=True)
        var = (n * n).mean(2, keepdims=True)  # (N, G, 1)
        self.r = 1.0 / xp.sqrt(var + self.eps)
        n *= self.r
        self.n, self.weight = n.reshape(x.shape), weight
        z = per_channel(weight) * self.n + per_channel(bias)
        self.positive = z > 0.0  # where a ReLU passes the gradient on; relu'(0) = 0
        return xp.maximum(z, 0.0) if self.relu else z

    def backward(self, dy: Array) -> tuple[Array, Array, Array]:
        dz = dy * self.positive if self.relu else dy
        dn, n = self._grouped(per_channel(self.weight) * dz), self._grouped(self.n)  # (N, G, m)
        dx = dn - dn.mean(2, keepdims=True)
        dx -= n * (dn * n).mean(2, keepdims=True)
        dx *= self.r
        return dx.reshape(dy.shape), (dz * self.n).sum((0, 2, 3)), dz.sum((0, 2, 3))

    def _grouped(self, x: Array) -> Array:
        return x.reshape(len(x), self.groups, -1)


def group_norm(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float = 1e-5, relu: bool = False
) -> Tensor:
    """Normalise each of `groups` groups of channels of every image, x (N, C, H, W) -> y (N, C, H, W).

    weight and bias are (C,). One group is layer norm over an image, C groups are instance norm. With `relu`,
    the ReLU of the result is returned, computed in the same pass. Raises ValueError if the channels cannot be
    divided into this number of groups, and for an empty x.
    """
    if x.ndim != 4 or weight.shape != (x.shape[1],) or bias.shape != (x.shape[1],):
        raise ValueError(
            "group_norm: expected x (N, C, H, W), weight (C,) and bias (C,), got "
            f"{x.shape}, {weight.shape} and {bias.shape}"
        )
    if groups < 1 or x.shape[1] % groups:
        raise ValueError(f"group_norm: {x.shape[1]} channels do not divide into {groups} groups")
    if not x.data.size:
        raise ValueError(f"group_norm: x {x.shape} is empty")
    return choose(GroupNorm, x.device, x.shape, groups)(groups, float(eps), relu)(x, weight, bias)

"""The step of a running average, p u + q v, for the statistics of batch norm and for `minidl.ema`.

It is not part of the graph and is not differentiated. On a GPU it takes one launch per array.
"""

from __future__ import annotations

from minidl.backend import GPU, Array, Kernels, array_module, cover, device_of
from minidl.implementation import choose, implements

kernels = Kernels(__file__)


def weighted_sum(p: float, u: Array, q: float, v: Array) -> Array:
    """Return p u + q v, for two contiguous arrays of one shape, as a new array."""
    return choose(add_weighted, device_of(u))(p, u, q, v)


def add_weighted(p: float, u: Array, q: float, v: Array) -> Array:
    """The definition of `weighted_sum`."""
    return p * u + q * v


@implements(add_weighted, "kernels", devices=GPU)
def add_weighted_by_kernels(p: float, u: Array, q: float, v: Array) -> Array:
    """Return p u + q v in one launch, with one thread per element."""
    y = array_module(u).empty_like(u)
    kernels.launch("weighted_sum", *cover(u.size), u, v, y, p, q, u.size)
    return y

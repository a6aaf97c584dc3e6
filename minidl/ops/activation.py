"""The two nonlinearities of R2U-Net: ReLU between layers, the sigmoid at the end.

ReLU (Nair & Hinton 2010) is y = max(x, 0). Its derivative is 1 for x > 0 and 0 for x < 0. At x = 0 there is
none, and 0 is taken: a unit that is just off stays off. Since y > 0 exactly where x > 0, backward needs y
alone, which the next layer keeps anyway.

The sigmoid is y = 1 / (1 + exp(-x)), and dy/dx = y (1 - y). For large negative x the exponential overflows,
so e = exp(-|x|) <= 1 is computed instead: y = 1 / (1 + e) for x >= 0, and e / (1 + e) for x < 0.
"""

from __future__ import annotations

from minidl.backend import Array, array_module
from minidl.tensor import Function, Tensor


class ReLU(Function):
    """y = max(x, 0)."""

    def forward(self, x: Array) -> Array:
        self.y = array_module(x).maximum(x, 0.0)
        return self.y

    def backward(self, dy: Array) -> Array:
        return dy * (self.y > 0)  # relu'(0) = 0


def stable_sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)) without overflow, on a raw array."""
    xp = array_module(x)
    e = xp.exp(-xp.abs(x))  # in (0, 1]
    return xp.where(x >= 0, 1.0, e).astype(x.dtype, copy=False) / (1.0 + e)


class Sigmoid(Function):
    """y = 1 / (1 + exp(-x))."""

    def forward(self, x: Array) -> Array:
        self.y = stable_sigmoid(x)
        return self.y

    def backward(self, dy: Array) -> Array:
        return dy * self.y * (1.0 - self.y)


def relu(x: Tensor) -> Tensor:
    """Return max(x, 0)."""
    return ReLU()(x)


def sigmoid(x: Tensor) -> Tensor:
    """Return 1 / (1 + exp(-x)), a number between 0 and 1 for every element."""
    return Sigmoid()(x)

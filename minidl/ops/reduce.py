"""Reductions: sum, mean and maximum over some axes or over all of them.

A sum gives every element the same weight, so its gradient is dy, copied along the axes that were summed. A
mean is the sum of n elements divided by n. A maximum depends on only one element, which receives the whole
gradient. If several are equal, the first of them receives it, so that the result is deterministic.
"""

from __future__ import annotations

import math

from minidl.backend import Array, array_module
from minidl.tensor import Function, Tensor

Axis = int | tuple[int, ...] | None


def spread(dy: Array, shape: tuple[int, ...], axis: Axis, keepdims: bool) -> Array:
    """Broadcast a reduced array to the `shape` that it was reduced from."""
    xp = array_module(dy)
    if axis is not None and not keepdims:
        dy = xp.expand_dims(dy, axis)
    return xp.broadcast_to(dy, shape)


class Sum(Function):
    """The sum over some axes, or over all."""

    def __init__(self, axis: Axis = None, keepdims: bool = False) -> None:
        self.axis, self.keepdims = axis, keepdims

    def forward(self, x: Array) -> Array:
        self.shape = x.shape
        return x.sum(axis=self.axis, keepdims=self.keepdims)

    def backward(self, dy: Array) -> Array:
        return spread(dy, self.shape, self.axis, self.keepdims)


class Mean(Sum):
    """The sum divided by the number of its terms."""

    def forward(self, x: Array) -> Array:
        y = super().forward(x)
        self.count = x.size // math.prod(y.shape)
        return y / self.count

    def backward(self, dy: Array) -> Array:
        return super().backward(dy / self.count)


class Max(Function):
    """The maximum along an axis, or over all axes."""

    def __init__(self, axis: int | None = None, keepdims: bool = False) -> None:
        self.axis, self.keepdims = axis, keepdims

    def forward(self, x: Array) -> Array:
        xp = array_module(x)
        self.shape = x.shape
        self.index = xp.expand_dims(x.argmax(self.axis), self.axis) if self.axis is not None else x.argmax()
        return x.max(axis=self.axis, keepdims=self.keepdims)

    def backward(self, dy: Array) -> Array:
        xp = array_module(dy)
        if self.axis is None:
            dx = xp.zeros(self.shape, dy.dtype)
            dx.reshape(-1)[self.index] = dy.reshape(())
            return dx
        dy = dy if self.keepdims else xp.expand_dims(dy, self.axis)
        along = [1] * len(self.shape)
        along[self.axis] = self.shape[self.axis]
        place = xp.arange(self.shape[self.axis]).reshape(along)
        # put_along_axis would do the same, but older versions of CuPy lack it.
        return xp.where(place == self.index, dy, dy.dtype.type(0))


def sum(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the sum over one axis, several, or all of them."""
    return Sum(axis, keepdims)(x)


def mean(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the mean over one axis, several, or all of them."""
    return Mean(axis, keepdims)(x)


def max(x: Tensor, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Return the maximum over one axis or all of them; of equal elements the first receives the gradient."""
    return Max(axis, keepdims)(x)

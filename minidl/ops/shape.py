"""Operations that move elements without changing them: reshape, transpose, concat, pad, slice.

Each is a linear map that copies elements to new places, y = P x, where P consists of zeros and ones. Its
gradient is the transpose, dx = P^T dy, which moves them back. These operations therefore come in pairs of
adjoints: concat and split (here a slice for each part), pad and crop, a transpose and its inverse.
`check_adjoint` in `minidl.gradcheck` tests this: <P x, y> = <x, P^T y>.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from minidl.backend import Array, array_module
from minidl.tensor import Function, Tensor


class Reshape(Function):
    """The same elements in the same order in another shape."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def forward(self, x: Array) -> Array:
        self.old_shape = x.shape
        return x.reshape(self.shape)

    def backward(self, dy: Array) -> Array:
        return dy.reshape(self.old_shape)


class Transpose(Function):
    """The same elements with the axes in another order."""

    def __init__(self, axes: Sequence[int] | None = None) -> None:
        self.axes = axes

    def forward(self, x: Array) -> Array:
        if self.axes is None:
            self.axes = tuple(reversed(range(x.ndim)))
        return x.transpose(self.axes)

    def backward(self, dy: Array) -> Array:
        inverse = sorted(range(dy.ndim), key=lambda i: self.axes[i] % dy.ndim)
        return dy.transpose(inverse)


class Concat(Function):
    """Arrays joined along an axis, such as the channels of a skip connection and of the decoder."""

    def __init__(self, axis: int = 1) -> None:
        self.axis = axis

    def forward(self, *arrays: Array) -> Array:
        self.ends = list(itertools.accumulate(a.shape[self.axis] for a in arrays))
        return array_module(arrays[0]).concatenate(arrays, self.axis)

    def backward(self, dy: Array) -> tuple[Array, ...]:
        return tuple(array_module(dy).split(dy, self.ends[:-1], self.axis))


class Pad(Function):
    """Zeros around the last two axes; the adjoint is the crop that removes them."""

    def __init__(self, height: tuple[int, int], width: tuple[int, int]) -> None:
        self.height, self.width = height, width

    def forward(self, x: Array) -> Array:
        H, W = x.shape[-2:]
        self.inner = (..., slice(self.height[0], self.height[0] + H), slice(self.width[0], self.width[0] + W))
        y = array_module(x).zeros((*x.shape[:-2], H + sum(self.height), W + sum(self.width)), x.dtype)
        y[self.inner] = x
        return y

    def backward(self, dy: Array) -> Array:
        return dy[self.inner]


class GetItem(Function):
    """A slice, or any other NumPy index; an element that is taken twice receives both gradients."""

    def __init__(self, index: Any) -> None:
        self.index = index

    def forward(self, x: Array) -> Array:
        self.shape = x.shape
        return x[self.index]

    def backward(self, dy: Array) -> Array:
        xp = array_module(dy)
        dx = xp.zeros(self.shape, dy.dtype)
        index = self.index if isinstance(self.index, tuple) else (self.index,)
        if all(isinstance(i, int | slice | type(...) | None) for i in index):
            dx[self.index] = dy  # a view: no element is taken twice
        else:
            xp.add.at(dx, self.index, dy)
        return dx


def reshape(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the same elements, in the same order, in another shape; one size may be -1."""
    return Reshape(shape)(x)


def transpose(x: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    """Return x with its axes in another order, by default reversed."""
    return Transpose(axes)(x)


def concat(tensors: Sequence[Tensor], axis: int = 1) -> Tensor:
    """Join tensors along an axis; by default along the channels, (N, C1, H, W) + (N, C2, H, W)."""
    shapes = [t.shape for t in tensors]
    if len({(*s[: axis % len(s)], *s[axis % len(s) + 1 :]) for s in shapes}) != 1:
        listed = ", ".join(map(str, shapes))
        raise ValueError(f"concat: shapes {listed} differ in more than axis {axis}")
    return Concat(axis)(*tensors)


def pad(x: Tensor, height: tuple[int, int], width: tuple[int, int]) -> Tensor:
    """Pad an image with zeros, x (..., H, W) -> y (..., top + H + bottom, left + W + right)."""
    return Pad(height, width)(x)


def getitem(x: Tensor, index: Any) -> Tensor:
    """Return x[index]."""
    return GetItem(index)(x)

"""The two nonlinearities of R2U-Net: ReLU between layers, the sigmoid at the end.

ReLU (Nair & Hinton 2010) is y = max(x, 0). Its derivative is 1 for x > 0 and 0 for x < 0. At x = 0 there is
none, and 0 is taken: a unit that is just off stays off. Since y > 0 exactly where x > 0, backward needs y
alone, which the next layer keeps anyway.

The sigmoid is y = 1 / (1 + exp(-x)), and dy/dx = y (1 - y). For large negative x the exponential overflows,
so e = exp(-|x|) <= 1 is computed instead: y = 1 / (1 + e) for x >= 0, and e / (1 + e) for x < 0.
"""

from __future__ import annotations

from minidl.backend import Array, Kernels, array_module, contiguous, cover, runs_kernels
from minidl.tensor import Function, Tensor

kernels = Kernels(__file__)


class ReLU(Function):
    """y = max(x, 0)."""

    def forward(self, x: Array) -> Array:
        self.y = _each("relu_forward", x) if runs_kernels(x) else array_module(x).maximum(x, 0.0)
        return self.y

    def backward(self, dy: Array) -> Array:
        if runs_kernels(dy):
            return _each("relu_backward", dy, self.y)
        return dy * (self.y > 0)  # relu'(0) = 0


def stable_sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)) without overflow, on a raw array."""
    if runs_kernels(x):
        return _each("sigmoid_forward", x)
    xp = array_module(x)
    e = xp.exp(-xp.abs(x))  # in (0, 1]
    return xp.maximum(e, x >= 0) / (1.0 + e)  # the maximum of e <= 1 and True is 1


class Sigmoid(Function):
    """y = 1 / (1 + exp(-x))."""

    def forward(self, x: Array) -> Array:
        self.y = stable_sigmoid(x)
        return self.y

    def backward(self, dy: Array) -> Array:
        if runs_kernels(dy):
            return _each("sigmoid_backward", dy, self.y)
        return dy * self.y * (1.0 - self.y)


def relu(x: Tensor) -> Tensor:
    """Return max(x, 0)."""
    return ReLU()(x)


def sigmoid(x: Tensor) -> Tensor:
    """Return 1 / (1 + exp(-x)), a number between 0 and 1 for every element."""
    return Sigmoid()(x)


def _each(kernel: str, *inputs: Array) -> Array:
    """Return an array like the inputs, each number computed by a thread from the inputs' in its place."""
    inputs = tuple(contiguous(a) for a in inputs)
    output = array_module(inputs[0]).empty_like(inputs[0])
    kernels.launch(kernel, *cover(output.size), *inputs, output, output.size)
    return output

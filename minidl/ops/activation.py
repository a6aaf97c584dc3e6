"""The two activation functions of R2U-Net: ReLU between layers, the sigmoid at the end.

ReLU (Nair & Hinton 2010) is y = max(x, 0). Its derivative is 1 for x > 0 and 0 for x < 0. At x = 0 it has no
derivative, and 0 is used, so that a unit that is exactly off stays off. Since y > 0 exactly where x > 0, the
backward pass needs only y, which the next layer keeps anyway.

The sigmoid is y = 1 / (1 + exp(-x)), and dy/dx = y (1 - y). For large negative x the exponential overflows,
so e = exp(-|x|) <= 1 is computed instead: y = 1 / (1 + e) for x >= 0, and e / (1 + e) for x < 0.
"""

from __future__ import annotations

from minidl.backend import GPU, Array, Kernels, array_module, contiguous, cover
from minidl.implementation import choose, implements
from minidl.tensor import Function, Tensor

kernels = Kernels(__file__)


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
    return xp.maximum(e, x >= 0) / (1.0 + e)  # the maximum of e <= 1 and True is 1


class Sigmoid(Function):
    """y = 1 / (1 + exp(-x))."""

    def forward(self, x: Array) -> Array:
        self.y = stable_sigmoid(x)
        return self.y

    def backward(self, dy: Array) -> Array:
        return dy * self.y * (1.0 - self.y)


@implements(ReLU, "kernels", devices=GPU)
class ReLUKernels(ReLU):
    """ReLU with one launch for each pass."""

    def forward(self, x: Array) -> Array:
        self.y = _launch("relu_forward", x)
        return self.y

    def backward(self, dy: Array) -> Array:
        return _launch("relu_backward", dy, self.y)


@implements(Sigmoid, "kernels", devices=GPU)
class SigmoidKernels(Sigmoid):
    """Sigmoid with one launch for each pass."""

    def forward(self, x: Array) -> Array:
        self.y = _launch("sigmoid_forward", x)
        return self.y

    def backward(self, dy: Array) -> Array:
        return _launch("sigmoid_backward", dy, self.y)


def _launch(kernel: str, *inputs: Array) -> Array:
    """Return an array like the inputs; each thread computes one number from the inputs at its place."""
    inputs = tuple(contiguous(a) for a in inputs)
    output = array_module(inputs[0]).empty_like(inputs[0])
    kernels.launch(kernel, *cover(output.size), *inputs, output, output.size)
    return output


def relu(x: Tensor) -> Tensor:
    """Return max(x, 0)."""
    return choose(ReLU, x.device)()(x)


def sigmoid(x: Tensor) -> Tensor:
    """Return 1 / (1 + exp(-x)), a number between 0 and 1 for every element."""
    return choose(Sigmoid, x.device)()(x)

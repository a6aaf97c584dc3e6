"""Binary cross-entropy on logits x, against a mask t of zeros and ones.

With p = sigmoid(x), it is the mean over all elements of -t log p - (1 - t) log(1 - p). Substituting
p = 1 / (1 + exp(-x)) gives, for each element,

    L_i = max(x, 0) - x t + log(1 + exp(-|x|))          dL_i/dx = p - t

The left formula never takes the logarithm of zero, for any x. The right formula is the reason why sigmoid and
logarithm are one operation: their derivatives cancel, and a confident mistake keeps a gradient near 1 instead
of losing it.
"""

from __future__ import annotations

import math

from minidl.backend import GPU, Array, Kernels, array_module, contiguous, cover
from minidl.implementation import choose, implements
from minidl.ops.activation import stable_sigmoid
from minidl.ops.loss.target import target_array
from minidl.tensor import Function, Tensor

kernels = Kernels(__file__)
BLOCK = 256  # threads of a block that sums
BLOCKS = 1024  # the maximum number of blocks in a sum over everything: enough to occupy a whole GPU


class BinaryCrossEntropyWithLogits(Function):
    """The mean of max(x, 0) - x t + log(1 + exp(-|x|))."""

    def __init__(self, target: Array) -> None:
        self.target = target

    def forward(self, x: Array) -> Array:
        xp = array_module(x)
        self.x = x
        return (xp.maximum(x, 0.0) - x * self.target + xp.log1p(xp.exp(-xp.abs(x)))).mean()

    def backward(self, dy: Array) -> Array:
        return (stable_sigmoid(self.x) - self.target) * (dy / self.x.size)


@implements(BinaryCrossEntropyWithLogits, "kernels", devices=GPU)
class BinaryCrossEntropyWithLogitsKernels(BinaryCrossEntropyWithLogits):
    """Binary cross-entropy with two launches forward and one backward."""

    def forward(self, x: Array) -> Array:
        self.x, self.target = contiguous(x), contiguous(self.target)
        blocks = min(BLOCKS, math.ceil(x.size / BLOCK))
        partial, loss = (array_module(x).empty(shape, x.dtype) for shape in (blocks, ()))
        kernels.launch("cross_entropy_sums", (blocks,), (BLOCK,), self.x, self.target, partial, x.size)
        kernels.launch("cross_entropy", (1,), (BLOCK,), partial, loss, blocks, x.size)
        return loss

    def backward(self, dy: Array) -> Array:
        dx = array_module(dy).empty_like(self.x)
        kernels.launch("cross_entropy_backward", *cover(dx.size), dy, self.x, self.target, dx, dx.size)
        return dx


def binary_cross_entropy_with_logits(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean cross-entropy between sigmoid(logits) and a target in [0, 1] of the same shape."""
    t = target_array(logits, target, "binary_cross_entropy_with_logits")
    return choose(BinaryCrossEntropyWithLogits, logits.device)(t)(logits)

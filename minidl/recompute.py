"""Activation checkpointing: recompute a module's activations in the backward pass instead of storing them.

The backward pass needs the activations of the forward pass, so a training step stores nearly every array of
the network. With checkpointing it stores only the input x of each module. When backpropagation reaches the
module, its forward pass runs once more, now recorded; backpropagation through this graph frees it again (Chen
et al. 2016, "Training Deep Nets with Sublinear Memory Cost").

**Memory.** Divide a chain of n equal layers into k modules of n/k layers. Stored are k inputs and, during the
backward pass of one module, the n/k arrays inside it:

    memory(k) = k + n / k,    smallest where 1 = n / k^2:    k = sqrt(n),    2 sqrt(n) arrays instead of n

The levels of a U-Net are not equal: each has twice the channels of the level above and a quarter of its
pixels, so a block needs half the memory. With a block of the first level as the unit, the blocks of 4 levels
need

    2 (1 + 1/2 + 1/4) + 1/8 = 3.6 units; checkpointed, the largest block needs 1 and the others their inputs.

**Time.** One more forward pass. A backward pass takes about as long as two forward passes, so a step takes
(1 + 1 + 2) / (1 + 2) = 4/3 of the time.

The gradients are identical to the bit, because the second forward pass repeats the first exactly: under the
same settings (contextvars, such as the method of convolution) and with the same buffers. Afterwards the
buffers are restored, so running statistics are updated once. Gradients of parameters are accumulated in
`grad` in the same order as without checkpointing, also if modules share parameters. A module that draws
random numbers, such as dropout, would draw different ones in the second pass; `minidl` has no such module.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context

from minidl.backend import Array, array_module
from minidl.nn import Buffer, Module
from minidl.tensor import Function, Tensor, no_grad

__all__ = ["recomputed"]


class Recomputed(Function):
    """y = module(x), storing only x. The inputs are x and the module's parameters."""

    def __init__(self, module: Module) -> None:
        self.module = module

    def forward(self, x: Array, *parameters: Array) -> Array:
        self.x, self.context = x, copy_context()
        self.buffers = [(buffer, buffer.data) for _, buffer in self.module.named_buffers()]
        with no_grad():
            return self.module(Tensor(x)).data

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        x = Tensor(self.x, requires_grad=self.needs[0])
        with temporarily(self.buffers):
            y = self.context.run(self.module, x)
        if y.creator is not None:
            y.backward(dy)
        # The parameters have received their gradients above; the outer backward pass must not add any.
        self.needs = (self.needs[0], *[False] * (len(self.needs) - 1))
        dx = array_module(dy).zeros_like(self.x) if x.grad is None else x.grad
        return dx, *[None] * (len(self.needs) - 1)


@contextmanager
def temporarily(buffers: list[tuple[Buffer, Array]]) -> Iterator[None]:
    """Set each buffer to the given array inside a `with` block, and restore its own array afterwards."""
    own = [(buffer, buffer.data) for buffer, _ in buffers]
    for buffer, data in buffers:
        buffer.data = data
    try:
        yield
    finally:
        for buffer, data in own:
            buffer.data = data


def recomputed(module: Module, x: Tensor) -> Tensor:
    """Return module(x), storing only x for the backward pass, which recomputes the activations."""
    return Recomputed(module)(x, *module.parameters())

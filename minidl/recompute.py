"""Recomputing instead of remembering: what a module computes inside is made twice and kept never.

The backward pass wants what the forward pass computed, so a step keeps nearly every array of the network.
Instead, keep a module's input x alone. When the walk back arrives, run the module once more, this time
recorded, walk back through what that recorded, and forget it again (Chen et al. 2016, "Training Deep Nets
with Sublinear Memory Cost").

**What it saves.** Cut a chain of n like layers into k modules of n/k. Kept are k inputs and, during the walk
through one module, the n/k arrays inside that one:

    memory(k) = k + n / k,    least where 1 = n / k^2:    k = sqrt(n),    2 sqrt(n) arrays instead of n

The levels of a U are not alike: each has twice the channels of the one above and a quarter of its pixels, so
a block weighs half as much. With a block of the first level as the unit, the blocks of 4 levels weigh

    2 (1 + 1/2 + 1/4) + 1/8 = 3.6 units; recomputed, the largest weighs 1 and the others their inputs.

**What it costs.** One more forward pass. A backward pass has about two forward passes' work in it, so a step
takes (1 + 1 + 2) / (1 + 2) = 4/3 of the time.

The gradients are the same bits, because the second pass is the first one over again: under the settings that
held then (contextvars, such as the method of convolution), with the buffers of then. Afterwards the buffers
are as they were before it: running statistics move once. Each gradient of a parameter is added to its `grad`
in the order of an ordinary walk, also where modules share it. A module that drew random numbers would draw
others the second time; none here does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context

from minidl.backend import Array, array_module
from minidl.nn import Buffer, Module
from minidl.tensor import Function, Tensor, no_grad


class Recomputed(Function):
    """y = module(x), of which x alone is kept. The inputs are x and the module's parameters."""

    def __init__(self, module: Module) -> None:
        self.module = module

    def forward(self, x: Array, *parameters: Array) -> Array:
        self.x, self.context = x, copy_context()
        self.buffers = [(buffer, buffer.data) for _, buffer in self.module.named_buffers()]
        with no_grad():
            return self.module(Tensor(x)).data

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        x = Tensor(self.x, requires_grad=self.needs[0])
        with holding(self.buffers):
            y = self.context.run(self.module, x)
        if y.creator is not None:
            y.backward(dy)
        # That walk has given the parameters their gradients; the one that called this has x to see to.
        self.needs = (self.needs[0], *[False] * (len(self.needs) - 1))
        dx = array_module(dy).zeros_like(self.x) if x.grad is None else x.grad
        return dx, *[None] * (len(self.needs) - 1)


@contextmanager
def holding(buffers: list[tuple[Buffer, Array]]) -> Iterator[None]:
    """Give each buffer this array for the time of a `with` block, and then its own again."""
    own = [(buffer, buffer.data) for buffer, _ in buffers]
    for buffer, data in buffers:
        buffer.data = data
    try:
        yield
    finally:
        for buffer, data in own:
            buffer.data = data


def recomputed(module: Module, x: Tensor) -> Tensor:
    """Return module(x), keeping x alone for the backward pass, which computes the rest once more."""
    return Recomputed(module)(x, *module.parameters())

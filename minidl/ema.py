"""An exponential moving average of a module's weights: the mean of where training has lately been.

Towards its end a training jumps around a good place more than it moves: each step follows one batch. The
mean of the last weights lies nearer to the middle than any of them (Polyak & Juditsky 1992). The average

    a <- d a + (1 - d) p,      d = min(decay, (1 + n) / (10 + n)),

after step n = 1, 2, ... weighs a step that lies k steps back with (1 - d) d^k, so it looks about
1 / (1 - decay) steps back: 1,000 for 0.999. Early weights are random and should be forgotten: the warm-up
(TensorFlow, `tf.train.ExponentialMovingAverage`, num_updates) begins with a d near 0.2, and reaches 0.999
after some 9,000 steps.

**The running statistics of batch norm are averaged likewise.** They belong to the weights that made them:
to the mean of the weights belongs, to first order in how far these moved, the mean of their statistics. A
copy of the newest would belong to the newest weights, and carry the noise of the last few batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from minidl.backend import Array, array_module, contiguous, to_numpy
from minidl.nn import Buffer, Module
from minidl.ops.norm import weighted_sum
from minidl.tensor import Parameter


class EMA:
    """The average of a module's parameters and buffers over a training; call `update` after each step.

    The module's device and dtype must not change any more. Raises ValueError for a decay outside [0, 1).
    """

    def __init__(self, module: Module, decay: float = 0.999) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"EMA: want 0 <= decay < 1, got {decay}")
        self.decay, self.steps = decay, 0
        # Shared parameters are listed once, so they are averaged once.
        self.leaves: dict[str, Parameter | Buffer] = {
            **dict(module.named_parameters()),
            **dict(module.named_buffers()),
        }
        self.average: dict[str, Array] = {name: leaf.data.copy() for name, leaf in self.leaves.items()}

    def update(self) -> None:
        """Move the average towards the module's present state, once."""
        self.steps += 1
        d = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, leaf in self.leaves.items():
            self.average[name] = weighted_sum(d, self.average[name], 1.0 - d, contiguous(leaf.data))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average in the place of the module's state for the time of a `with` block."""
        kept = {name: leaf.data for name, leaf in self.leaves.items()}
        for name, leaf in self.leaves.items():
            leaf.data = self.average[name]
        try:
            yield
        finally:
            for name, leaf in self.leaves.items():
                leaf.data = kept[name]

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the average, NumPy arrays by name, and the number of steps it has seen."""
        return {"steps": self.steps, "average": {n: to_numpy(a).copy() for n, a in self.average.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where `state_dict` left off.

        Raises ValueError for names or shapes that are not the module's, and changes nothing then.
        """
        shapes = {name: leaf.data.shape for name, leaf in self.leaves.items()}
        if {name: a.shape for name, a in state["average"].items()} != shapes:
            raise ValueError("the state does not fit this EMA: it averages another module")
        self.average = {
            name: array_module(leaf.data).array(state["average"][name], leaf.data.dtype)
            for name, leaf in self.leaves.items()
        }
        self.steps = int(state["steps"])

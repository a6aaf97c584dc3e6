"""An exponential moving average (EMA) of a module's weights.

Towards the end of training the weights mostly fluctuate around a good solution, because each step follows a
single batch. The mean of the last weights is closer to the centre than any of them (Polyak & Juditsky 1992).
The average after step n = 1, 2, ... is

    a <- d a + (1 - d) p,      d = min(decay, (1 + n) / (10 + n)).

With a constant d, the weights of k steps ago contribute with the factor (1 - d) d^k, so the average covers
about 1 / (1 - decay) steps: 1,000 for 0.999. The early weights are random and should be forgotten. Therefore
d starts near 0.2 and reaches 0.999 after about 9,000 steps (the warm-up of TensorFlow's
`tf.train.ExponentialMovingAverage` with num_updates).

**The running statistics of batch norm are averaged in the same way.** They belong to the weights that
produced them. To first order in the distance that the weights moved, the mean of the statistics belongs to
the mean of the weights. A copy of the latest statistics would belong to the latest weights, and would carry
the noise of the last few batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from minidl.backend import (
    GPU,
    Array,
    Kernels,
    Numbers,
    array_module,
    contiguous,
    cover,
    device_of,
    refuse_capture,
    to_numpy,
)
from minidl.implementation import choose, implements
from minidl.nn import Buffer, Module
from minidl.tables import tables, total
from minidl.tensor import Parameter

__all__ = ["EMA"]

kernels = Kernels(__file__)


class EMA:
    """The moving average of a module's parameters and buffers; call `update` after each training step.

    The module's device and dtype must not change afterwards. Raises ValueError for a decay outside [0, 1).
    """

    def __init__(self, module: Module, decay: float = 0.999) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"EMA: expected 0 <= decay < 1, got {decay}")
        self.decay, self.steps = decay, 0
        self.d = 0.0  # of the current step
        # Shared parameters are listed once, so they are averaged once.
        self.leaves: dict[str, Parameter | Buffer] = {
            **dict(module.named_parameters()),
            **dict(module.named_buffers()),
        }
        self.average: dict[str, Array] = {name: leaf.data.copy() for name, leaf in self.leaves.items()}
        self.numbers = Numbers(2, next(iter(self.average.values())))  # for the kernel: d, 1 - d

    def update(self) -> None:
        """Include the module's current state in the average, as one step."""
        self.advance()
        self.update_average()

    def advance(self) -> None:
        """Begin a step: compute d, which changes from step to step, in Python."""
        self.steps += 1
        self.d = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.numbers.write(self.d, 1.0 - self.d)

    def update_average(self) -> None:
        """Finish the step, on the device alone: this part can be captured as a graph (`minidl.graph`)."""
        choose(average_all, device_of(self.numbers.array))(self)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Use the average as the module's state inside a `with` block."""
        original = {name: leaf.data for name, leaf in self.leaves.items()}
        for name, leaf in self.leaves.items():
            leaf.data = self.average[name]
        try:
            yield
        finally:
            for name, leaf in self.leaves.items():
                leaf.data = original[name]

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the average, as NumPy arrays by name, and the number of steps it includes."""
        return {"steps": self.steps, "average": {n: to_numpy(a).copy() for n, a in self.average.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned.

        Raises ValueError, before changing anything, if names or shapes differ from the module's.
        """
        shapes = {name: leaf.data.shape for name, leaf in self.leaves.items()}
        if {name: a.shape for name, a in state["average"].items()} != shapes:
            raise ValueError("the state does not fit this EMA: it is the average of another module")
        self.average = {
            name: array_module(leaf.data).array(state["average"][name], leaf.data.dtype)
            for name, leaf in self.leaves.items()
        }
        self.steps = int(state["steps"])


def average_all(ema: EMA) -> None:
    """Include all arrays in the average, one after the other: the definition of `EMA.update_average`."""
    refuse_capture("the moving average receives d from Python, not from the device")
    for name, leaf in ema.leaves.items():
        ema.average[name] = ema.d * ema.average[name] + (1.0 - ema.d) * leaf.data


@implements(average_all, "kernels", devices=GPU)
def average_all_by_kernels(ema: EMA) -> None:
    """Include all arrays in the average, in place and in one launch."""
    average = list(ema.average.values())
    state = [contiguous(leaf.data) for leaf in ema.leaves.values()]
    numbers = ema.numbers.array
    kernels.launch("moving_average", *cover(total(state)), numbers, *tables(numbers, average, state))

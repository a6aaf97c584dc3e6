"""The losses of recent steps, stored on the device and read together.

A GPU works through a queue of kernels. Python only fills the queue and runs ahead of the GPU. To read a
number, Python must wait until it is computed; the queue runs empty, and the GPU then waits for Python. The
losses of several steps are therefore read in one copy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from minidl.backend import Array, to_floats
from r2unet.errors import InputError


class Step(NamedTuple):
    """The results of a training step."""

    loss: Array | float
    gradient_norm: Array | float  # before clipping
    names: list[str]  # of the images
    images: int  # in the whole batch, which is more if other processes have a part of it


class LossLog:
    """The steps whose results have not been read yet.

    `everyones` returns the names of the images in all processes, given those in this process.
    """

    def __init__(self, everyones: Callable[[list[str]], list[str]] = list) -> None:
        self.unread: list[Step] = []
        self.everyones = everyones

    def append(self, step: Step) -> None:
        """Add a step, without waiting for its results."""
        self.unread.append(step)

    def read(self, epoch: int, last_step: int) -> list[Step]:
        """Wait for the unread steps, remove them from the log and return them, as floats.

        The newest of them is step `last_step` of the epoch; both count from 1. Raises InputError for the
        first loss or gradient norm that is not finite.
        """
        values = iter(to_floats([value for step in self.unread for value in (step.loss, step.gradient_norm)]))
        steps = [Step(next(values), next(values), *step[2:]) for step in self.unread]
        for number, step in enumerate(steps, last_step - len(steps) + 1):
            where = f"epoch {epoch}, step {number}"
            for quantity, value in (("loss", step.loss), ("gradient norm", step.gradient_norm)):
                if not math.isfinite(value):  # in all processes: they have added their losses and gradients
                    check_finite(quantity, value, where, self.everyones(step.names))
        self.unread.clear()
        return steps


def check_finite(quantity: str, value: float, where: str, names: Sequence[str]) -> None:
    """Raise InputError for NaN or infinity, from which no training recovers."""
    if not math.isfinite(value):
        raise InputError(
            f"the {quantity} is {value} in {where}, on {', '.join(names)}; check these images, or train "
            "again with a lower --lr"
        )

"""The cost of a training step: its memory, estimated before training, and its time, measured by profiling.

**Memory.** A step has arrays of two kinds. Activations and their gradients have values for every pixel of
the batch. Weights, their gradients and the optimizer's moments do not depend on the number of pixels. So
with P = N H W pixels, each of these quantities is a linear function of P, a + b P bytes:

    the memory in use after the forward pass, which is stored for the backward pass,
    the peak of the forward and backward passes,
    the peak of the optimizer's step (b = 0).

The largest of the three is the peak of the step. (The second already includes the first, but it is not
exactly linear. With few pixels the peak is at the end of the backward pass, where all gradients of the
weights exist. With many pixels it is at the start, which the first line describes.) Two steps with small
batches give two points on each line. The steps run the network itself, so every array is counted, whatever
the network consists of. Only scratch buffers break the rule: some operations allocate one of the image's
size, up to a limit, the processor's cache. The test images are large enough to nearly reach that limit.

**Time.** `profile` runs a few steps and returns a table of the time and memory of each operation.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minidl import Tensor
from minidl.nn import Module
from minidl.optim import AdamW, clip_grad_norm
from minidl.profiler import MiB, memory_traced, profiled

LossFunction = Callable[[Module, Tensor, Tensor], Tensor]  # of a network, images and masks

BATCH_SIZES, SIDE = (1, 3), 64  # of the two measured steps
LARGEST_SIDE = 256  # networks with so many levels that they need larger images are not measured
PROFILED_STEPS = 5


class MemoryEstimate(NamedTuple):
    """The memory of the arrays in a training step, in bytes: the three lines of the module's docstring."""

    constant: np.ndarray  # (3,), a
    per_pixel: np.ndarray  # (3,), b

    def peak(self, batch: int, height: int, width: int) -> int:
        """Return the peak in bytes for a batch of images of height x width pixels."""
        return round((self.constant + self.per_pixel * (batch * height * width)).max())


def estimate_memory(
    new_model: Callable[[], Module], loss_function: LossFunction, multiple: int = 1
) -> MemoryEstimate | None:
    """Estimate the memory of a network and of its training steps with AdamW.

    `new_model` creates the network, in float32 on the CPU. The sides of its images must be divisible by
    `multiple`. Returns None if `multiple` is so large that measuring would take too long.
    """
    # Twice `multiple`, because batch norm needs more than one value per channel on the deepest level.
    side = max(SIDE, 2 * multiple)
    if side > LARGEST_SIDE:
        return None
    with memory_traced():
        before, _ = tracemalloc.get_traced_memory()
        model = new_model()
        optimizer = AdamW(model.parameters())
        measured = [_measure_step(model, loss_function, optimizer, batch, side) for batch in BATCH_SIZES]
    fewer, more = (batch * side * side for batch in BATCH_SIZES)
    points = np.array(measured) - before  # (2, 3)
    per_pixel = (points[1] - points[0]) / (more - fewer)
    return MemoryEstimate(points[1] - per_pixel * more, per_pixel)


def _measure_step(
    model: Module, loss_function: LossFunction, optimizer: AdamW, batch: int, side: int
) -> list[int]:
    """Run a training step on images of zeros; return the three quantities of the module's docstring."""
    optimizer.zero_grad()
    tracemalloc.reset_peak()
    images, masks = (Tensor(np.zeros((batch, channels, side, side), np.float32)) for channels in (3, 1))
    loss = loss_function(model, images, masks)
    stored, _ = tracemalloc.get_traced_memory()
    loss.backward()
    _, passes_peak = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    clip_grad_norm(optimizer.parameters, 1.0)
    optimizer.step()
    _, optimizer_peak = tracemalloc.get_traced_memory()
    return [stored, passes_peak, optimizer_peak]


def resident_bytes() -> int | None:
    """Return the resident memory of this process in bytes, or None on systems without /proc."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return 1024 * int(line.split()[1])


def describe_memory(memory: MemoryEstimate | None, batch: int, size: int, program: int | None = None) -> str:
    """Return the peak of a training step as one line of text.

    `program` is the memory in bytes that Python and its libraries take.
    """
    if memory is None:
        return "a training step's memory is not estimated for networks with so many levels"
    peak, peak_of_one = (memory.peak(n, size, size) / MiB for n in (batch, 1))
    text = f"a training step on {batch} x {size} x {size} pixels takes about {peak:,.0f} MiB of arrays"
    if batch > 1:
        text += f", {(peak - peak_of_one) / (batch - 1):,.1f} MiB per image"
    return text + (f"; Python and its libraries take {program / MiB:,.0f} MiB" if program else "")


def profile(step: Callable[[Any], None], batches: Iterable[Any], steps: int = PROFILED_STEPS) -> str:
    """Run one step to warm up, then profile `steps` steps, each on its own batch; return a table."""
    remaining: Iterator[Any] = iter(batches)
    step(next(remaining))
    with profiled() as result:
        for batch in islice(remaining, steps):
            step(batch)
    return result.table(steps)

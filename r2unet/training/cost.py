"""What a training step costs: its memory before it is taken, its time while it is.

**Memory.** The arrays of a step are of two kinds: some have numbers for every pixel of the batch, the others,
weights and their gradients, have nothing to do with pixels. So with P = N H W pixels, each of these is a
straight line, a + b P bytes:

    what the forward pass leaves for the backward pass,
    the peak of the two passes,
    the peak of the optimizer's move (b = 0),

and the highest line is the step's peak. (The second alone would do, were it not bent: in a small batch the
weights' gradients, at the walk's end, outweigh what the first line says of its beginning.) Two steps with
small batches give two points on each line. It is the network itself that takes them, so whatever it is made
of is counted, but for rooms that operations borrow in the size of an image up to a limit, the processor's
cache: the lines are drawn through images that fill most of them.

**Time.** `profile` takes some steps and tells for each operation where time and memory went.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minidl import Tensor
from minidl.nn import Module
from minidl.optim import AdamW, clip_grad_norm
from minidl.profiler import MiB, profiled

BATCHES, SIDE = (1, 3), 64  # of the two steps
LARGEST_SIDE = 256  # networks of so many levels that they want larger images are not tried
PROFILED_STEPS = 5


class Memory(NamedTuple):
    """What the arrays of a network's training step take, in bytes: three lines, see above."""

    constant: np.ndarray  # (3,), a
    per_pixel: np.ndarray  # (3,), b

    def peak(self, batch: int, height: int, width: int) -> int:
        """Return the most bytes of arrays at a time in a step on so many images of height x width pixels."""
        return round((self.constant + self.per_pixel * (batch * height * width)).max())


def memory_of(
    new_model: Callable[[], Module], loss_of: Callable[[Tensor, Tensor], Tensor], multiple: int = 1
) -> Memory | None:
    """Return what a network and a step of AdamW take, on images whose sides divide by `multiple`.

    `new_model` makes the network, float32 on the CPU. None where `multiple` is too large to try.
    """
    # Twice the least side: batch norm wants more than one value a channel, also on the deepest level.
    side = max(SIDE, 2 * multiple)
    if side > LARGEST_SIDE:
        return None
    with traced():
        before, _ = tracemalloc.get_traced_memory()
        model = new_model()
        optimizer = AdamW(model.parameters())
        points = [_three_points(model, loss_of, optimizer, batch, side) for batch in BATCHES]
    few, many = (batch * side * side for batch in BATCHES)
    points = np.array(points) - before  # (2, 3)
    per_pixel = (points[1] - points[0]) / (many - few)
    return Memory(points[1] - per_pixel * many, per_pixel)


def _three_points(
    model: Module, loss_of: Callable[..., Tensor], optimizer: AdamW, batch: int, side: int
) -> list[int]:
    """Take a step on images of zeros; return a point on each line of the docstring, as tracemalloc counts."""
    optimizer.zero_grad()
    tracemalloc.reset_peak()
    images, masks = (Tensor(np.zeros((batch, channels, side, side), np.float32)) for channels in (3, 1))
    loss = loss_of(model(images), masks)
    left, _ = tracemalloc.get_traced_memory()
    loss.backward()
    _, passes = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    clip_grad_norm(optimizer.parameters, 1.0)
    optimizer.step()
    _, move = tracemalloc.get_traced_memory()
    return [left, passes, move]


@contextmanager
def traced() -> Iterator[None]:
    """Count allocated bytes inside this block, and afterwards only if they were counted before."""
    tracing = tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        yield
    finally:
        if not tracing:
            tracemalloc.stop()


def resident_bytes() -> int | None:
    """Return the memory this process has now, or None where the system does not say."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return 1024 * int(line.split()[1])


def in_words(memory: Memory | None, batch: int, size: int, program: int | None = None) -> str:
    """Say a step's peak in one line; `program` are the bytes that were in use without it."""
    if memory is None:
        return "a training step's memory is not estimated for networks of so many levels"
    peak, one = (memory.peak(n, size, size) / MiB for n in (batch, 1))
    text = f"a training step on {batch} x {size} x {size} pixels takes about {peak:,.0f} MiB of arrays"
    if batch > 1:
        text += f", {(peak - one) / (batch - 1):,.1f} MiB an image"
    return text + (f"; Python and its libraries, {program / MiB:,.0f} MiB" if program else "")


def profile(step: Callable[[Any], None], batches: Iterable[Any], steps: int = PROFILED_STEPS) -> str:
    """Take a step to warm up and some more, each on the next batch; return the table of a step's cost."""
    waiting: Iterator[Any] = iter(batches)
    step(next(waiting))
    with profiled() as found:
        for batch in islice(waiting, steps):
            step(batch)
    return found.table(steps)

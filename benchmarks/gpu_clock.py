"""Time measurement on a GPU, which runs asynchronously: Python only enqueues work.

A GPU executes launches from a queue (a CUDA stream). Python's clock would measure the time to fill the queue.
CUDA events are therefore recorded in the queue itself, and the GPU stores the time when it reaches them.
PyTorch and CuPy use the same queue, the default stream, so the same events time both.

A measurement can include or exclude the launch overhead. `rounds` starts with an empty queue. If the GPU is
faster than Python can launch, it idles, and the measured time includes this, as a user would experience it.
`occupy` first lets the GPU wait while Python fills the queue; the events then measure only the GPU's own
work. It is a single launch, because the queue is short: it holds about 1024 operations that the GPU has not
begun, and further launches wait until the GPU takes one.

On other devices a call returns when its work is done, and Python's clock is correct.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

# One thread that waits for a number of the multiprocessor's clock cycles.
WAIT = """
extern "C" __global__ void wait_for_cycles(long long cycles) {
    const long long start = clock64();
    while (clock64() - start < cycles) {
    }
}
"""
NO_TIME = "no time was left"


class HostClock:
    """Python's clock, for devices on which a call returns when its work is done."""

    def mark(self) -> float:
        """Return the current time."""
        return time.perf_counter()

    def seconds(self, start: float, end: float) -> float:
        """Return the seconds between two marks."""
        return end - start

    def synchronize(self) -> None:
        """Return immediately: there is no pending work."""

    def occupy(self, milliseconds: float) -> None:
        """Do nothing: there is no queue to fill."""


class CudaClock:
    """CUDA events in the default stream of a GPU."""

    def __init__(self) -> None:
        import cupy

        self.cupy = cupy
        self.wait = cupy.RawKernel(WAIT, "wait_for_cycles")  # compiled at its first launch
        self.cycles_a_millisecond = cupy.cuda.Device().attributes["ClockRate"]  # in kHz, the highest rate

    def mark(self) -> Any:
        """Record an event after all work launched so far."""
        event = self.cupy.cuda.Event()
        event.record()
        return event

    def seconds(self, start: Any, end: Any) -> float:
        """Return the seconds between two marks on the GPU; waits until it has reached the second."""
        end.synchronize()
        return self.cupy.cuda.get_elapsed_time(start, end) / 1e3

    def synchronize(self) -> None:
        """Wait until all work on every stream is done."""
        self.cupy.cuda.runtime.deviceSynchronize()

    def occupy(self, milliseconds: float) -> None:
        """Keep the GPU busy for at least `milliseconds`, with one launch."""
        cycles = self.cupy.int64(milliseconds * self.cycles_a_millisecond)
        self.wait((1,), (1,), (cycles,))


def clock_of(device: str) -> HostClock | CudaClock:
    """Return the clock of a device."""
    return CudaClock() if device == "cuda" else HostClock()


def rounds(
    contenders: dict[str, Callable[[], Any]], repeats: int, warmup: int, clock: HostClock | CudaClock
) -> dict[str, list[float]]:
    """Return the seconds of each contender in each of `repeats` rounds, after `warmup` untimed rounds.

    The contenders take turns in each round, so a GPU that slows down as it heats up affects all equally.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(warmup + repeats):
        for name, call in contenders.items():
            clock.synchronize()
            start = clock.mark()
            result = call()
            end = clock.mark()
            elapsed = clock.seconds(start, end)
            del result
            if turn >= warmup:
                seconds[name].append(elapsed)
    gc.collect()
    return seconds


@contextmanager
def torch_tf32(allowed: bool) -> Any:
    """Allow or forbid TF32 in PyTorch inside this block; PyTorch's default allows it in convolutions."""
    import torch

    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before

"""Time on a GPU, which works on by itself: Python only tells it what to do next.

A GPU takes launches from a queue. Python's clock would tell how long it took to fill the queue, so marks
are put into the queue itself, CUDA's events: the GPU notes the time when it comes to them. PyTorch and CuPy
use the same queue, the default stream, so the same marks time both.

Whether launching is part of what is measured is a choice. `rounds` begins with an empty queue: if the GPU
is faster than Python can launch, it waits, and the time says so, as a person would feel it. `occupy` gives
the GPU something to do first, while Python fills the queue: what is marked then is the GPU's own work
alone.

Elsewhere a call returns when its work is done, and Python's clock is right.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from typing import Any

OCCUPY_BYTES = 1 << 30  # of one copy that keeps a GPU busy: about 0.7 ms on an H100


class HostClock:
    """Python's clock, where work is done when a call returns."""

    def mark(self) -> float:
        """Return now."""
        return time.perf_counter()

    def seconds(self, begin: float, end: float) -> float:
        """Return the seconds between two marks."""
        return end - begin

    def wait(self) -> None:
        """Return when all work is done: at once."""

    def occupy(self, milliseconds: float) -> None:
        """Do nothing: there is no queue to fill."""


class CudaClock:
    """Marks in the queue of a GPU."""

    def __init__(self) -> None:
        import cupy

        self.cupy, self.room = cupy, None

    def mark(self) -> Any:
        """Put a mark behind all work that was launched so far."""
        event = self.cupy.cuda.Event()
        event.record()
        return event

    def seconds(self, begin: Any, end: Any) -> float:
        """Return the seconds the GPU took between two marks; waits until it has come to the second."""
        end.synchronize()
        return self.cupy.cuda.get_elapsed_time(begin, end) / 1e3

    def wait(self) -> None:
        """Return when all work is done, on every stream."""
        self.cupy.cuda.runtime.deviceSynchronize()

    def occupy(self, milliseconds: float) -> None:
        """Keep the GPU busy for about so long, with copies that nobody needs."""
        if self.room is None:
            self.room = [self.cupy.zeros(OCCUPY_BYTES // 4, "f4") for _ in range(2)]
            self.milliseconds = 1e3 * min(self._copy() for _ in range(3))
        for _ in range(int(milliseconds / self.milliseconds) + 1):
            self.cupy.copyto(*self.room)

    def _copy(self) -> float:
        begin = self.mark()
        self.cupy.copyto(*self.room)
        return self.seconds(begin, self.mark())


def clock_of(device: str) -> HostClock | CudaClock:
    """Return the clock of a device."""
    return CudaClock() if device == "cuda" else HostClock()


def rounds(
    contenders: dict[str, Callable[[], Any]], repeats: int, warmup: int, clock: HostClock | CudaClock
) -> dict[str, list[float]]:
    """Return the seconds of each contender in each of `repeats` rounds, after `warmup` that do not count.

    All take their turn in each round, so that a GPU that grows warm, and slower, slows all alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(warmup + repeats):
        for name, call in contenders.items():
            clock.wait()
            begin = clock.mark()
            result = call()
            end = clock.mark()
            elapsed = clock.seconds(begin, end)
            del result
            if turn >= warmup:
                seconds[name].append(elapsed)
    gc.collect()
    return seconds


@contextmanager
def _cublas_tf32(allowed: bool) -> Any:
    from cupy.cuda.device import get_cublas_handle
    from cupy_backends.cuda.libs import cublas

    # CUPY_TF32=1 is for products of two matrices only: CuPy's products of many, which convolutions are made
    # of, do not look at it. The math mode of the handle is for all.
    cublas.setMathMode(get_cublas_handle(), 3 if allowed else 0)  # CUBLAS_TF32_TENSOR_OP_MATH or _DEFAULT_
    try:
        yield
    finally:
        cublas.setMathMode(get_cublas_handle(), 0)


@contextmanager
def _torch_tf32(allowed: bool) -> Any:
    import torch

    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@contextmanager
def tf32(allowed: bool, device: str, torch: bool = True) -> Any:
    """Allow or forbid, inside this block, that products of float32 matrices are rounded to TF32's 10 bits.

    In CuPy, and if asked for in PyTorch, whose convolutions would otherwise do so by default.
    """
    own = _cublas_tf32(allowed) if device == "cuda" else nullcontext()
    with own, _torch_tf32(allowed) if torch else nullcontext():
        yield

"""Where a training step's time and memory go: a line for each operation, forward and backward.

    with profiled() as profile:
        loss = model(x).sum()
        loss.backward()
    print(profile.table())

The engine has two doors that every operation passes, `Function.__call__` on the way forward and
`Function._gradients` on the way back. While the block runs, both are replaced by ones that look at the clock
and at Python's count of allocated bytes (`tracemalloc`, to which NumPy reports its arrays). The engine itself
knows nothing of this, and pays nothing for it when it is not in use.

An operation may run others, as `minidl.recompute` does. What these take is told in their lines, and not once
more in its own.
"""

from __future__ import annotations

import contextlib
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from minidl.backend import synchronize
from minidl.tensor import Function

MiB = 2**20


@dataclass
class Record:
    """What one kind of operation has cost so far: seconds and bytes."""

    calls: int = 0
    forward: float = 0.0
    backward: float = 0.0
    kept: int = 0  # after the forward passes: the outputs and what is saved for the backward passes
    peak: int = 0  # the most that one pass had allocated at a time, its results included


@dataclass
class Profile:
    """The records by the operation's name, and the seconds from the block's beginning to its end."""

    records: dict[str, Record] = field(default_factory=dict)
    seconds: float = 0.0

    def table(self, steps: int = 1) -> str:
        """Return a line for each operation, the most expensive first; all but the peaks are per step."""
        lines = [
            f"{'operation':<30}{'calls':>6}{'forward':>12}{'backward':>12}{'share':>8}{'kept':>12}{'peak':>12}"
        ]
        by_cost = sorted(self.records.items(), key=lambda item: -item[1].forward - item[1].backward)
        for name, r in by_cost:
            share = (r.forward + r.backward) / self.seconds
            lines.append(
                f"{name:<30}{r.calls / steps:>6.0f}{1e3 * r.forward / steps:>9.2f} ms"
                f"{1e3 * r.backward / steps:>9.2f} ms{share:>8.1%}"
                f"{r.kept / MiB / steps:>8.2f} MiB{r.peak / MiB:>8.2f} MiB"
            )
        rest = self.seconds - sum(r.forward + r.backward for r in self.records.values())
        lines.append(
            f"{'everything else':<30}{'':>6}{1e3 * rest / steps:>21.2f} ms{rest / self.seconds:>11.1%}"
        )
        lines.append(f"{'in all':<30}{'':>6}{1e3 * self.seconds / steps:>21.2f} ms")
        return "\n".join(lines)


@contextlib.contextmanager
def profiled() -> Iterator[Profile]:
    """Record every operation inside this block. Memory on a GPU is not counted, its time is."""
    profile = Profile()
    forward, backward = Function.__call__, Function._gradients
    inside = [0.0]  # seconds of the operations that ran inside each one that is running now

    def watched_forward(function: Function, *inputs: Any) -> Any:
        record = profile.records.setdefault(type(function).__name__, Record())
        output, seconds, kept, peak = _watched(lambda: forward(function, *inputs), inputs[0].data, inside)
        record.calls += 1
        record.forward += seconds
        record.kept += kept
        record.peak = max(record.peak, peak)
        return output

    def watched_backward(function: Function, dy: Any) -> Any:
        record = profile.records.setdefault(type(function).__name__, Record())
        gradients, seconds, _, peak = _watched(lambda: backward(function, dy), dy, inside)
        record.backward += seconds
        record.peak = max(record.peak, peak)
        return gradients

    tracing = tracemalloc.is_tracing()
    tracemalloc.start()
    Function.__call__, Function._gradients = watched_forward, watched_backward
    started = time.perf_counter()
    try:
        yield profile
    finally:
        profile.seconds += time.perf_counter() - started
        Function.__call__, Function._gradients = forward, backward
        if not tracing:
            tracemalloc.stop()


def _watched(work: Callable[[], Any], array: Any, inside: list[float]) -> tuple[Any, float, int, int]:
    """Return what `work` returns, its own seconds, the bytes that stay allocated after it, and its peak."""
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    # A GPU works on after its kernels are launched: without waiting, time is told of nothing.
    synchronize(array)
    inside.append(0.0)
    started = time.perf_counter()
    try:
        result = work()
        synchronize(array)
    finally:
        seconds, others = time.perf_counter() - started, inside.pop()
        inside[-1] += seconds
    after, peak = tracemalloc.get_traced_memory()
    return result, seconds - others, max(after - before, 0), max(peak - before, 0)

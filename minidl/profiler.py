"""The time and memory of each operation in a training step, and the implementation that computed it.

    with profiled() as profile:
        loss = model(x).sum()
        loss.backward()
    print(profile.table())

Every operation goes through two methods of the engine, `Function.__call__` in the forward pass and
`Function.checked_backward` in the backward pass. While the block runs, both are replaced by methods that also
read the clock and Python's count of allocated bytes (`tracemalloc`, to which NumPy reports its arrays). The
engine itself contains no code for this, and outside the block profiling costs nothing.

An operation may run other operations, as `minidl.recompute` does. Their cost is reported in their own lines
only.
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

__all__ = ["Profile", "Record", "profiled"]

MiB = 2**20


@dataclass
class Record:
    """The cost of one operation by one implementation so far, in seconds and bytes."""

    calls: int = 0
    forward: float = 0.0
    backward: float = 0.0
    kept: int = 0  # after the forward passes: the outputs and what is saved for the backward passes
    peak: int = 0  # the maximum allocated at any time during one pass, including its results


@dataclass
class Profile:
    """The records by the names of operation and implementation, and the duration of the block in seconds."""

    records: dict[tuple[str, str], Record] = field(default_factory=dict)
    seconds: float = 0.0

    def table(self, steps: int = 1) -> str:
        """Return a line for each record, most expensive first; all numbers except the peaks are per step."""
        lines = [
            f"{'operation':<30}{'implementation':<17}{'calls':>6}{'forward':>12}{'backward':>12}{'share':>8}"
            f"{'kept':>12}{'peak':>12}"
        ]
        by_cost = sorted(self.records.items(), key=lambda item: -item[1].forward - item[1].backward)
        for (operation, implementation), r in by_cost:
            share = (r.forward + r.backward) / self.seconds
            lines.append(
                f"{operation:<30}{implementation:<17}{r.calls / steps:>6.0f}"
                f"{1e3 * r.forward / steps:>9.2f} ms{1e3 * r.backward / steps:>9.2f} ms{share:>8.1%}"
                f"{r.kept / MiB / steps:>8.2f} MiB{r.peak / MiB:>8.2f} MiB"
            )
        rest = self.seconds - sum(r.forward + r.backward for r in self.records.values())
        lines.append(f"{'everything else':<53}{1e3 * rest / steps:>21.2f} ms{rest / self.seconds:>8.1%}")
        lines.append(f"{'total':<53}{1e3 * self.seconds / steps:>21.2f} ms")
        return "\n".join(lines)


@contextlib.contextmanager
def profiled() -> Iterator[Profile]:
    """Record every operation inside this block: its time, and on the CPU its memory."""
    profile = Profile()
    forward, backward = Function.__call__, Function.checked_backward
    inside = [0.0]  # for each running operation, the seconds of the operations that ran inside it

    def record_of(function: Function) -> Record:
        return profile.records.setdefault((function.operation(), function.implementation), Record())

    def profiled_forward(function: Function, *inputs: Any) -> Any:
        record = record_of(function)
        output, seconds, kept, peak = _measured(lambda: forward(function, *inputs), inputs[0].data, inside)
        record.calls += 1
        record.forward += seconds
        record.kept += kept
        record.peak = max(record.peak, peak)
        return output

    def profiled_backward(function: Function, dy: Any) -> Any:
        record = record_of(function)
        gradients, seconds, _, peak = _measured(lambda: backward(function, dy), dy, inside)
        record.backward += seconds
        record.peak = max(record.peak, peak)
        return gradients

    with memory_traced():
        Function.__call__, Function.checked_backward = profiled_forward, profiled_backward
        started = time.perf_counter()
        try:
            yield profile
        finally:
            profile.seconds += time.perf_counter() - started
            Function.__call__, Function.checked_backward = forward, backward


@contextlib.contextmanager
def memory_traced() -> Iterator[None]:
    """Trace memory allocations inside this block; afterwards only if they were traced before."""
    was_tracing = tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        yield
    finally:
        if not was_tracing:
            tracemalloc.stop()


def _measured(work: Callable[[], Any], array: Any, inside: list[float]) -> tuple[Any, float, int, int]:
    """Return the result of `work`, its own seconds, the bytes that stay allocated after it, and its peak."""
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    # A launch only queues a kernel: without waiting, the time would be that of the launches.
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

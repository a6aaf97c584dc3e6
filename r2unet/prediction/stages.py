"""The time of each stage in the prediction of a photograph: reading, the network, the clean-up, writing.

Two clocks are read. The elapsed time includes waiting: for a disk, for a GPU, and for other programs on a
busy machine. The processor time is that of this process alone, with all its threads.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stages:
    """The seconds spent in each stage so far, `elapsed` and `processor`, by the names of the stages."""

    def __init__(self) -> None:
        self.elapsed: dict[str, float] = {}
        self.processor: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add the time of a `with` block to a stage. A block inside it counts for its own stage, too."""
        started = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.elapsed[name] = self.elapsed.get(name, 0.0) + time.perf_counter() - started[0]
            self.processor[name] = self.processor.get(name, 0.0) + time.process_time() - started[1]

    def table(self, photographs: int) -> str:
        """Return the mean time of each stage for one of so many photographs, in the order of the stages."""
        total = sum(self.processor.values())
        lines = [f"{'of a photograph':<30}{'elapsed':>12}{'processor':>12}{'share':>8}"]
        for name, seconds in [*self.processor.items(), ("total", total)]:
            elapsed = self.elapsed.get(name, sum(self.elapsed.values()))
            lines.append(
                f"{name:<30}{1e3 * elapsed / photographs:>9.1f} ms{1e3 * seconds / photographs:>9.1f} ms"
                f"{seconds / total if total else 0:>8.1%}"
            )
        return "\n".join(lines)

"""A simulation of CuPy's streams, events and memory pools, to test that the work of two streams is ordered.

A GPU may run the work of a stream at any time that its events allow. The simulation runs it at the two
extremes: immediately or, if the stream is `late`, only when something waits for it. Memory that Python drops
returns to its pool and is reused even if work that uses it is still queued, as in CuPy. All blocks have one
size.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np


class Stream:
    """A queue of work: functions, of which the first `done` have run."""

    def __init__(self, late: bool) -> None:
        self.queue: list[Callable[[], None]] = []
        self.late, self.done = late, 0

    def add(self, work: Callable[[], None]) -> None:
        self.queue.append(work)
        if not self.late:
            self.run(len(self.queue))

    def run(self, until: int) -> None:
        while self.done < until:
            self.done += 1
            self.queue[self.done - 1]()

    def record(self) -> Event:
        return Event(self, len(self.queue))

    def wait_event(self, event: Event) -> None:
        self.add(event.synchronize)


class Event:
    """A position in a stream's queue."""

    def __init__(self, stream: Stream, position: int) -> None:
        self.stream, self.position = stream, position

    def synchronize(self) -> None:
        self.stream.run(self.position)


class Memory:
    """Memory of the GPU, which returns to its pool when Python drops it and all its parts."""

    def __init__(self, storage: np.ndarray, pool: list[np.ndarray]) -> None:
        self.storage, self.pool = storage, pool

    def __del__(self) -> None:
        self.pool.append(self.storage)

    def __getitem__(self, part: slice) -> Part:
        return Part(self, self.storage[part])

    def set(self, host: np.ndarray, stream: Stream) -> None:
        address, size, target = host.ctypes.data, host.nbytes, self.storage
        stream.add(lambda: ctypes.memmove(target.ctypes.data, address, size))


class Part:
    """A part of the GPU's memory. `numbers` represents a kernel's pointer, which keeps no memory alive."""

    def __init__(self, memory: Memory, numbers: np.ndarray) -> None:
        self.memory, self.numbers = memory, numbers

    def view(self, dtype: np.dtype) -> Part:
        return Part(self.memory, self.numbers.view(dtype))

    def reshape(self, shape: tuple[int, ...]) -> Part:
        return Part(self.memory, self.numbers.reshape(shape))


def pinned_memory(storage: bytearray, pool: list[bytearray]) -> ctypes.Array:
    """Return pinned memory, which returns to its pool when Python drops it."""
    kind = type("Pinned", (ctypes.c_char * len(storage),), {"__del__": lambda self: pool.append(storage)})
    return kind.from_buffer(storage)


def simulated_cupy(late_copies: bool, late_steps: bool) -> SimpleNamespace:
    """Return a stand-in for the module cupy."""
    pinned: list[bytearray] = []
    memory: list[np.ndarray] = []
    computing = Stream(late_steps)

    def alloc_pinned_memory(size: int) -> ctypes.Array:
        return pinned_memory(pinned.pop() if pinned else bytearray(size), pinned)

    def empty(size: int, dtype: np.dtype) -> Memory:
        return Memory(memory.pop() if memory else np.zeros(size, dtype), memory)

    cuda = SimpleNamespace(
        Stream=lambda non_blocking: Stream(late_copies),
        get_current_stream=lambda: computing,
        alloc_pinned_memory=alloc_pinned_memory,
    )
    return SimpleNamespace(cuda=cuda, empty=empty)

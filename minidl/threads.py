"""Sharing work out to threads.

Python runs one thread at a time, but NumPy lets go of Python's lock while it computes on large arrays, so
the images of a batch can be worked on side by side. What is shared out are tasks that do not depend on how
many threads there are, and each writes to a place of its own: results are the same bits for any number.

BLAS has threads of its own, which share a single product of matrices. For the small products of a small
network they wait for each other longer than they compute; here each thread does whole products instead.
Even that pays only where a product takes some tenths of a millisecond: between two of them a thread waits for
Python's lock, and waking up costs tens of microseconds. So the caller says how many threads a task is worth.
"""

from __future__ import annotations

import contextvars
import functools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Task = TypeVar("Task")

_count = 1


def set_threads(count: int) -> None:
    """Compute with so many threads from now on. Raises ValueError for less than one."""
    global _count
    if count < 1:
        raise ValueError(f"set_threads: want at least one thread, got {count}")
    _count = count


def get_threads() -> int:
    """Return how many threads compute."""
    return _count


def available_cores() -> int:
    """Return how many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _pool(helpers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(helpers, thread_name_prefix="minidl")


def for_each(work: Callable[[Task], None], tasks: Iterable[Task], threads: int) -> None:
    """Call `work` once for every task, in no certain order, from so many threads; return when all are done.

    An exception of any task is raised here.
    """
    tasks = list(tasks)
    remaining = iter(tasks)  # shared: whoever is free takes the next task

    def take_turns() -> None:
        for task in remaining:
            work(task)

    helpers = min(threads, len(tasks)) - 1
    if helpers < 1:
        return take_turns()
    # Each helper gets this thread's context: np.errstate and no_grad hold for the one who calls.
    futures = [_pool(threads - 1).submit(contextvars.copy_context().run, take_turns) for _ in range(helpers)]
    take_turns()
    for future in futures:
        future.result()
    return None

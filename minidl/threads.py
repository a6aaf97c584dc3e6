"""Our own thread pool, for independent tasks within a batch.

Python runs one thread at a time, but NumPy releases Python's lock while it computes on large arrays, so
several images of a batch can be processed in parallel. The work is divided into tasks that do not depend on
the number of threads, and each task writes to its own part of the output. Results are therefore
bit-identical for any number of threads.

BLAS has its own threads, which share a single matrix product. In a small network the products are small, and
these threads spend more time waiting for each other than computing; here each thread computes whole products.
This is faster only if a product takes some tenths of a millisecond: between products a thread waits for
Python's lock, and waking up takes tens of microseconds. The caller therefore decides how many threads to use.
"""

from __future__ import annotations

import contextvars
import functools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

Task = TypeVar("Task")

_count = 1


def set_threads(count: int) -> None:
    """Set the number of threads for all later computations. Raises ValueError for fewer than one."""
    global _count
    if count < 1:
        raise ValueError(f"set_threads: expected at least one thread, got {count}")
    _count = count


def get_threads() -> int:
    """Return the number of threads."""
    return _count


def available_cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def physical_cores() -> int:
    """Return the number of cores that this process may use, counting those that share a core once.

    Two hardware threads of a core share its arithmetic units. Two processes that compute all the time gain
    little from them. Without Linux's list of siblings, all are counted.
    """
    files = Path("/sys/devices/system/cpu")
    try:
        allowed = os.sched_getaffinity(0)
        siblings = {(files / f"cpu{i}/topology/thread_siblings_list").read_text() for i in allowed}
    except (AttributeError, OSError):
        return available_cores()
    return len(siblings)


@functools.cache
def _pool(helpers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(helpers, thread_name_prefix="minidl")


def for_each(work: Callable[[Task], None], tasks: Iterable[Task], threads: int) -> None:
    """Call `work(task)` once for every task, on up to `threads` threads; return when all are done.

    The order is undefined. Raises the exception of a task that failed.
    """
    tasks = list(tasks)
    remaining = iter(tasks)  # shared: a free thread takes the next task

    def work_through() -> None:
        for task in remaining:
            work(task)

    helpers = min(threads, len(tasks)) - 1
    if helpers < 1:
        return work_through()
    # Each helper gets a copy of the caller's context, so that its np.errstate and no_grad apply there, too.
    futures = [
        _pool(threads - 1).submit(contextvars.copy_context().run, work_through) for _ in range(helpers)
    ]
    work_through()
    for future in futures:
        future.result()
    return None

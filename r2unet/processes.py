"""Shares work between processes: Python executes one thread at a time, but each process has its own Python.

    with Processes(new_work, 2) as processes:    # each calls new_work() once, for instance to read weights
        for result in processes.map(tasks):      # work(task) for every task, in the order of the tasks

A free process takes the next task, so a large image delays no other. Tasks and results are sent through a
pipe, one at a time: a task should be the name of a file and not its content.

**Spawned, not forked.** A new process imports what it needs. A copy of this one would contain locks that
other threads hold and that nothing in the copy releases.

**Ctrl-C.** The terminal sends it to every process of the group. Only this process treats it: it stops the
others. They are started while the signal is blocked, and a blocked signal stays blocked in a new process.

**An end without warning.** The pipe of a process that was killed is closed by the operating system, and so
are all pipes if this process is killed. Whoever reads from a closed pipe gets an EOFError.

`multiprocessing.Pool` waits forever for the result of a process that was killed. The executor of
`concurrent.futures` notices, but finishes the queued tasks after Ctrl-C, and its processes stay if this one
is killed.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from r2unet.errors import InputError

Task = TypeVar("Task")
Result = TypeVar("Result")

CLOSED = (EOFError, BrokenPipeError, ConnectionResetError)  # the process at the other end has ended


def start_process(target: Callable[..., None], *arguments: Any) -> tuple[Connection, BaseProcess]:
    """Start target(pipe, *arguments), which must be picklable; return our end of the pipe and the process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()  # so that only the process holds this end, and its death closes the pipe
    return ours, process


def ended(process: BaseProcess) -> str:
    """Return what happened to a process whose pipe is closed, although it had not finished."""
    process.join()
    return f"process ended with code {process.exitcode}, perhaps for lack of memory"


class Processes(Generic[Task, Result]):
    """`count` processes that apply work = new_work() to tasks; `new_work` must be picklable.

    As a context, they end at the end of the block, and without delay if it ends with an exception.
    """

    def __init__(self, new_work: Callable[[], Callable[[Task], Result]], count: int) -> None:
        self._running: dict[Connection, BaseProcess] = {}
        with _ctrl_c_blocked():
            for _ in range(count):
                pipe, process = start_process(_serve, new_work)
                self._running[pipe] = process

    def __enter__(self) -> Processes[Task, Result]:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        for pipe, process in self._running.items():
            pipe.close()
            if kind:
                process.terminate()
        for process in self._running.values():
            process.join()

    def map(self, tasks: Sequence[Task]) -> Iterator[Result]:
        """Yield work(task) for every task, in order.

        Raises what `work` or `new_work` raises for the first task that fails, and InputError if a process was
        killed.
        """
        waiting, finished = iter(enumerate(tasks)), {}
        for pipe in self._running:
            self._give(pipe, waiting)
        for index in range(len(tasks)):
            while index not in finished:
                for pipe in wait(list(self._running)):
                    with self._alive(pipe):
                        number, result, error = pipe.recv()
                    finished[number] = result, error
                    self._give(pipe, waiting)
            result, error = finished.pop(index)
            if error:
                raise error
            yield result

    def _give(self, pipe: Connection, waiting: Iterator[tuple[int, Task]]) -> None:
        """Send the next of the waiting tasks, if there is one, to a process that has nothing to do."""
        for task in islice(waiting, 1):
            with self._alive(pipe):
                pipe.send(task)

    @contextmanager
    def _alive(self, pipe: Connection) -> Iterator[None]:
        """Turn the error of a closed pipe into an InputError about its process."""
        try:
            yield
        except CLOSED:
            reason = ended(self._running[pipe])
            raise InputError(f"a {reason}; repeat the command with fewer --processes") from None


def _serve(pipe: Connection, new_work: Callable[[], Callable[[Any], Any]]) -> None:
    """Do tasks in a process of `Processes` until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be blocked
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an exception, which removes unfinished files
    work = None
    with suppress(*CLOSED):
        while True:
            number, task = pipe.recv()
            try:
                work = work or new_work()
                answer = number, work(task), None
            except Exception as error:  # for the caller of `map`
                answer = number, None, error
            pipe.send(answer)


@contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    """Block Ctrl-C for processes that are started in this block; for this process it is only delayed."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # a process that multiprocessing starts first; this unblocks Ctrl-C
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

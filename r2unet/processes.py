"""Shares work between processes: Python executes one thread at a time, but each process has its own Python.

    with Processes(new_work, 2) as processes:    # each calls new_work() once, for instance to read weights
        for result in processes.map(tasks):      # work(task) for every task, in the order of the tasks

A free process takes the next task, so a large image delays no other. Tasks and results are sent through a
pipe, one at a time: a task should be the name of a file and not its content. The arrays of a result do not
go through the pipe but through memory that both processes share (`send`).

**Spawned, not forked.** A new process imports what it needs. A copy of this one would contain locks that
other threads hold and that nothing in the copy releases.

**Ctrl-C.** The terminal sends it to every process of the group. Only this process treats it: it stops the
others. They are started while the signal is blocked, and a blocked signal stays blocked in a new process.

**An end without warning.** The pipe of a process that was killed is closed by the operating system, and so
are all pipes if this process is killed. Whoever reads from a closed pipe gets an EOFError. The loss of a
process is an error for `predict`, whose next photograph may need as much memory. A training continues
(`keep_on`): the task is given to another process, or done by this one if no other is left.

`multiprocessing.Pool` waits forever for the result of a process that was killed. The executor of
`concurrent.futures` notices, but finishes the queued tasks after Ctrl-C, and its processes stay if this one
is killed.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

import numpy as np

from r2unet.errors import InputError, warn
from r2unet.shared_memory import Parcel, SharedBuffer

Task = TypeVar("Task")
Result = TypeVar("Result")

CLOSED = (EOFError, BrokenPipeError, ConnectionResetError)  # the process at the other end has ended


def start_process(target: Callable[..., None], *arguments: Any) -> tuple[Connection, BaseProcess]:
    """Start target(pipe, *arguments), which must be picklable; return our end of the pipe and the process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
    words = sys.argv
    try:
        sys.argv = words[:1]  # multiprocessing sends it, and a pipe may not hold many file names (`Parcel`)
        process.start()
    finally:
        sys.argv = words
    theirs.close()  # so that only the process holds this end, and its death closes the pipe
    return ours, process


def ended(process: BaseProcess) -> str:
    """Return what happened to a process whose pipe is closed, although it had not finished."""
    process.join()
    why = ", perhaps for lack of memory" if process.exitcode == -signal.SIGKILL else ""
    return f"process ended with code {process.exitcode}{why}"


def send(pipe: Connection, memory: SharedBuffer, thing: Any) -> None:
    """Send anything picklable for `receive`, the content of its arrays through memory that both share."""
    buffers: list[pickle.PickleBuffer] = []
    rest = pickle.dumps(thing, protocol=5, buffer_callback=buffers.append)
    arrays = [np.frombuffer(buffer.raw(), np.uint8) for buffer in buffers]
    memory.write(arrays)
    pipe.send((rest, [len(array) for array in arrays]))


def receive(pipe: Connection, memory: SharedBuffer) -> Any:
    """Return what the process at the other end has sent. Raises one of CLOSED if it has ended."""
    try:
        rest, sizes = pipe.recv()
    except OSError as error:  # it ended in the middle of a message
        raise EOFError from error
    return pickle.loads(rest, buffers=memory.read(sizes))


class Processes(Generic[Task, Result]):
    """`count` processes that apply work = new_work() to tasks; `new_work` must be picklable.

    As a context, they end at the end of the block, and without delay if it ends with an exception. If a
    process is killed, that is an error or, with `keep_on`, a warning: others do its task.
    """

    def __init__(
        self, new_work: Callable[[], Callable[[Task], Result]], count: int, keep_on: bool = False
    ) -> None:
        self._new_work, self._keep_on = cache(new_work), keep_on
        self._running: dict[Connection, BaseProcess] = {}
        self._memory: dict[Connection, SharedBuffer] = {}  # in which each process writes its results
        self._given: dict[Connection, tuple[int, Task]] = {}  # the task of each process that has one
        self._waiting: deque[tuple[int, Task]] = deque()  # the tasks that no process has yet
        self._first = self._end = 0  # the numbers of the tasks of the newest `map`
        with _ctrl_c_blocked():
            for _ in range(count):
                memory = SharedBuffer()
                pipe, process = start_process(_serve, memory, Parcel(new_work), keep_on)
                self._running[pipe], self._memory[pipe] = process, memory

    def __enter__(self) -> Processes[Task, Result]:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        for pipe, process in self._running.items():
            pipe.close()
            if kind:
                process.terminate()
        for process in self._running.values():
            process.join()
        for memory in self._memory.values():
            memory.close()

    def map(self, tasks: Sequence[Task]) -> Iterator[Result]:
        """Yield work(task) for every task, in order. What is left of an earlier `map` is dropped.

        Raises what `work` or `new_work` raises for the first task that fails, and InputError if a process was
        killed.
        """
        self._first, self._end = self._end, self._end + len(tasks)
        self._waiting = deque(enumerate(tasks, self._first))
        finished: dict[int, tuple[Any, Exception | None]] = {}
        for number in range(self._first, self._end):
            while number not in finished:
                finished |= {n: answer for n, answer in self._finished().items() if n >= self._first}
            result, error = finished.pop(number)
            if error:
                raise error
            yield result

    def _finished(self) -> dict[int, tuple[Any, Exception | None]]:
        """Wait for one or several results or errors; return them by the number of their task."""
        self._hand_out()
        if not self._running:
            number, task = self._waiting.popleft()
            return {number: _done(self._new_work, task)}
        finished = {}
        for pipe in wait(list(self._running)):
            with self._alive(pipe):
                answer = receive(pipe, self._memory[pipe])
                finished[self._given.pop(pipe)[0]] = answer
        self._hand_out()
        return finished

    def _hand_out(self) -> None:
        """Send waiting tasks to the processes that have none."""
        while self._waiting and (free := [pipe for pipe in self._running if pipe not in self._given]):
            with self._alive(free[0]):
                self._given[free[0]] = self._waiting.popleft()
                free[0].send(self._given[free[0]][1])

    @contextmanager
    def _alive(self, pipe: Connection) -> Iterator[None]:
        """If the pipe is closed, raise an InputError about its process or, with `keep_on`, do without it."""
        try:
            yield
        except CLOSED:
            reason = ended(self._running.pop(pipe))
            pipe.close()
            self._memory.pop(pipe).close()
            if not self._keep_on:
                raise InputError(f"a {reason}; repeat the command with fewer --processes") from None
            if pipe in self._given:
                self._waiting.appendleft(self._given.pop(pipe))
            left = len(self._running)
            others = f"{left} more do" if left > 1 else "one more does" if left else "this process does"
            warn(f"a worker {reason}; {others} its work")


def _serve(
    pipe: Connection, memory: SharedBuffer, new_work: Callable[[], Callable[[Any], Any]], keep_on: bool
) -> None:
    """Do tasks in a process of `Processes` until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be blocked
    if not keep_on:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an exception, which removes unfinished files
    elif hasattr(os, "setpgrp"):  # not on Windows
        os.setpgrp()  # a signal to the group is for the process that started this one: it may be saving
    new_work = cache(new_work)
    with suppress(*CLOSED):
        while True:
            send(pipe, memory, _done(new_work, pipe.recv()))


def _done(new_work: Callable[[], Callable[[Any], Any]], task: Any) -> tuple[Any, Exception | None]:
    """Return work(task) and no error, or the error that it raises, for the caller of `map`."""
    try:
        return new_work()(task), None
    except Exception as error:
        if not isinstance(error, InputError):  # a bug: show where, because the traceback is not sent
            error.add_note(f"in a process of its own:\n{traceback.format_exc()}")
        return None, error


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

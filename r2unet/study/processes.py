"""Run the training runs of a study in parallel, each in its own process.

A process of its own for each run, not a pool as in `r2unet.processes`, because a run that is told to stop
first saves its state.

**Ctrl-C.** A training treats the first Ctrl-C as "save and stop" and the second as "stop at once". The
terminal sends Ctrl-C to every process of a group, so the processes would receive it once from the terminal
and once from their parent. Each therefore has its own process group and receives it from the parent only.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any

from r2unet.errors import InputError
from r2unet.processes import CLOSED, ended, start_process
from r2unet.study.plan import Task
from r2unet.training.interruption import HANGUP, Interrupted, stop_signals

Work = Callable[[Task], InputError | None]  # runs a task, and returns the error that stopped it
Outcomes = Iterator[tuple[Task, InputError | None]]  # every task with the error that stopped it


def run_in_processes(work: Work, tasks: Sequence[Task], jobs: int) -> Outcomes:
    """Call `work` on every task, in `jobs` processes at a time; yield each task with the error it returned.

    `work` must be picklable. Raises Interrupted after Ctrl-C, when all processes have ended.
    """
    waiting, running = list(tasks), {}
    with _forwarding_ctrl_c(running) as signals:
        while (waiting and not signals) or running:
            while waiting and len(running) < jobs and not signals:
                pipe, process = start_process(_run, work, waiting[0])
                running[pipe] = waiting.pop(0), process
            for pipe in wait(list(running)):
                error = _result(pipe, running[pipe][1])
                task, _ = running.pop(pipe)
                if not signals:
                    yield task, error
        if signals:
            raise Interrupted


def stop_if_orphaned() -> None:
    """Ask this process to save and stop if its parent has died."""
    if not multiprocessing.parent_process().is_alive():
        os.kill(os.getpid(), signal.SIGTERM)


def _run(pipe: Connection, work: Work, task: Task) -> None:
    """Run one task in its own process, and send its result."""
    os.setpgrp()
    try:
        pipe.send(work(task))
    except Interrupted:
        pipe.send(None)  # the parent raises Interrupted for all


def _result(pipe: Connection, process: Any) -> InputError | None:
    """Wait for the end of a process, and return the error that it sent."""
    try:
        error = pipe.recv()
    except CLOSED:  # it was killed before it could send anything
        return InputError(f"its {ended(process)}; repeat the command")
    process.join()
    return error


@contextmanager
def _forwarding_ctrl_c(running: dict[Connection, tuple[Task, Any]]) -> Iterator[list[int]]:
    """Terminate all processes at the first Ctrl-C and kill them at the second; yield the signals received."""
    signals: list[int] = []

    def forward(signum: int, frame: Any) -> None:
        if signum == HANGUP and signals:  # often sent twice
            return
        signals.append(signum)
        for _, process in running.values():
            process.terminate() if len(signals) == 1 else process.kill()

    handlers = {s: signal.signal(s, forward) for s in stop_signals()}
    try:
        yield signals
    finally:
        for s, handler in handlers.items():
            signal.signal(s, handler)

"""Training the rows of a study, with every seed, so that all can be stopped anywhere and go on.

    DIR/study.json                what is compared (`r2unet.study.plan`): it alone decides what is trained
    DIR/ROW/seed-K/               an ordinary training's folder (`r2unet.training.run_folder`), and besides
    DIR/ROW/seed-K/seconds.csv    how long each epoch took that was not interrupted
    DIR/table.md, ...             what came out of it (`r2unet.study.report`)

A training is finished where its report.json is, and is not repeated. The trainings know nothing of each
other: each depends on its settings alone, so their order, and how many run side by side, change no number but
the seconds. Seeds come one after another, not rows: whoever looks early sees all rows with the first seed.

Trainings that run side by side are processes, because Python computes in one thread at a time. Each is in a
group of its own, where the terminal's Ctrl-C does not reach it: a second Ctrl-C means "do not wait", so the
first must arrive once, and the parent passes it on.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import multiprocessing
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

from minidl.allocator import keep_freed_memory
from minidl.ops.conv import convolution
from minidl.threads import set_threads
from r2unet.errors import InputError
from r2unet.files import output_file
from r2unet.study.plan import Plan, read_plan
from r2unet.training.run_folder import BEST, begin, describing, load_datasets, read_settings, read_state
from r2unet.training.settings import Settings
from r2unet.training.trainer import Interrupted, Trainer

FINISHED, SECONDS = "report.json", "seconds.csv"


class Task(NamedTuple):
    """One training."""

    title: str
    settings: Settings
    folder: Path


class Resources(NamedTuple):
    """With what trainings are run; none of it changes a result by more than rounding."""

    device: str = "cpu"
    conv: str = "auto"
    threads: int = 1
    cache: Path | None = None
    bar: bool = False


def train_study(
    out: Path, plan: Plan, resources: Resources, jobs: int = 1, say: Callable[[str], None] = print
) -> list[InputError]:
    """Train what is not finished, `jobs` trainings at a time, and return what went wrong, each once.

    A training that fails does not stop the others: one learning rate that is too high should not cost a
    night. Raises Interrupted on Ctrl-C; its text ends with the command to go on
    with, but for the options of `resources` and `jobs`.
    """
    tasks = [
        Task(f"{row.label}, seed {seed}", dataclasses.replace(row.settings, seed=seed), folder)
        for seed in plan.seeds
        for row in plan.rows
        if not ((folder := plan.folder(out, row, seed)) / FINISHED).exists()
    ]
    total = len(plan.rows) * len(plan.seeds)
    say(f"{len(plan.rows)} rows x {len(plan.seeds)} seeds: {total - len(tasks)} of {total} are finished")
    run = _one_by_one if jobs == 1 else _side_by_side
    faults: dict[str, None] = {}
    try:
        for task, fault in run(tasks, resources, jobs, say):
            if fault:
                faults[f"{task.title}: {fault}"] = None
    except (Interrupted, KeyboardInterrupt):
        done = sum((plan.folder(out, r, s) / FINISHED).exists() for r in plan.rows for s in plan.seeds)
        raise Interrupted(
            f"stopped: {done} of {total} trainings are finished, and what was begun is saved; go on with: "
            f"r2unet compare {plan.study.name} --out {shlex.quote(str(out))}"
        ) from None
    return [InputError(text) for text in faults]


def finished_in(others: Sequence[Path]) -> dict[Settings, Path]:
    """Return the finished trainings of other studies, with the folder of each, by their settings.

    Raises InputError for a folder that holds no study.
    """
    finished: dict[Settings, Path] = {}
    for other in others:
        shared = read_plan(other, "--reuse").shared
        for report in sorted(other.glob(f"*/seed-*/{FINISHED}")):
            state = read_state(report.parent / BEST)
            with describing(report.parent / BEST):
                settings = read_settings(state)
            finished.setdefault(_at_home(dataclasses.replace(settings, data=shared.data)), report.parent)
    return finished


def _at_home(settings: Settings) -> Settings:
    """Return settings whose data has one name, however it was written."""
    data = settings.data
    return settings if data is None else dataclasses.replace(settings, data=os.path.realpath(data))


def reuse(out: Path, plan: Plan, finished: dict[Settings, Path], say: Callable[[str], None] = print) -> None:
    """Copy the trainings of this study that another one has finished, and that have not begun here.

    Several studies often have a row in common, such as the network as it is.
    """
    copied = 0
    for seed in plan.seeds:
        for row in plan.rows:
            folder, settings = plan.folder(out, row, seed), dataclasses.replace(row.settings, seed=seed)
            if (there := finished.get(_at_home(settings))) and not folder.exists():
                beside = folder.with_name(f".{folder.name}.part")
                shutil.rmtree(beside, ignore_errors=True)  # of a copy that was killed
                shutil.copytree(there, beside)
                beside.rename(folder)
                say(f"{row.label}, seed {seed}: the same training as {there}")
                copied += 1
    if finished and not copied:
        say("--reuse: no training there has the data and settings of one that has yet to begin here")


Outcomes = Iterator[tuple[Task, Exception | None]]


def _one_by_one(
    tasks: Sequence[Task], resources: Resources, jobs: int, say: Callable[[str], None]
) -> Outcomes:
    """Train in this process, where all rows share the decoded images."""

    @lru_cache(maxsize=1)
    def load(data: str | None, size: int, images: int, seed: int) -> tuple[Any, Any]:
        settings = Settings(data=data, size=size, images=images, seed=seed)
        return load_datasets(settings, resources.threads, resources.cache, resources.bar)

    for task in tasks:
        s = task.settings
        try:
            # The seed matters to generated lesions only: files would be decoded anew for each.
            datasets = load(s.data, s.size, s.images, s.seed if s.data is None else 0)
            _train(task, datasets, resources, lambda line, title=task.title: say(f"{title}: {line}"))
            yield task, None
        except (InputError, MemoryError) as fault:
            yield task, _told(fault)


def _train(task: Task, datasets: tuple[Any, Any], resources: Resources, say: Callable[[str], None]) -> None:
    """Run one training to its end, from where it stopped if it has begun."""
    settings, state = begin(task.folder, dataclasses.asdict(task.settings), resume=True)
    trainer = TimedTrainer(
        settings, task.folder, *datasets, resources.device, resources.threads, say, resources.bar
    )
    if state:
        trainer.load_state(state)
    trainer.run()


def _told(fault: InputError | MemoryError) -> InputError:
    if isinstance(fault, MemoryError):
        return InputError("not enough memory; lower --batch-size, --size, --widths or --jobs")
    return fault


class TimedTrainer(Trainer):
    """A Trainer that also writes down how long its epochs took; the checkpoints say nothing about time."""

    def _train_epoch(self, progress: Any) -> float:
        self.whole = self.batches_done == 0  # what is left of an epoch that was interrupted tells nothing
        return super()._train_epoch(progress)

    def _finish_epoch(self, train_loss: float, started: float) -> None:
        super()._finish_epoch(train_loss, started)
        if self.whole:
            write_seconds(self.out, {**read_seconds(self.out), len(self.history): time.monotonic() - started})


def read_seconds(folder: Path) -> dict[int, float]:
    """Return how long each epoch of a training took, with its validation, in seconds; {} if not known."""
    try:
        rows = list(csv.DictReader((folder / SECONDS).read_text().splitlines()))
        return {int(row["epoch"]): float(row["seconds"]) for row in rows}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def write_seconds(folder: Path, seconds: dict[int, float]) -> None:
    """Write what `read_seconds` reads."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerows([("epoch", "seconds"), *((epoch, f"{value:.3f}") for epoch, value in seconds.items())])
    with output_file(folder / SECONDS) as file:
        file.write(text.getvalue().encode())


def _side_by_side(
    tasks: Sequence[Task], resources: Resources, jobs: int, say: Callable[[str], None]
) -> Outcomes:
    """Train in `jobs` processes at a time, each with its own copy of the images."""
    if resources.cache:  # filled here, or all processes would write the same file at once
        for settings in {task.settings.size: task.settings for task in tasks}.values():
            load_datasets(settings, resources.threads, resources.cache, sys.stderr.isatty())
    new = multiprocessing.get_context("spawn")
    waiting, running = list(tasks), {}
    with _passing_on_ctrl_c(running) as stopped:
        while (waiting and not stopped) or running:
            while waiting and len(running) < jobs and not stopped:
                answer, sender = new.Pipe(duplex=False)
                process = new.Process(target=_in_child, args=(waiting[0], resources, sender), daemon=True)
                process.start()
                sender.close()  # the child's copy is the last, so that its death can be heard
                running[answer] = waiting.pop(0), process
            for answer in wait(list(running)):
                fault = _outcome(answer, running[answer][1])
                task, _ = running.pop(answer)
                if not stopped:
                    yield task, fault
        if stopped:
            raise Interrupted


def _outcome(answer: Connection, process: Any) -> InputError | None:
    """Return what a process says of its training, and wait for its end; one that is killed says nothing."""
    fault, silent = None, False
    try:
        fault = answer.recv()
    except EOFError:
        silent = True
    process.join()
    if silent:
        code = process.exitcode
        return InputError(f"its process ended with code {code}, for lack of memory perhaps; try it again")
    return fault


@contextmanager
def _passing_on_ctrl_c(running: dict[Connection, tuple[Task, Any]]) -> Iterator[list[int]]:
    """Ask all processes to stop at the first Ctrl-C, which the list then holds; end them at the second."""
    stopped: list[int] = []

    def ask(signum: int, frame: Any) -> None:
        stopped.append(signum)
        for _, process in running.values():
            process.terminate() if len(stopped) == 1 else process.kill()

    before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


def _in_child(task: Task, resources: Resources, sender: Connection) -> None:
    """Be the process of one training."""
    os.setpgrp()
    keep_freed_memory()
    set_threads(resources.threads)

    def say(line: str) -> None:
        print(f"{task.title}: {line}", flush=True)
        if not multiprocessing.parent_process().is_alive():
            os.kill(os.getpid(), signal.SIGTERM)  # nobody is left to hear it: save and stop

    try:
        with convolution(resources.conv):
            _train(task, load_datasets(task.settings, resources.threads, resources.cache), resources, say)
        sender.send(None)
    except (InputError, MemoryError) as fault:
        sender.send(_told(fault))
    except Interrupted:
        sender.send(None)  # the parent knows why

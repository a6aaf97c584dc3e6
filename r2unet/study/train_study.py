"""Train the rows of a study with every seed; interrupted runs are resumed.

    DIR/study.json                the plan (`r2unet.study.plan`): it alone decides what is trained
    DIR/ROW/seed-K/               an ordinary run folder (`r2unet.training.run_folder`), and in it
    DIR/ROW/seed-K/seconds.csv    the duration of each epoch that was not interrupted
    DIR/table.md, ...             the results (`r2unet.study.report`)

A run is finished when its report.json exists, and is not repeated. Runs are independent of each other: each
depends on its settings alone. Their order, and how many run in parallel, change no number except the
seconds. All rows are trained with the first seed before the second, so early results cover all rows.
"""

from __future__ import annotations

import dataclasses
import math
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from minidl.allocator import keep_freed_memory
from minidl.ops.conv import convolution
from minidl.threads import set_threads
from r2unet.errors import InputError, visible
from r2unet.files import read_rows, write_rows
from r2unet.study.plan import Plan, Task
from r2unet.study.processes import Outcomes, run_in_processes, stop_if_orphaned
from r2unet.training.interruption import Interrupted
from r2unet.training.lock import LOCK, locked
from r2unet.training.run_folder import load_datasets, start_or_resume
from r2unet.training.settings import Settings
from r2unet.training.trainer import Trainer

SECONDS = "seconds.csv"


class Resources(NamedTuple):
    """The device, threads and cache that the runs use; they change results by rounding at most."""

    device: str = "cpu"
    conv: str = "auto"  # which implementation of convolution
    threads: int = 1
    cache: Path | None = None  # folder of decoded images
    bar: bool = False  # whether to show a progress bar
    feed: str = "auto"  # where batches are augmented
    workers: int = 0  # processes that prepare batches, if runs are trained one by one
    trust: bool = False  # predict for the report whatever memory it takes


def train_study(
    out: Path, plan: Plan, resources: Resources, jobs: int = 1, log: Callable[[str], None] = print
) -> list[InputError]:
    """Train what is not finished, `jobs` runs at a time, and return the errors.

    A run that fails does not stop the others: a learning rate that is too high should not cost a night.
    Raises Interrupted on Ctrl-C; its text ends with the command that resumes the study, to which the caller
    adds the options for `resources` and `jobs`.
    """
    tasks = plan.tasks(out)
    unfinished = [task for task in tasks if not task.finished]
    for task in tasks:
        if task.finished and (task.folder / LOCK).exists():  # left by a process that was killed at its end
            with suppress(InputError), locked("--out", task.folder):
                pass
    finished = f"{len(tasks) - len(unfinished)} of {len(tasks)} training runs are finished"
    seeds = "1 seed" if len(plan.seeds) == 1 else f"{len(plan.seeds)} seeds"
    log(f"{len(plan.rows)} rows x {seeds}: {finished}")
    outcomes = (
        _one_by_one(unfinished, resources, log) if jobs == 1 else _in_processes(unfinished, resources, jobs)
    )
    errors = []
    try:
        for task, error in outcomes:
            if error:
                errors.append(InputError(f"{task.title}: {error}"))
    except (Interrupted, KeyboardInterrupt):
        done = sum(task.finished for task in tasks)
        raise Interrupted(
            f"stopped after {done} of {len(tasks)} training runs; all progress is saved; resume with: "
            f"r2unet compare {plan.study.name} --out {shlex.quote(str(out))}"
        ) from None
    return errors


def _one_by_one(tasks: Sequence[Task], resources: Resources, log: Callable[[str], None]) -> Outcomes:
    """Train in this process, where all rows share the decoded images."""

    @lru_cache(maxsize=1)
    def load(settings: Settings) -> tuple[Any, Any]:
        return load_datasets(settings, resources.threads, resources.cache, resources.bar)

    def train(task: Task) -> None:
        s = task.settings
        # Only generated lesions depend on the seed. Files are decoded once for all seeds.
        seed = s.seed if s.data is None else 0
        datasets = load(
            Settings(data=s.data, labels=s.labels, task=s.task, size=s.size, images=s.images, seed=seed)
        )
        _train(task, datasets, resources, lambda line: log(f"{task.title}: {line}"))

    for task in tasks:
        yield task, _error_of(train, task)


def _in_processes(tasks: Sequence[Task], resources: Resources, jobs: int) -> Outcomes:
    """Train in `jobs` processes at a time, each with its own copy of the images."""
    if resources.cache:  # filled here, or all processes would write the same file at the same time
        for settings in {task.settings.size: task.settings for task in tasks}.values():
            load_datasets(settings, resources.threads, resources.cache, sys.stderr.isatty())
    yield from run_in_processes(partial(_train_in_process, resources=resources), tasks, jobs)


def _train_in_process(task: Task, resources: Resources) -> InputError | None:
    """Train in a process of `run_in_processes`, and return the error that stopped the run."""
    keep_freed_memory()
    set_threads(resources.threads)

    def log(line: str) -> None:
        print(visible(f"{task.title}: {line}"), flush=True)
        stop_if_orphaned()

    def train(task: Task) -> None:
        _train(task, load_datasets(task.settings, resources.threads, resources.cache), resources, log)

    with convolution(resources.conv):
        return _error_of(train, task)


def _error_of(train: Callable[[Task], None], task: Task) -> InputError | None:
    """Train, and return the error that stopped the run, None if it finished."""
    try:
        train(task)
    except InputError as error:
        return error
    except MemoryError:
        return InputError("not enough memory; lower --batch-size, --size, --widths or --jobs")
    return None


def _train(task: Task, datasets: tuple[Any, Any], resources: Resources, log: Callable[[str], None]) -> None:
    """Train one task to its end; resume it if it was interrupted."""
    with locked("--out", task.folder):
        settings, state = start_or_resume(task.folder, dataclasses.asdict(task.settings), resume=True)
        trainer = Trainer(
            settings,
            task.folder,
            *datasets,
            device=resources.device,
            threads=resources.threads,
            log=log,
            bar=resources.bar,
            on_epoch_end=partial(_record_seconds, task.folder),
            feed=resources.feed,
            workers=resources.workers,
        )
        if state:
            trainer.load_state(state)
        trainer.run()


def _record_seconds(folder: Path, epoch: int, seconds: float | None) -> None:
    """Write the duration of an epoch to seconds.csv, not to a checkpoint: checkpoints contain no times."""
    if seconds is not None:  # None: the epoch was interrupted and resumed
        write_seconds(folder, {**read_seconds(folder), epoch: seconds})


def read_seconds(folder: Path) -> dict[int, float]:
    """Return the duration of each epoch with its validation, in seconds; {} if unknown or impossible."""
    try:
        found = {int(epoch): float(seconds) for _, (epoch, seconds) in read_rows(folder / SECONDS)[1:]}
    except (OSError, ValueError):
        return {}
    return found if all(0 <= seconds < math.inf for seconds in found.values()) else {}


def write_seconds(folder: Path, seconds: dict[int, float]) -> None:
    """Write what `read_seconds` reads."""
    rows = ((epoch, f"{value:.3f}") for epoch, value in seconds.items())
    write_rows(folder / SECONDS, [("epoch", "seconds"), *rows])

"""`r2unet train`: train a network, or resume a training run."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.backend import cuda_problem, describe, resolve_device
from minidl.connect import connect, processes_started
from minidl.launch import launch, on_terminal
from minidl.parallel import ParallelError, Processes, on_device
from minidl.threads import physical_cores
from r2unet import __version__
from r2unet.commands.messages import (
    describe_tf32,
    explain_memory_error,
    line_printer,
    print_scores,
    training_memory,
    warn_left_out,
)
from r2unet.commands.options import (
    add_cache,
    add_data,
    add_device,
    add_feed,
    add_graph,
    add_setting,
    add_shared_training,
    add_training,
    resources_given,
    settings_given,
)
from r2unet.commands.values import given_path
from r2unet.data.classes import CLASSES
from r2unet.data.targets import class_labels
from r2unet.errors import InputError, visible
from r2unet.files import check_writable
from r2unet.training.checkpoints import initial_weights
from r2unet.training.feed import count_workers
from r2unet.training.lock import locked
from r2unet.training.run_folder import BEST, LAST, PATHS, load_datasets, start_or_resume
from r2unet.training.settings import Settings

if TYPE_CHECKING:  # imported late, because it takes long
    from r2unet.training.trainer import Trainer

HELP = "train a network on ISIC images or on generated lesions"
DETAILS = "Ctrl-C saves the run; --resume with the same --out resumes it, bit for bit."


def add_options(p: argparse.ArgumentParser) -> None:
    add_data(p)
    add_training(p)
    add_setting(
        p, "seed", int, "N", "seed of the initial weights, the order of the images and the augmentation"
    )
    text = "start from the weights of this checkpoint, where names and shapes agree; no effect on resuming"
    p.add_argument("--from", dest="start", type=given_path, metavar="F", help=text)
    add_device(p)
    add_feed(p)
    add_graph(p)
    add_shared_training(p)
    add_cache(p)
    p.add_argument(
        "--out", type=given_path, metavar="DIR", help="folder for checkpoints and figures (default runs/DATE)"
    )
    p.add_argument("--resume", action="store_true", help="resume the training run in --out, if there is one")
    p.add_argument(
        "--profile",
        action="store_true",
        help="run 6 steps, print the time, memory and implementation of each operation in the last 5, and "
        "stop; no file is written",
    )


def run(options: argparse.Namespace) -> int:
    if options.resume and options.out is None:
        raise InputError("--resume: needs the folder of the training run; give it with --out runs/NAME")
    out = options.out or Path("runs") / time.strftime("%Y-%m-%d-%H%M%S")
    started = processes_started()
    if options.processes not in (None, 1) and started == 1:
        return _launch(options, out)
    processes = connect()
    if started > 1 and options.processes not in (None, "auto", started):
        raise InputError(
            f"--processes {options.processes}: mpiexec has started {started}; omit the option, or mpiexec"
        )
    with ExitStack() as stack:

        def lock() -> None:
            check_writable("--out", out)
            stack.enter_context(locked("--out", out))

        if not options.profile:  # which writes nothing
            processes.from_first(lock)
        return _train(options, out, processes)


def _launch(options: argparse.Namespace, out: Path) -> int:
    """Start this command in several processes, or run it in this one if "auto" finds a single core."""
    count = options.processes
    if count == "auto":
        batch = getattr(options, "batch_size", Settings.batch_size)
        count = min(physical_cores(), batch)
    if count == 1:
        options.processes = 1
        return run(options)
    command = [sys.executable, "-m", "r2unet", *options.words]
    command += ["--processes", str(count), "--out", str(out)]  # the last value of an option counts
    try:
        return launch(count, command)
    except ParallelError as error:
        if not (out / LAST).exists():
            raise
        groups = add_device, add_feed, add_graph, add_cache, add_shared_training
        resources = resources_given(options, *groups)
        command = f"r2unet train --resume --out {shlex.quote(str(out))} {resources}"
        raise ParallelError(f"{error}; resume with: {command}") from None


def _train(options: argparse.Namespace, out: Path, processes: Processes) -> int:
    from r2unet.training.interruption import Interrupted

    must_agree(options, processes)
    settings, state = _settings_and_state(options, out, processes)
    device = resolve_device(options.device)
    processes = on_device(processes, device)
    if options.cache:
        check_writable("--cache", options.cache)
    first = processes.rank == 0
    log = line_printer(on_terminal()) if first else lambda line: None
    _describe_run(options, settings, state, out, device, log)
    option, remedy = f"--batch-size {settings.batch_size}", "lower it, or --size or --widths"
    try:
        with explain_memory_error(option, settings.batch_size, settings.size, device, remedy):
            trainer = _new_trainer(options, settings, state, out, device, processes, log)
            results = trainer.profile() if options.profile else trainer.run()
    except Interrupted as interrupted:
        resources = resources_given(options, add_device, add_feed, add_graph, add_cache, add_shared_training)
        if first:
            print(visible(f"{interrupted} {resources}".rstrip()), file=sys.stderr)
        processes.close()
        return 130
    if first and options.profile:
        print(results)
    elif first:
        print_scores(results)
        print(visible(f"the weights are in {out / BEST}"))
    processes.close()
    return 0


def _settings_and_state(
    options: argparse.Namespace, out: Path, processes: Processes
) -> tuple[Settings, dict[str, Any] | None]:
    """Return the settings of the run and, if it is resumed, its state. Raises InputError if they disagree."""
    given = settings_given(options)
    settings, state = processes.from_first(
        lambda: start_or_resume(out, given, options.resume, write=not options.profile)
    )
    settings.check_processes(processes.size, settings.batch_size)
    if settings.freeze_encoder and not (state or options.start):
        raise InputError(
            "--freeze-encoder: a new encoder has learned nothing; give trained weights: --from F"
        )
    return dataclasses.replace(settings, **{name: given[name] for name in PATHS if name in given}), state


def _describe_run(
    options: argparse.Namespace,
    settings: Settings,
    state: dict[str, Any] | None,
    out: Path,
    device: str,
    log: Callable[[str], None],
) -> None:
    """Print what is trained, where, and what the user might not expect."""
    data = settings.data or "generated lesions"
    log(f"training on {data} on the {describe(device)}, {'to profile' if options.profile else f'into {out}'}")
    if settings.tf32:
        log(describe_tf32(device))
    if options.device == "auto" and device == "cpu":
        log(f"not on a GPU: {cuda_problem()}")
    if options.resume and state is None:
        log(f"{out} contains no training run to resume; starting a new one")


def _new_trainer(
    options: argparse.Namespace,
    settings: Settings,
    state: dict[str, Any] | None,
    out: Path,
    device: str,
    processes: Processes,
    log: Callable[[str], None],
) -> Trainer:
    """Read the images and return the trainer, with the state to resume from, if there is one."""
    from r2unet.training.trainer import Trainer

    first = processes.rank == 0
    if first and device == "cpu":  # the estimate counts arrays of the CPU; a GPU's memory has others
        share = dataclasses.replace(settings, batch_size=-(-settings.batch_size // processes.size))
        log(training_memory(share))
    if processes.size > 1:
        log(f"{processes.size} processes share each batch of {settings.batch_size} images")
    bar = first and on_terminal()
    training, validation = load_datasets(settings, options.threads, options.cache, bar)
    log(f"{len(training)} images for training, {len(validation)} for validation")
    if first and settings.task != "outline":
        labels = np.concatenate([class_labels(s, CLASSES[settings.classes]) for s in (training, validation)])
        warn_left_out(np.count_nonzero(labels < 0), len(labels), settings)
    start = None if state or not options.start else initial_weights(options.start, settings, log)
    trainer = Trainer(
        settings,
        out,
        training,
        validation,
        device,
        options.threads,
        log,
        bar,
        start=start,
        feed=options.feed,
        workers=count_workers(options.workers, device, processes.size),
        graph=options.graph,
        processes=processes,
    )
    if device != "cpu":
        options.feed = trainer.feed.name  # a run resumes bit for bit only with the same feed
    if state:
        trainer.load_state(state)
        done = trainer.state
        log(f"resuming after {len(done.history)} epochs and {done.batches_done} batches")
    return trainer


def must_agree(options: argparse.Namespace, processes: Processes) -> None:
    """Raise ParallelError if the processes were started with other options; paths may differ."""
    private = {*PATHS, "out", "cache", "words", "processes", "threads", "workers"}
    given = sorted((name, str(value)) for name, value in vars(options).items() if name not in private)
    processes.must_agree(f"options, or another version than {__version__},", __version__, given)

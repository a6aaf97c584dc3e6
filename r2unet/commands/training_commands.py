"""The commands that make networks: `r2unet train | compare | summary`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from minidl.backend import cuda_problem, describe, resolve_device
from r2unet.commands.messages import complain, enough_memory, print_scores
from r2unet.commands.options import resources_given
from r2unet.errors import InputError
from r2unet.training.run_folder import BEST, begin, check_writable, load_datasets, new_model
from r2unet.training.settings import Settings


def train(options: argparse.Namespace) -> int:
    """Run `r2unet train`."""
    from r2unet.training.trainer import Interrupted, Trainer

    if options.resume and options.out is None:
        raise InputError("--resume: say which training goes on, with --out runs/NAME")
    out = options.out or Path("runs") / time.strftime("%Y-%m-%d-%H%M%S")
    settings, state = begin(out, _settings_given(options), options.resume)
    device = resolve_device(options.device)
    if not options.profile:
        check_writable("--out", out)
    if options.cache:
        check_writable("--cache", options.cache)

    bar = sys.stderr.isatty()
    say = _speaker(bar)
    data, destination = (
        settings.data or "generated lesions",
        "to profile" if options.profile else f"into {out}",
    )
    say(f"training on {data} on the {describe(device)}, {destination}")
    if options.device == "auto" and device == "cpu":
        say(f"not on a GPU: {cuda_problem()}")
    if options.resume and state is None:
        say(f"{out} holds no training to go on with: beginning one")
    option, remedy = f"--batch-size {settings.batch_size}", "lower it, or --size or --widths"
    try:
        with enough_memory(option, settings.batch_size, settings.size, device, remedy):
            if device == "cpu":  # where it is measured; a GPU's memory holds other arrays
                say(_memory(settings))
            training, validation = load_datasets(settings, options.threads, options.cache, bar)
            say(f"{len(training)} images for training, {len(validation)} for validation")
            trainer = Trainer(settings, out, training, validation, device, options.threads, say, bar)
            if state:
                trainer.load_state(state)
                say(f"going on after {len(trainer.history)} epochs and {trainer.batches_done} batches")
            if options.profile:
                print(trainer.profile())
                return 0
            print_scores(trainer.run())
    except Interrupted as stopped:
        print(f"{stopped} {resources_given(options)}".rstrip(), file=sys.stderr)
        return 130
    print(f"the weights are in {out / BEST}")
    return 0


def compare(options: argparse.Namespace) -> int:
    """Run `r2unet compare`."""
    from r2unet.study.compare import Resources, finished_in, reuse, train_study
    from r2unet.study.plan import begin_study
    from r2unet.study.report import write_report
    from r2unet.training.trainer import Interrupted

    out, device, faults = options.out, resolve_device(options.device), []
    check_writable("--out", out)
    if options.cache:
        check_writable("--cache", options.cache)
    given = _settings_given(options)
    if options.reuse and options.only_report:
        raise InputError("--reuse: is for trainings that are yet to come; leave out it or --only-report")
    finished = finished_in(options.reuse)
    plan = begin_study(out, options.study, given, options.seeds, options.variant, options.only_report)
    bar = sys.stderr.isatty() and options.jobs == 1
    resources, say = Resources(device, options.conv, options.threads, options.cache, bar), _speaker(bar)
    if not options.only_report:
        reuse(out, plan, finished, say)
        try:
            faults = train_study(out, plan, resources, options.jobs, say)
        except Interrupted as stopped:
            print(f"{stopped} {resources_given(options)}".rstrip(), file=sys.stderr)
            return 130
    for fault in faults:
        complain(fault)
    print(write_report(out, plan, resources, options.originals, options.pictures, say))
    print(f"the tables and pictures are in {out}")
    return 2 if faults else 0


def summary(options: argparse.Namespace) -> int:
    """Run `r2unet summary`."""
    from r2unet.network.summary import as_table, image_of_zeros, summarize

    settings = Settings(**_settings_given(options)).check()
    model = new_model(settings, np.random.default_rng(0))
    print(as_table(summarize(model, image_of_zeros(settings.size))))
    print(_memory(settings))
    return 0


def _speaker(bar: bool) -> Callable[[str], None]:
    """Return what prints a line at once, where there is a bar above it."""
    if not bar:
        return partial(print, flush=True)
    from tqdm import tqdm

    return tqdm.write


def _memory(settings: Settings) -> str:
    """Say how much memory a training step will take on the CPU."""
    from r2unet.network.losses import LOSSES
    from r2unet.training.cost import in_words, memory_of, resident_bytes

    program, rng = resident_bytes(), np.random.default_rng(0)
    memory = memory_of(lambda: new_model(settings, rng), LOSSES[settings.loss], settings.multiple)
    return in_words(memory, settings.batch_size, settings.size, program)


def _settings_given(options: argparse.Namespace) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(Settings)}
    return {name: value for name, value in vars(options).items() if name in names}

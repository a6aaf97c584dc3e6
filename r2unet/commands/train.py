"""`r2unet train`: train a network, or resume a training run."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from minidl.backend import cuda_problem, describe, resolve_device
from r2unet.commands.messages import explain_memory_error, line_printer, print_scores, training_memory
from r2unet.commands.options import (
    add_cache,
    add_data,
    add_device,
    add_setting,
    add_training,
    resources_given,
    settings_given,
)
from r2unet.errors import InputError, visible
from r2unet.files import check_writable
from r2unet.training.checkpoints import initial_weights
from r2unet.training.lock import locked
from r2unet.training.run_folder import BEST, load_datasets, start_or_resume

HELP = "train a network on ISIC images or on generated lesions"
DETAILS = "Ctrl-C saves the run; --resume with the same --out resumes it, bit for bit."


def add_options(p: argparse.ArgumentParser) -> None:
    add_data(p)
    add_training(p)
    add_setting(
        p, "seed", int, "N", "seed of the initial weights, the order of the images and the augmentation"
    )
    text = "start from the weights of this checkpoint, where names and shapes agree; no effect on resuming"
    p.add_argument("--from", dest="start", type=Path, metavar="F", help=text)
    add_device(p)
    add_cache(p)
    p.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for checkpoints and figures (default runs/DATE)"
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
    if options.profile:  # writes nothing
        return _train(options, out)
    check_writable("--out", out)
    with locked("--out", out):
        return _train(options, out)


def _train(options: argparse.Namespace, out: Path) -> int:
    from r2unet.training.interruption import Interrupted
    from r2unet.training.trainer import Trainer

    settings, state = start_or_resume(out, settings_given(options), options.resume, write=not options.profile)
    device = resolve_device(options.device)
    if options.cache:
        check_writable("--cache", options.cache)

    progress_bar = sys.stderr.isatty()
    log = line_printer(progress_bar)
    data = settings.data or "generated lesions"
    log(f"training on {data} on the {describe(device)}, {'to profile' if options.profile else f'into {out}'}")
    if options.device == "auto" and device == "cpu":
        log(f"not on a GPU: {cuda_problem()}")
    if options.resume and state is None:
        log(f"{out} contains no training run to resume; starting a new one")
    option, remedy = f"--batch-size {settings.batch_size}", "lower it, or --size or --widths"
    try:
        with explain_memory_error(option, settings.batch_size, settings.size, device, remedy):
            if device == "cpu":  # the estimate counts arrays on the CPU; a GPU's memory holds others
                log(training_memory(settings))
            training, validation = load_datasets(settings, options.threads, options.cache, progress_bar)
            log(f"{len(training)} images for training, {len(validation)} for validation")
            start = None if state or not options.start else initial_weights(options.start, settings, log)
            trainer = Trainer(
                settings,
                out,
                training,
                validation,
                device,
                options.threads,
                log,
                progress_bar,
                start=start,
            )
            if state:
                trainer.load_state(state)
                done = trainer.state
                log(f"resuming after {len(done.history)} epochs and {done.batches_done} batches")
            if options.profile:
                print(trainer.profile())
                return 0
            print_scores(trainer.run())
    except Interrupted as interrupted:
        resources = resources_given(options, add_device, add_cache)
        print(visible(f"{interrupted} {resources}".rstrip()), file=sys.stderr)
        return 130
    print(visible(f"the weights are in {out / BEST}"))
    return 0

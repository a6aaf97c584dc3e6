"""Train on ISIC 2017 for a given time, and report the seconds of an epoch and the validation Jaccard.

    python -m benchmarks.gpu_training ISIC_ROOT --device cuda --seconds 60

The settings are those of `r2unet train --size 256 --batch-size 16 --lr 2.5e-3`, with as many epochs as fit
into the time, which some steps and a validation measure first. Reading the images and these measurements take
time before that; reading is reported separately. With `--limit`, the program trains for less time if reading
took long, as it does for large photographs. Prints JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from minidl.backend import DEVICES, synchronize
from r2unet.data.sample import Sample
from r2unet.training.feed import count_workers
from r2unet.training.run_folder import load_datasets
from r2unet.training.settings import Settings
from r2unet.training.trainer import Trainer

SETTINGS = Settings(size=256, batch_size=16, lr=2.5e-3)
QUICK = dataclasses.replace(SETTINGS, size=16, widths=(2, 4), batch_size=2)
# Steps. The warm-up includes the capture of a graph, during which batches are prepared in advance. So many
# steps are timed that these batches hardly matter.
WARM_UP, TIMED = 4, 80
LEAST_SECONDS = 5.0  # of training
OTHER_SECONDS = 15.0  # for the first steps, the first validation and the report
SHARE = 0.9  # of the time, for epochs; saving and the report need the rest


def seconds_a_step(trainer: Trainer) -> float:
    """Return the seconds of a training step, with its batch, measured over some steps."""
    trainer.state.train_mode()
    taken, started = 0, time.monotonic()
    with trainer.feed.loader:
        for batch in islice(trainer.feed.batches(), WARM_UP + TIMED):
            trainer.train_step(batch)
            taken += 1
            if taken == WARM_UP:
                trainer.read_losses()
                started = time.monotonic()
        synchronize(trainer.state.leaves()[0].data)
        return (time.monotonic() - started) / max(1, taken - WARM_UP)


def seconds_a_validation(trainer: Trainer) -> float:
    """Return the seconds of a validation."""
    started = time.monotonic()
    trainer.validate()
    return time.monotonic() - started


def epochs_within(seconds: float, step: float, steps: int, validation: float) -> int:
    """Return how many epochs of `steps` and a validation fit into `seconds`, all in seconds; at least one."""
    return max(1, int(SHARE * seconds / (step * steps + validation)))


def train(
    settings: Settings,
    data: tuple[Sequence[Sample], Sequence[Sample]],
    device: str,
    seconds: float,
) -> dict[str, Any]:
    """Train for about this many seconds; return the duration of an epoch and the scores."""
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as folder:

        def trainer(settings: Settings, **more: Any) -> Trainer:
            workers = count_workers("auto", device)
            return Trainer(settings, Path(folder), *data, device, log=lines.append, workers=workers, **more)

        first = trainer(settings)
        step, validation = seconds_a_step(first), seconds_a_validation(first)
        del first
        gc.collect()  # a graph and its trainer refer to each other; the next trainer needs their memory
        steps = -(-len(data[0]) // settings.batch_size)
        epochs = epochs_within(seconds, step, steps, validation)
        durations: list[float] = []
        run = trainer(
            dataclasses.replace(settings, epochs=epochs),
            on_epoch_end=lambda epoch, duration: durations.append(duration),
        )
        started = time.monotonic()
        report = run.run()
    return {
        "passed": True,
        "epochs": epochs,
        "seconds": time.monotonic() - started,
        "seconds_a_step": step,
        "seconds_a_validation": validation,
        "seconds_an_epoch": statistics.median(durations),
        "jaccard": report["model"]["mean"]["jaccard"],
        "graph": run.step.captured,
        "lines": lines,
    }


def main(argv: list[str] | None = None) -> int:
    """Read the images, train, and print the results as JSON."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu_training", description="Train on ISIC 2017.")
    parser.add_argument("root", help="folder of ISIC 2017")
    parser.add_argument("--device", choices=DEVICES, default="cuda", help="device (default cuda)")
    parser.add_argument("--seconds", type=float, default=60.0, help="time for training (default 60)")
    parser.add_argument("--limit", type=float, default=math.inf, help="time limit of the program, in seconds")
    parser.add_argument("--quick", action="store_true", help="a tiny network, only to test that it runs")
    options = parser.parse_args(argv)
    settings = dataclasses.replace(QUICK if options.quick else SETTINGS, data=options.root)
    started = time.monotonic()
    data = load_datasets(settings, threads=min(16, os.cpu_count() or 1))
    reading = time.monotonic() - started
    seconds = min(options.seconds, options.limit - reading - OTHER_SECONDS)
    if seconds < LEAST_SECONDS:
        print(json.dumps({"passed": True, "note": f"not run: reading the images took {reading:.0f} s"}))
        return 0
    found = train(settings, data, options.device, seconds)
    print(json.dumps({**found, "images": len(data[0]), "seconds_to_read": reading}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The time that a training waits for its batches, by the number of threads and of worker processes.

    python -m benchmarks.feed                                    generated lesions, 256 x 256, batches of 16
    python -m benchmarks.feed --data ISIC2017 --device cuda      real images; also a training step on a GPU

Each row reads batches as fast as they come. The first third is not timed, because it is prepared in advance.

| column | what is timed |
|---|---|
| augmented on the CPU | a batch of `--feed cpu` |
| prepared for a GPU | the CPU's part of `--feed device`: random numbers, and images to compress as JPEG |
| training step | a step of R2U-Net (8,16,32,64) with its own batch from `--feed device`, on a GPU |

All rows prepare the same batches.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is imported: as `r2unet` does

import numpy as np

from benchmarks.gpu_training import seconds_a_step
from benchmarks.machine import describe
from benchmarks.report import machine, seconds, table
from benchmarks.timing import spread
from minidl.threads import available_cores
from r2unet.data.augment import augment
from r2unet.data.sample import Sample, collate
from r2unet.data.shared_samples import SharedSamples
from r2unet.data.synthetic import SyntheticLesions
from r2unet.training.device_feed import Preparer
from r2unet.training.run_folder import load_training
from r2unet.training.settings import Settings
from r2unet.training.trainer import Trainer
from r2unet.training.worker_loader import WorkerLoader

STRENGTH = 1.0  # of the augmentation
THREADS = (1, 4)
WORKERS = (1, 2, 4, 8)
ROUNDS, BATCHES = 3, 48


def on_cpu(samples: Sequence[Sample], **options: Any) -> WorkerLoader:
    """Return the loader of `--feed cpu`."""
    transform = partial(augment, strength=STRENGTH)
    return WorkerLoader(samples, transform=transform, collate=collate, **options)


def for_gpu(samples: Sequence[Sample], **options: Any) -> WorkerLoader:
    """Return the loader of `--feed device`, which prepares what the GPU needs for a batch."""
    part = Preparer(samples, STRENGTH, None)
    return WorkerLoader(range(len(samples)), transform=part.prepare, collate=part.work, **options)


def seconds_a_batch(
    new_loader: Callable[..., WorkerLoader], samples: Sequence[Sample], batch_size: int, **options: int
) -> list[float]:
    """Return the seconds from one batch to the next, their mean in each of ROUNDS epochs."""
    rng, means = np.random.default_rng(0), []
    with new_loader(samples, batch_size=batch_size, shuffle=True, rng=rng, **options) as loader:
        read = min(BATCHES, len(loader))
        for _ in range(ROUNDS):
            batches = islice(loader.batches(), read)
            for _ in islice(batches, read // 3):
                pass
            started = time.perf_counter()
            count = sum(1 for _ in batches)
            means.append((time.perf_counter() - started) / count)
    return means


def seconds_a_training_step(
    settings: Settings, samples: Sequence[Sample], device: str, **options: int
) -> float:
    """Return the seconds of a training step on a GPU, with its own batch."""
    gc.collect()  # a graph and its trainer refer to each other; this trainer needs their memory
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder), samples, SyntheticLesions(1, settings.size, seed=1)
        trainer = Trainer(settings, *data, device, log=lambda line: None, feed="device", **options)
        return seconds_a_step(trainer)


def measure(settings: Settings, samples: Sequence[Sample], device: str, **options: int) -> tuple[str, ...]:
    """Return a row of the table: the numbers of threads and workers, and the times in milliseconds."""
    times = [seconds_a_batch(new, samples, settings.batch_size, **options) for new in (on_cpu, for_gpu)]
    row = [str(options["threads"]), str(options["workers"]), *(seconds(spread(t)) for t in times)]
    if device != "cpu":
        row.append(f"{1e3 * seconds_a_training_step(settings, samples, device, **options):.1f}")
    return tuple(row)


def main(argv: list[str] | None = None) -> int:
    """Read the images, measure every row and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.feed", description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", help="a folder of images (default: generated lesions)")
    parser.add_argument("--size", type=int, default=256, help="side of the images (default 256)")
    parser.add_argument("--batch-size", type=int, default=16, help="images in a batch (default 16)")
    parser.add_argument("--images", type=int, default=800, help="generated lesions (default 800)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: time a step, too")
    options = parser.parse_args(argv)
    settings = Settings(
        data=options.data, size=options.size, batch_size=options.batch_size, images=options.images
    ).check()
    samples = load_training(settings)
    if options.data is None:
        samples = SharedSamples(samples)
    print(machine(describe(torch_threads=1)))
    print(f"\n### Milliseconds for {options.batch_size} images of {options.size} x {options.size}\n")
    head = ["threads", "workers", "augmented on the CPU", "prepared for a GPU"]
    rows = [{"threads": count, "workers": 0} for count in THREADS]
    rows += [{"threads": 1, "workers": count} for count in WORKERS if count <= available_cores()]
    if options.device != "cpu":
        head.append("training step")
    print(table(tuple(head), (measure(settings, samples, options.device, **row) for row in rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The feed of a training run: where its batches are augmented, and why there.

| feed | where the samples are augmented |
|---|---|
| "device" | on the GPU, whose memory holds all images (`r2unet.training.device_feed`) |
| "cpu" | on the CPU; the batches are sent to the GPU one ahead |

A CPU augments fewer images a second than a large GPU trains on, so "auto" prefers the device. The images may
take at most a quarter of its free memory, 4 bytes a pixel with the mask. The rest remains for the training
step, whose memory is not known before the first one.

What the CPU does for a feed is done by `--workers` processes (`worker_loader`) or, with 0, by `--threads`
threads. Processes are faster, but each takes some 50 MB, a few batches, and a third of a second to start.
"auto" uses them where a GPU trains, which would have to wait. On a CPU they would take the cores from the
training step.

Both feeds draw the same random numbers from the same generator. The batches therefore depend on the seed
alone, up to the rounding that `device_feed` describes. A run resumes bit for bit with the same feed, and any
number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from minidl.backend import GPU, LARGEST, free_memory
from minidl.data import prefetched
from minidl.threads import available_cores
from r2unet.data.augment import augment
from r2unet.data.sample import Batch, Sample, collate
from r2unet.errors import InputError
from r2unet.training.device_feed import DeviceFeed
from r2unet.training.worker_loader import WorkerLoader

FEEDS = ("auto", "device", "cpu")
SHARE = 4  # the images may take one part in SHARE of the free memory
MOST_WORKERS = 8  # that "auto" means

Targets = Callable[[Sequence[Sample]], np.ndarray]


class CpuFeed:
    """Batches of samples augmented on the CPU; the arguments are those of `DeviceFeed`."""

    name = "cpu"

    def __init__(
        self,
        samples: Sequence[Sample],
        batch_size: int,
        strength: float,
        device: str,
        targets: Targets | None = None,
        **options: Any,
    ) -> None:
        self.device = device
        self.loader = WorkerLoader(
            samples,
            batch_size,
            transform=partial(augment, strength=strength) if strength else None,
            collate=partial(collate, targets=targets),
            **options,
        )

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of the next epoch from batch `start` on, on the device."""
        return prefetched(self.loader.batches(start), self.device)


Feed = CpuFeed | DeviceFeed


def choose_feed(
    name: str, samples: Sequence[Sample], strength: float, device: str
) -> tuple[type[CpuFeed] | type[DeviceFeed], str]:
    """Return the feed that one of FEEDS means, and the reason in one line.

    Raises InputError for another name, and for "device" where it is impossible.
    """
    if name not in FEEDS:
        raise InputError(f"--feed {name}: must be one of {', '.join(FEEDS)}")
    if name == "cpu":
        return CpuFeed, "as --feed says"
    problem = device_feed_problem(samples, strength, device)
    if name == "device":
        if problem:
            raise InputError(f"--feed device: {problem}; use --feed cpu")
        return DeviceFeed, "as --feed says"
    needed, free = image_bytes(samples), 0 if problem else free_memory(device)
    if not problem and needed > free // SHARE:
        problem = (
            f"the images take {_MB(needed)}, more than a quarter of the device's {_MB(free)} of free memory"
        )
    if problem:
        return CpuFeed, problem
    return DeviceFeed, f"the images take {_MB(needed)} of its {_MB(free)} of free memory"


def device_feed_problem(samples: Sequence[Sample], strength: float, device: str) -> str | None:
    """Return why the device cannot augment these samples, or None."""
    if device not in GPU:
        return "there is no GPU"
    if not strength:
        return "nothing is augmented"
    if (count := 3 * image_bytes(samples) // 4) > LARGEST:
        return f"a kernel cannot count the {count:,} bytes of the images"
    return None


def image_bytes(samples: Sequence[Sample]) -> int:
    """Return the bytes of all images and masks, all of one size, on the device."""
    return 4 * len(samples) * samples[0].mask.size


def count_workers(workers: int | str, device: str, sharing: int = 1) -> int:
    """Return the number of workers that "auto" means if `sharing` trainings share the cores of this machine.

    A number is returned as it is.
    """
    if workers != "auto":
        return int(workers)
    cores = available_cores() // sharing
    return min(cores, MOST_WORKERS) if device == "cuda" and cores > 1 else 0


def describe_feed(feed: Feed, reason: str) -> str:
    """Return where batches are augmented, and why, as one line."""
    workers, threads = feed.loader.workers, max(feed.loader.threads, 1)
    if workers:
        by = f"{workers} worker process{'es' if workers > 1 else ''}"
    else:
        by = f"{threads} thread{'s' if threads > 1 else ''} of the CPU"
    if isinstance(feed, DeviceFeed):
        return f"batches are augmented on the device ({reason}); images to compress as JPEG by {by}"
    return f"batches are prepared by {by} ({reason})"


def _MB(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"

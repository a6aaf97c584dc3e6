"""Data augmentation on a GPU: the decoded images stay in its memory, and only random numbers are sent.

`r2unet.data.changes` draws the numbers, on the CPU, exactly as for `r2unet.data.augment`, and `minidl.images`
applies them. Both ways therefore make the same batches, with three differences:

- An image that is to be compressed as JPEG is augmented on the CPU, and its bytes are sent: another JPEG
  encoder would round differently in whole blocks of pixels. At strength 1 these are 30 % of the images.
  Processes prepare them (`--workers`) or, without, at least LEAST_THREADS threads.
- A level of colour may differ by 1. The CPU computes it in float32 and the GPU in float64, and both truncate
  it. The two numbers differ by less than 0.001, so the levels differ only where a whole number is between.
- The tone curve enlarges such a difference to at most its own steepest step, which is 3 levels at strength 1.
  Blur and window do not enlarge it.

The masks, the geometry and the blur agree.

Flips and quarter turns are exact, so they become part of the affine map. In coordinates relative to the
centre of the image, x to the right and y downwards, a flip is the matrix F = diag(+-1, +-1), and the quarter
turn takes pixel (x, y) from R (x, y) = (-y, x). The new pixel u is therefore taken from F R^k (shift + A u).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from minidl import images as device_images
from minidl.backend import Array, library, to_device
from minidl.data import prefetched
from r2unet.data.augment import with_changes
from r2unet.data.changes import Changes, Window, draw_changes
from r2unet.data.sample import CENTRE, SCALE, Batch, Sample
from r2unet.training.worker_loader import WorkerLoader

QUARTER_TURN = np.array([[0, -1], [1, 0]])  # R
ONE = 1 << 24  # the weight 1 of `minidl.images.gaussian_blur`
# On an H200, a step of R2U-Net (8,16,32,64) at 256 x 256, batch 16, takes 11.6 ms if the batch is always the
# same. With a new batch for each step it took 58 ms with 1 thread, 18 with 4, and 30 with 16: threads wait
# for each other, because only one at a time can hold Python's lock. Processes do not (`--workers`).
LEAST_THREADS = 4
NO_WINDOW = Window(np.full(2, np.inf), np.zeros(2), 0.0)


class Prepared(NamedTuple):
    """A sample before its changes on the device."""

    number: int  # of its image in the data set
    sample: Sample  # with the changes already made if it is compressed
    changes: Changes


class Work(NamedTuple):
    """What the device needs for a batch of N samples, K of them augmented on the CPU."""

    which: np.ndarray  # (N,) int32, the numbers of the images
    maps: np.ndarray  # (N, 2, 3)
    of_pixel: np.ndarray  # (N, 3, 3)
    of_mean: np.ndarray  # (N, 3, 3)
    tables: np.ndarray  # (N, 256) uint8
    boxes: np.ndarray  # (N, 3)
    windows: np.ndarray  # (N, 5)
    ready: np.ndarray  # (K,) int32, the positions in the batch of the samples augmented on the CPU
    ready_images: np.ndarray  # (K, 3, H, W) uint8
    ready_masks: np.ndarray  # (K, 1, H, W) uint8
    names: list[str]
    targets: np.ndarray | None


class Preparer:
    """What the CPU does for a batch of `DeviceFeed`; it can be given to another process."""

    def __init__(
        self,
        samples: Sequence[Sample],
        strength: float,
        targets: Callable[[Sequence[Sample]], np.ndarray] | None,
    ) -> None:
        self.samples, self.strength, self.targets = samples, strength, targets

    def prepare(self, number: int, rng: np.random.Generator) -> Prepared:
        """Draw the changes of a sample, and make them if it is to be compressed."""
        sample, changes = self.samples[number], draw_changes(rng, self.strength)
        return Prepared(number, sample if changes.quality is None else with_changes(sample, changes), changes)

    def work(self, prepared: list[Prepared]) -> Work:
        """Join prepared samples into a batch, all of it in arrays."""
        numbers, samples, changes = zip(*prepared, strict=True)
        H, W = samples[0].mask.shape
        ready = [i for i, each in enumerate(changes) if each.quality is not None]
        return Work(
            np.array(numbers, np.int32),
            np.stack([affine_map(each, H, W) for each in changes]),
            *(np.stack(matrices) for matrices in zip(*map(colour_matrices, changes), strict=True)),
            np.stack([each.tone for each in changes]),
            np.array([gaussian_boxes(each.blur * H) for each in changes], np.float64),
            np.array([window_row(each.window) for each in changes]),
            np.array(ready, np.int32),
            np.array([samples[i].image.transpose(2, 0, 1) for i in ready], np.uint8).reshape(-1, 3, H, W),
            np.array([samples[i].mask for i in ready], np.uint8).reshape(-1, 1, H, W),
            [sample.name for sample in samples],
            self.targets(samples) if self.targets else None,
        )


class DeviceFeed:
    """Batches of augmented samples, which are computed on the device that trains.

    `strength` is that of the augmentation, above 0. `targets` is an argument of `collate`, and `options` are
    those of `WorkerLoader`, of whose `threads` there are at least LEAST_THREADS.
    """

    name = "device"

    def __init__(
        self,
        samples: Sequence[Sample],
        batch_size: int,
        strength: float,
        device: str,
        targets: Callable[[Sequence[Sample]], np.ndarray] | None = None,
        threads: int = 1,
        **options: Any,
    ) -> None:
        self.samples, self.device = samples, device
        # Sample by sample, because stacking them all would need twice the memory.
        size = samples[0].mask.shape
        self.images = library(device).empty((len(samples), *size, 3), np.uint8)
        self.masks = library(device).empty((len(samples), *size, 1), np.uint8)
        for i, sample in enumerate(samples):
            self.images[i] = to_device(np.ascontiguousarray(sample.image), device)
            self.masks[i] = to_device(sample.mask[..., None] * np.uint8(255), device)
        on_cpu = Preparer(samples, strength, targets)
        self.loader = WorkerLoader(
            range(len(samples)),
            batch_size,
            transform=on_cpu.prepare,
            collate=on_cpu.work,
            threads=max(threads, LEAST_THREADS),
            **options,
        )

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of the next epoch from batch `start` on, on the device."""
        return map(self.augmented, prefetched(self.loader.batches(start), self.device))

    def augmented(self, work: Work) -> Batch:
        """Make the changes of a batch on the device."""
        images = device_images.affine_sample(self.images, work.which, work.maps)  # (N, 3, H, W)
        masks = device_images.affine_sample(self.masks, work.which, work.maps)  # (N, 1, H, W)
        masks = (masks >= 128).astype(np.uint8)
        images = device_images.recolour(images, work.of_pixel, work.of_mean, work.tables)
        images = device_images.gaussian_blur(images, work.boxes)
        images, masks = device_images.round_window(images, masks, work.windows)
        if len(work.ready):
            images[work.ready], masks[work.ready] = work.ready_images, work.ready_masks
        return Batch(to_input(images), masks.astype(np.float32), work.names, work.targets)


def to_input(images: Array) -> Array:
    """Convert bytes to a network's input, as `r2unet.data.sample.to_input` does, (N, 3, H, W) -> the same."""
    return (images.astype(np.float32) - np.float32(CENTRE)) / np.float32(SCALE)


def affine_map(changes: Changes, H: int, W: int) -> np.ndarray:
    """Return flip, quarter turns and affine map as one matrix (2, 3), in pixels from the first pixel."""
    up_down, left_right = changes.flip
    symmetry = np.diag([-1.0 if left_right else 1.0, -1.0 if up_down else 1.0])
    symmetry = symmetry @ np.linalg.matrix_power(QUARTER_TURN, changes.turns)  # F R^k
    matrix = symmetry @ changes.affine.matrix
    centre = np.array([W - 1, H - 1]) / 2
    start = centre + symmetry @ (changes.affine.shift * (W, H)) - matrix @ centre
    return np.column_stack([matrix, start])


def colour_matrices(changes: Changes) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrices (3, 3) of a pixel and of the mean colour, G c S and G (1 - c) S."""
    gains, c, saturate = changes.colour
    of_pixel = (gains[:, None] * (c * saturate)).astype(np.float32)  # rounded as on the CPU
    return of_pixel.astype(np.float64), gains[:, None] * ((1 - c) * saturate)


def gaussian_boxes(sigma: float) -> tuple[int, int, int]:
    """Return the radius and the weights of the three box blurs by which Pillow approximates a Gaussian.

    A box of length L has the variance (L^2 - 1) / 12, so three have sigma^2 if L = sqrt(4 sigma^2 + 1). The
    whole part of the radius is floor((L - 1) / 2). The two pixels just beyond it have a smaller weight, whose
    ratio to the others makes the variance exact. Pillow uses float32 for all but the square root. Source:
    Gwosdek et al., Theoretical foundations of Gaussian convolution by extended box filtering, 2011.
    """
    if not sigma:
        return 0, ONE, 0
    variance = np.float32(np.float32(sigma) * np.float32(sigma)) / np.float32(3)
    length = np.float32(np.sqrt(12.0 * float(variance) + 1.0))
    whole = np.floor((length - np.float32(1)) / np.float32(2))
    part = (
        (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) * (whole + 1)))
    )
    inner = int(np.float32(ONE) / ((whole + part) * 2 + 1))
    radius = int(whole + part)
    return radius, inner, (ONE - (2 * radius + 1) * inner) // 2


def window_row(window: Window | None) -> np.ndarray:
    """Return a window as a row of `minidl.images.round_window`, (5,)."""
    half_axes, centre, darkness = window or NO_WINDOW
    return np.array([*centre, *half_axes, darkness])

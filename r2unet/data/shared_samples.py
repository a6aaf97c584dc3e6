"""Samples whose pixels several processes read, in memory that they share (`r2unet.shared_memory`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from r2unet.data.sample import Sample
from r2unet.shared_memory import SharedFile


class SharedPixels:
    """The bytes of a file from `offset` on, as a read-only array of a shape.

    Given to a process as it starts (`r2unet.processes`), it is the same memory there, not a copy.
    """

    def __init__(self, shared: SharedFile, shape: tuple[int, ...], offset: int = 0) -> None:
        self.shared, self.shape, self.offset = shared, shape, offset
        self.array = np.asarray(np.memmap(shared.file, np.uint8, "r", offset, shape))

    def __reduce__(self) -> tuple[Any, ...]:
        return SharedPixels, (self.shared, self.shape, self.offset)


def map_file(path: Path, shape: tuple[int, ...], offset: int) -> SharedPixels:
    """Return the bytes of a file from `offset` on as shared pixels of this shape."""
    return SharedPixels(SharedFile(open(path, "rb")), shape, offset)


def share_rows(rows: Iterable[np.ndarray], shape: tuple[int, ...]) -> SharedPixels:
    """Return the rows (N, ...) as shared pixels of this shape. Raises MemoryError if they need too much."""
    np.empty(shape, np.uint8)  # raises it; a file in memory would grow until this process is killed
    shared = SharedFile()
    for row in rows:
        shared.file.write(row.tobytes())
    shared.file.flush()
    return SharedPixels(shared, shape)


class SharedSamples:
    """A copy of some samples of one size whose pixels are shared."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        every = [samples[i] for i in range(len(samples))]
        rows = (np.dstack([sample.image, sample.mask]) for sample in every)  # each (H, W, RGB and mask)
        self._pixels = share_rows(rows, (len(every), *every[0].mask.shape, 4))
        self._labels = [sample[2:] for sample in every]  # name, diagnosis, lesion

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Sample:
        pixels = self._pixels.array[index]
        return Sample(pixels[..., :3], pixels[..., 3], *self._labels[index])

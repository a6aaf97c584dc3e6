"""Pixels that several processes read, in memory that they share.

A process that is started anew has none of the memory of this one, but it can map the same file: the operating
system keeps each page of a file in memory once, for all processes that map it. Such a file can be a cache of
decoded images. Without a cache it is a file without a name: on Linux in memory only (`memfd_create`),
elsewhere a temporary file. It is gone when the last process that has it open ends, even if all are killed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np


class SharedPixels:
    """The bytes of an open file from `offset` on, as a read-only array of a shape.

    Given to a process as it starts (`r2unet.processes`), it is the same memory there, not a copy.
    """

    def __init__(self, file: BinaryIO, shape: tuple[int, ...], offset: int = 0) -> None:
        self.file, self.shape, self.offset = file, shape, offset
        self.array = np.asarray(np.memmap(file, np.uint8, "r", offset, shape))

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_again, (DupFd(self.file.fileno()), self.shape, self.offset)


def map_file(path: Path, shape: tuple[int, ...], offset: int) -> SharedPixels:
    """Return the bytes of a file from `offset` on as shared pixels of this shape."""
    return SharedPixels(open(path, "rb"), shape, offset)


def share(rows: Iterable[np.ndarray], shape: tuple[int, ...]) -> SharedPixels:
    """Return the rows (N, ...) as shared pixels of this shape. Raises MemoryError if they need too much."""
    np.empty(shape, np.uint8)  # raises it; a file in memory would grow until this process is killed
    file = _nameless_file()
    for row in rows:
        file.write(row.tobytes())
    file.flush()
    return SharedPixels(file, shape)


def _nameless_file() -> BinaryIO:
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("pixels"), "w+b")
    return tempfile.TemporaryFile()


def _open_again(handle: Any, shape: tuple[int, ...], offset: int) -> SharedPixels:
    return SharedPixels(open(handle.detach(), "rb"), shape, offset)

"""Memory that several processes share.

A process that is started anew has none of the memory of this one, but it can map the same file: the operating
system keeps each page of a file in memory once, for all processes that map it. The file needs no name. On
Linux it is in memory only (`memfd_create`), elsewhere it is a temporary file. It is gone when the last of the
processes that have it open ends, even if all are killed.

The standard library's `multiprocessing.shared_memory` uses /dev/shm. That is small in many containers, and a
process that writes more is killed.
"""

from __future__ import annotations

import mmap
import os
import pickle
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Any, BinaryIO

import numpy as np


class SharedFile:
    """An open file, without a name unless one is given; given to a process as it starts, it is the same."""

    def __init__(self, file: BinaryIO | None = None) -> None:
        self.file = file or _nameless_file()

    def __del__(self) -> None:
        self.file.close()

    def __reduce__(self) -> tuple[Any, ...]:
        from multiprocessing.reduction import DupFd  # Windows lacks it

        return _open_again, (type(self), DupFd(self.file.fileno()), self.file.mode)


class SharedBuffer(SharedFile):
    """Arrays that one process writes and another one reads, before the first writes again."""

    def __init__(self, file: BinaryIO | None = None) -> None:
        super().__init__(file)
        self._bytes = np.empty(0, np.uint8)

    def write(self, arrays: Sequence[np.ndarray]) -> None:
        """Write arrays of bytes, each (size,), one after the other; the file grows if they need more."""
        sizes = [len(array) for array in arrays]
        if sum(sizes) > len(self._bytes):
            os.ftruncate(self.file.fileno(), sum(sizes))
        for place, array in zip(self._places(sizes), arrays, strict=True):
            place[:] = array

    def read(self, sizes: Sequence[int]) -> list[np.ndarray]:
        """Return copies of the arrays of these sizes that were written."""
        return [place.copy() for place in self._places(sizes)]

    def close(self) -> None:
        """Release the memory of this process."""
        self.file.close()
        self._bytes = np.empty(0, np.uint8)

    def _places(self, sizes: Sequence[int]) -> list[np.ndarray]:
        """Return where arrays of these sizes are, as views."""
        if sum(sizes) > len(self._bytes):
            self._bytes = np.frombuffer(mmap.mmap(self.file.fileno(), sum(sizes)), np.uint8)
        ends = list(accumulate(sizes))
        return [self._bytes[end - size : end] for size, end in zip(sizes, ends, strict=True)]


class Parcel:
    """Something picklable, given to a process as it starts, where it arrives as `content`.

    multiprocessing alone sends it through a pipe that holds 64 KB, and waits forever for a process that is
    killed before it has read the rest.
    """

    def __init__(self, content: Any) -> None:
        self.content = content

    def __reduce__(self) -> tuple[Any, ...]:
        from multiprocessing.reduction import ForkingPickler

        self._shared = SharedFile()  # open until the process has it
        self._shared.file.write(ForkingPickler.dumps(self.content))
        self._shared.file.flush()
        return _unpacked, (self._shared,)


def _unpacked(shared: SharedFile) -> Any:
    with shared.file as file:
        file.seek(0)
        return pickle.load(file)


def _nameless_file() -> BinaryIO:
    if hasattr(os, "memfd_create"):
        with suppress(OSError):  # some sandboxes forbid it
            return open(os.memfd_create("shared"), "w+b")
    return tempfile.TemporaryFile()


def _open_again(kind: type[SharedFile], handle: Any, mode: str) -> SharedFile:
    return kind(open(handle.detach(), mode))

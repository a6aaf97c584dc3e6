"""Opening input files: only regular files, so that opening one never waits and reading one always ends.

A named pipe waits until another program writes into it, and /dev/zero never ends. Every file that is given to
a program is opened here.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_input(path: str | Path) -> BinaryIO:
    """Open a regular file, or a symbolic link to one, for reading bytes.

    Raises OSError for a file that is missing or cannot be read, for a folder, and for a pipe, a socket or a
    device.
    """
    _check_regular(os.stat(path).st_mode, path)  # first, because opening some devices has an effect
    return open(path, "rb", opener=_open_without_waiting)


def size_of(file: BinaryIO) -> int:
    """Return the size of an open file in bytes."""
    return os.fstat(file.fileno()).st_size


def _open_without_waiting(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # Windows has neither it nor named pipes
    try:
        _check_regular(os.fstat(descriptor).st_mode, path)  # the path may have another file by now
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _check_regular(mode: int, path: str | Path) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "a pipe, a socket or a device, not a regular file", str(path))

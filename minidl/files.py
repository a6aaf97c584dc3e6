"""Atomic writing: whoever opens the file finds the old content or the new content, never a part of it.

The new content goes into a temporary file in the same folder, is flushed to the disk, and takes the file's
name by a rename, which the operating system does in one step. An interruption, by Ctrl-C or by a power
failure, therefore leaves the old file in place.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file for writing that replaces `path` when the block ends, and leaves it as it was on an error.

    Raises OSError where the folder does not exist or cannot be written.
    """
    path = Path(path)
    # In the same folder, because a rename is atomic only within one file system. A killed process leaves this
    # file behind; the next write to the same path overwrites it.
    temporary = path.with_name(f".{path.name}.part")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()

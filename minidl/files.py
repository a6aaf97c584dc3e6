"""Atomic writing: a reader of the file finds the old content or the new content, never a part of it.

The new content is written to a temporary file in the same folder and flushed to the disk. The temporary file
is then renamed to the file's name, which the operating system does in one step. An interruption, by Ctrl-C or
by a power failure, therefore leaves the old file in place.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_write(path: str | Path, ending: str = ".part") -> Iterator[BinaryIO]:
    """Open a file that replaces `path` at the end of the `with` block; after an error `path` is unchanged.

    The name of the temporary file has this ending: processes that may write the same file at the same time
    need different ones. Raises OSError if the folder does not exist or cannot be written.
    """
    path = Path(path)
    # In the same folder, because a rename is atomic only within one file system. If the process is killed,
    # this file remains, and the next write to the same path overwrites it.
    temporary = path.with_name(f".{path.name}{ending}")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()

"""Files that a command writes: atomically (`minidl.files`), into folders that are created as needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from minidl.files import atomic_write
from r2unet.errors import InputError


@contextmanager
def output_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file for writing, atomically, and create its folder.

    Raises InputError where it cannot be written (no space, no permission).
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            yield file
    except OSError as fault:
        raise InputError(
            f"{path}: cannot be written ({fault.strerror or fault}): choose another place"
        ) from None

"""Files that commands read and write: listing and copying folders, and atomic writing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from minidl.files import atomic_write
from r2unet.errors import InputError


@contextmanager
def output_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file for atomic writing, and create its folder.

    Raises InputError if it cannot be written (no space, no permission).
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            yield file
    except OSError as error:
        raise write_error(path, error) from None


def check_writable(name: str, out: Path) -> None:
    """Raise InputError, naming the option, if no files can be created in `out`. Call it before long work."""
    existing = out
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise InputError(f"{name} {out}: {existing} is a file; choose a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"{name} {out}: no permission to write into {existing}; choose another folder")


def visible_files(folder: Path, folders: bool = False) -> list[Path]:
    """List the files (or the folders) in a folder, sorted, without hidden ones. Raises InputError.

    Hidden files include the `._ISIC_...jpg` that macOS leaves next to the images.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror}); check the folder") from None
    return [entry for entry in entries if not entry.name.startswith(".") and os.path.isdir(entry) == folders]


def copy_folder(source: Path, destination: Path) -> None:
    """Copy a folder to a new path, atomically: an interrupted copy leaves no `destination`.

    Raises InputError if it cannot be copied (no space, no permission).
    """
    temporary = destination.with_name(f".{destination.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)  # left behind by a process that was killed while copying
    try:
        shutil.copytree(source, temporary)
        temporary.rename(destination)
    except OSError as error:
        raise write_error(destination, error) from None


def write_error(path: Path, error: OSError, place: str = "folder") -> InputError:
    """Return the error that says why a file could not be written, and to choose another `place` for it."""
    reason = error.strerror or error
    return InputError(f"{path}: cannot be written ({reason}); free space or choose another {place}")

"""The lock of a folder into which a command trains: two trainings would overwrite each other's checkpoints.

The lock is flock on the file `.lock` in the folder. The operating system removes it when the process ends,
even if it is killed. The file contains the process id and the host, for the error of a second process.

The folder is created for the lock. It is removed at the end if nothing else was saved in it, so that a run
that fails early leaves no trace. Only a killed process leaves the file, which does not hinder the next run.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from minidl.files import NOFOLLOW, lock
from r2unet.errors import InputError
from r2unet.files import write_error

LOCK = ".lock"


@contextmanager
def locked(name: str, folder: Path) -> Iterator[None]:
    """Lock a folder, given by the option `name`, for a `with` block, and create it.

    Raises InputError if another process has the lock, or if the folder cannot be written. Without locks, on
    Windows and on some network file systems, it always succeeds.
    """
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    descriptor = _open_locked(name, folder)
    try:
        with suppress(OSError):  # a full disk is reported when the first checkpoint is saved
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {platform.node()}".encode())
        yield
    finally:
        with suppress(OSError):
            if os.fstat(descriptor).st_nlink:  # 0 if the folder was deleted meanwhile
                (folder / LOCK).unlink()  # while it is locked: afterwards it may be another process's
        os.close(descriptor)
        with suppress(OSError):  # what is not empty stays
            for path in created:
                path.rmdir()


def _open_locked(name: str, folder: Path) -> int:
    """Create and lock the file; return its descriptor."""
    for _ in range(100):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | NOFOLLOW, 0o666)
        except FileNotFoundError:  # another process has just removed the folder
            continue
        except OSError as error:
            raise write_error(folder, error) from None
        if not lock(descriptor):
            with os.fdopen(descriptor) as file:
                owner = file.read(200) or "another process"
            raise InputError(
                f"{name} {folder}: {owner} trains into this folder; wait until it ends, or choose another"
            )
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # another process has just ended, and removed the file
    raise InputError(f"{name} {folder}: cannot be locked; choose another folder")

"""Atomic writing: a reader of the file finds the old content or the new content, never a part of it.

The new content is written to a temporary file in the same folder and flushed to the disk. The temporary file
is then renamed to the file's name, which the operating system does in one step, and the folder is flushed,
too. An interruption, by Ctrl-C or by a power failure, therefore leaves the old file or the new one.

**Several processes.** Every temporary file has a random name and is created with O_EXCL, so two processes
never write to the same one. If both write the same file, the last to rename wins, and its file is whole.

**Temporary files.** `.minidl-RANDOM.part` is locked with flock while it is written. The lock ends with the
process, even if it is killed. The first write to a folder removes the temporary files there that are no
longer locked.

**What is replaced.** Only a regular file: replacing a device such as /dev/null would break other programs.
A symbolic link is kept, and the file that it points to is replaced.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows: without locks, temporary files of killed processes remain
    fcntl = None

PREFIX, SUFFIX = ".minidl-", ".part"  # hidden, and without the suffix of any image or checkpoint
NOFOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}

_cleaned: set[Path] = set()  # folders from which this process has removed old temporary files


class NotReplaceableError(OSError):
    """Something that is not a regular file has the name of a file to write."""


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file that replaces `path` at the end of the `with` block; after an error `path` is unchanged.

    Raises OSError if the folder does not exist or cannot be written, and NotReplaceableError for a device, a
    pipe, a socket or a folder.
    """
    path = Path(os.path.realpath(path))  # the target of a symbolic link
    check_replaceable(path)
    _remove_temporaries(path.parent)
    # In the same folder, because a rename is atomic only within one file system.
    temporary, descriptor = _create_temporary(path.parent)
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if fcntl:  # while the file is locked, because no other process then removes it
                os.replace(temporary, path)
        if not fcntl:  # Windows renames only closed files
            os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink()


def check_replaceable(path: str | Path) -> None:
    """Raise NotReplaceableError if `path` exists and is not a regular file; a symbolic link is followed."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "a device")
        raise NotReplaceableError(errno.EEXIST, f"it is {kind}, not a regular file", str(path))


def sync_folder(folder: Path) -> None:
    """Flush a folder to the disk: only then does a renamed file keep its new name after a power failure.

    Some network file systems cannot flush a folder, and neither can Windows; nothing is done there.
    """
    if os.name != "posix":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # the folder can be written but not listed
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def lock(descriptor: int) -> bool:
    """Lock an open file until it is closed or the process ends; return False if another process has the lock.

    Some network file systems have no locks; the file then counts as locked by this process.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _create_temporary(folder: Path) -> tuple[Path, int]:
    """Create and lock a temporary file; return its path and its descriptor."""
    while True:
        path = folder / f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NOFOLLOW, 0o666)
        # Another process that removes old temporary files may have come between the two lines.
        if lock(descriptor) and os.fstat(descriptor).st_nlink:
            return path, descriptor
        os.close(descriptor)


def _remove_temporaries(folder: Path) -> None:
    """Remove the temporary files that killed processes have left in a folder, once for each folder."""
    if fcntl is None or folder in _cleaned:
        return
    _cleaned.add(folder)
    for path in folder.glob(f"{PREFIX}*{SUFFIX}"):
        with suppress(OSError):
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not `lock`: without locks keep it
                path.unlink()
            finally:
                os.close(descriptor)

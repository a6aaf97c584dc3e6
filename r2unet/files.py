"""Files that commands read and write: texts, tables and JSON of bounded size, folders, and atomic writing."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

from minidl.files import NotReplaceableError, atomic_write, check_replaceable, sync_folder
from minidl.inputs import open_input
from r2unet.errors import InputError

# The limit of tables and JSON files in bytes. The table of HAM10000's 10,015 images has 0.6 MB.
MAX_TEXT = 16 * 1024**2
# The limits of what is in them. A short row or value of two bytes can take several hundred bytes in memory.
MAX_ROWS, MAX_VALUES = 50_000, 500_000


class NameTooLongError(InputError):
    """The name of an output file is longer than the file system allows."""


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


def read_text(path: str | Path, encoding: str = "utf-8") -> str:
    """Return the content of a text file, with its line ends as they are.

    Raises OSError if it is not a readable regular file, ValueError if it is too large or otherwise encoded.
    """
    with open_input(path) as file:
        content = file.read(MAX_TEXT + 1)
    if len(content) > MAX_TEXT:
        raise ValueError(f"more than {MAX_TEXT // 1024**2} MB, too large for a table or a report")
    return content.decode(encoding)


def read_json(path: str | Path) -> Any:
    """Return the content of a JSON file. Raises what `read_text` raises, and ValueError for other content."""
    text = read_text(path)
    if sum(map(text.count, ",[{")) > MAX_VALUES:  # at least the number of lists, dictionaries and values
        raise ValueError(f"more than {MAX_VALUES:,} values")
    return json.loads(text)


def read_rows(path: str | Path, delimiters: str = ",", strict: bool = False) -> list[tuple[int, list[str]]]:
    """Return the rows of a CSV file in UTF-8: the number of the last line of each, and its cells.

    The first of the `delimiters` that is in the first line separates the cells, otherwise a comma. `strict`
    refuses quotation marks in the wrong place. Raises what `read_text` raises, and ValueError for too many
    rows or cells, or what is no CSV file.
    """
    file = io.StringIO(read_text(path, "utf-8-sig"), newline="")
    first = file.readline()
    file.seek(0)
    delimiter = next((mark for mark in delimiters if mark in first), ",")
    reader = csv.reader(file, delimiter=delimiter, strict=strict)
    rows: list[tuple[int, list[str]]] = []
    cells = 0
    try:
        for row in reader:
            cells += len(row)
            if len(rows) == MAX_ROWS or cells > MAX_VALUES:
                raise ValueError(f"more than {MAX_ROWS:,} rows or {MAX_VALUES:,} cells")
            rows.append((reader.line_num, row))
    except csv.Error as error:
        first = rows[-1][0] + 1 if rows else 1  # of the malformed row
        raise ValueError(f"line {first}: {error}") from None
    return rows


def write_rows(path: str | Path, rows: Iterable[Iterable[Any]]) -> None:
    """Write a CSV file that `read_rows` reads, whatever the cells contain. Raises what `write_text` raises.

    A cell with a line feed or a carriage return must be quoted; file names may contain both. Python's writer
    quotes only the characters of its own line end, which therefore has both here. In the file, lines end with
    a line feed alone.
    """
    lines: list[str] = []
    csv.writer(SimpleNamespace(write=lines.append), lineterminator="\r\n").writerows(rows)
    write_text(path, "".join(line.removesuffix("\r\n") + "\n" for line in lines))


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8. Raises InputError if it cannot be written.

    A file name may contain bytes that are not UTF-8. They are written as \\udcXX, as Python represents them.
    """
    with output_file(path) as file:
        file.write(text.encode(errors="backslashreplace"))


def check_writable(name: str, out: Path) -> None:
    """Raise InputError, naming the option, if no files can be created in `out`. Call it before long work."""
    existing = out
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise InputError(f"{name} {out}: {existing} is a file; choose a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"{name} {out}: no permission to write into {existing}; choose another folder")


def check_outputs(name: str, outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise InputError, naming the option, if an output would replace an input, or is not a regular file.

    Call it before long work. Links to the same file are recognised, and so are other spellings of its path.
    """
    read = {_identity(path): path for path in inputs}
    for path in outputs:
        try:
            check_replaceable(path)
        except NotReplaceableError as error:
            raise InputError(f"{name} {path}: {error.strerror}; choose another name") from None
        except OSError:
            continue  # reported when it is written
        if (identity := _identity(path)) and (source := read.get(identity)):
            raise InputError(
                f"{name} {path}: would replace {source}, which this command reads; choose another name"
            )


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what two paths to the same file share, None for a missing file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


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

    Hidden files are not copied. Raises InputError if it cannot be copied (no space, no permission).
    """
    temporary = destination.with_name(f".{destination.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)  # left behind by a process that was killed while copying
    try:
        shutil.copytree(source, temporary, ignore=shutil.ignore_patterns(".*"), copy_function=_copy)
        temporary.rename(destination)
        sync_folder(destination.parent)
    except OSError as error:
        raise write_error(destination, error) from None


def _copy(source: str, destination: str) -> None:
    """Copy a regular file and flush it to the disk."""
    with open_input(source) as old, atomic_write(destination) as new:
        shutil.copyfileobj(old, new)


def write_error(path: Path, error: OSError, place: str = "folder") -> InputError:
    """Return the error that says why a file could not be written, and to choose another `place` for it."""
    reason = error.strerror or error
    if error.errno == errno.ENAMETOOLONG:
        return NameTooLongError(f"{path}: cannot be written ({reason}); give the file a shorter name")
    if isinstance(error, NotReplaceableError):
        return InputError(f"{path}: cannot be written ({reason}); choose another name")
    return InputError(f"{path}: cannot be written ({reason}); free space or choose another {place}")

"""Reads the challenge's tables of numbers: a row for each image, a column for each class."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from r2unet.errors import InputError
from r2unet.files import read_rows

IMAGE_COLUMNS = ("image", "image_id")  # of 2018 and of 2017


class Table(NamedTuple):
    """A table of N images and K classes."""

    path: Path
    images: list[str]  # N names, without .jpg
    lines: list[int]  # the N line numbers in the file, for messages
    columns: list[str]  # K names of classes
    values: np.ndarray  # (N, K) float64 in [0, 1]
    extra: dict[str, np.ndarray]  # the optional columns that the table has, (N,) each, at least 0


def read_table(path: Path, optional: Sequence[str] = (), columns: Sequence[str] | None = None) -> Table:
    """Read a table with the given columns, in any order; without `columns`, those of its header.

    `optional` columns may be missing and are returned as `extra`. Raises InputError, naming file and row, for
    an unreadable file, missing, unknown or duplicate columns or images, and values that are not in [0, 1].
    """
    header, rows, lines = _read_rows(path)
    names = list(columns) if columns else [n for n in header if n not in (*IMAGE_COLUMNS, *optional)]
    _check_header(path, header, names, optional)
    images: dict[str, int] = {}  # name -> line
    for line, row in zip(lines, rows, strict=True):
        if len(row) != len(header):
            raise InputError(
                f"{path}: line {line} ({row[0]}): has {len(row)} values, but the header has {len(header)}; "
                "correct the row"
            )
        image = re.sub(r"\.jpg$", "", row[header.index(_image_column(header))].strip(), flags=re.IGNORECASE)
        if image in images:
            raise InputError(
                f"{path}: line {line}: {image} is also on line {images[image]}; remove one of them"
            )
        images[image] = line

    def column(name: str, highest: float = 1.0) -> list[float]:
        at = header.index(name)
        return [
            _number(row[at], highest, f"{path}: line {line} ({image}): {name}")
            for row, (image, line) in zip(rows, images.items(), strict=True)
        ]

    values = np.array([column(name) for name in names]).T  # (K, N) -> (N, K)
    extra = {name: np.array(column(name, np.inf)) for name in optional if name in header}
    return Table(path, list(images), lines, names, values, extra)


def _read_rows(path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    """Return the header, the other rows, and their line numbers."""
    try:
        numbered = [(number, row) for number, row in read_rows(path) if row]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except ValueError as error:
        raise InputError(f"{path}: is not a CSV file in UTF-8 ({error}); save it as one") from None
    if len(numbered) < 2:
        raise InputError(f"{path}: needs a header and a row for each image; add them")
    header = [name.strip() for name in numbered[0][1]]
    return header, [row for _, row in numbered[1:]], [line for line, _ in numbered[1:]]


def _image_column(header: list[str]) -> str:
    return next((name for name in IMAGE_COLUMNS if name in header), "")


def _check_header(path: Path, header: list[str], names: list[str], optional: Sequence[str]) -> None:
    image = _image_column(header)
    if not image:
        raise InputError(f"{path}: has no column image; name the columns in the first line")
    if not names:
        raise InputError(f"{path}: has no column of a class; add one for each, such as MEL")
    if duplicate := next((name for name in header if header.count(name) > 1), None):
        raise InputError(f"{path}: has two columns {duplicate}; remove one of them")
    if missing := [name for name in names if name not in header]:
        raise InputError(f"{path}: has no column {', '.join(missing)}; add it")
    if unknown := [name for name in header if name not in (image, *names, *optional)]:
        raise InputError(f"{path}: has an unknown column {', '.join(unknown)}; remove it")


def _number(text: str, highest: float, place: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= highest or np.isinf(value):
        limits = "in [0, 1]" if highest == 1 else "of at least 0"
        raise InputError(
            f"{place} is {repr(text.strip()) if text.strip() else 'empty'}; write a number {limits}"
        )
    return value

"""Reads the tables of text that belong to a data set: labels, lesions and patients.

Challenges publish them with commas, Harvard Dataverse with tabs, and some spreadsheets save semicolons. The
first line names the columns, one of them `image` or `image_id`; only the tables of ISIC 2016 have no such
line:

    image,malignant              <- assumed, if the first line names no column of images
    ISIC_0000001,benign

Upper and lower case make no difference in the names of columns and images. An error names file and line.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from r2unet.data.images import SUFFIXES
from r2unet.errors import InputError
from r2unet.files import read_rows

ISIC_NUMBER = re.compile(r"isic_(\d{7})(?!\d)", re.IGNORECASE)
IMAGE_COLUMNS = ("image", "image_id")
COLUMNS_2016 = ["image", "malignant"]


class Row(NamedTuple):
    """One line of a table."""

    where: str  # "FILE: line N"
    cells: dict[str, str]  # by the name of the column, in lower case

    @property
    def image(self) -> str:
        """The name of the image, as the table writes it."""
        return next(self.cells[name] for name in IMAGE_COLUMNS if name in self.cells)


def isic_number(text: str) -> str | None:
    """Return the seven digits of a name such as "ISIC_0000001_segmentation", or None if it has none."""
    match = ISIC_NUMBER.match(text)
    return match[1] if match else None


def image_key(name: str) -> str:
    """Return what matches an image to its row: the ISIC number or, without one, the name in lower case."""
    stem, suffix = os.path.splitext(name)
    return isic_number(name) or (stem if suffix.lower() in SUFFIXES else name).casefold()


def find_table(root: Path, *names: str) -> Path | None:
    """Return the first of these tables in `root`, or in a folder of the same stem, as archives unpack it."""
    paths = (path for name in names for path in (root / name, root / Path(name).stem / name))
    return next(filter(os.path.isfile, paths), None)


def read_table(path: Path) -> dict[str, Row]:
    """Read a table: the key of an image -> its row.

    Raises InputError if the file cannot be read, if a row has too many or too few cells, or if an image has
    two rows.
    """
    lines = _read_lines(path)
    header = [cell.casefold() for cell in lines[0][1]] if lines else COLUMNS_2016
    if set(IMAGE_COLUMNS) & set(header):
        if len(set(header)) < len(header):
            raise InputError(f"{lines[0][0]}: names a column twice; remove one of the two")
        lines = lines[1:]
    elif len(header) == len(COLUMNS_2016):
        header = COLUMNS_2016
    else:
        raise InputError(f"{lines[0][0]}: names no column 'image' or 'image_id'; name the column of images")
    rows: dict[str, Row] = {}
    for where, cells in lines:
        if len(cells) != len(header):
            raise InputError(
                f"{where}: has {len(cells)} cells, but the columns are {', '.join(header)}; correct the row"
            )
        row = Row(where, dict(zip(header, cells, strict=True)))
        key = image_key(row.image)
        if not key:
            raise InputError(f"{where}: names no image; add its name, or remove the row")
        if key in rows:
            raise InputError(f"{where}: {row.image} is listed a second time; remove one of its rows")
        rows[key] = row
    return rows


def _read_lines(path: Path) -> list[tuple[str, list[str]]]:
    """Return each line that is not empty: its place "FILE: line N", and its cells."""
    try:
        numbered = read_rows(path, "\t;", strict=True)
        rows = [(f"{path}: line {number}", [cell.strip() for cell in row]) for number, row in numbered]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except ValueError as error:  # too large, not UTF-8, or a quotation mark without its pair
        raise InputError(f"{path}: is not a table of text ({error}); save it as CSV in UTF-8") from None
    return [(where, cells) for where, cells in rows if any(cells)]

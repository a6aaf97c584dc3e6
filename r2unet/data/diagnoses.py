"""Reads the tables of diagnoses of the ISIC challenges.

    2016  no header, one value              ISIC_0000001,malignant      (1.0 in the test table)
    2017  two columns, of which one is 1    image_id,melanoma,seborrheic_keratosis
          or none: a nevus                  ISIC_0000001,0.0,0.0
    2018  seven columns, of which one is 1  image,MEL,NV,BCC,AKIEC,BKL,DF,VASC
                                            ISIC_0000001,1.0,0.0,0.0,0.0,0.0,0.0,0.0

A row belongs to the image with the same seven digits. Any other content is refused, because
nobody can see in an image that its diagnosis is wrong.
"""

import csv
import os
import re
from pathlib import Path

from r2unet.errors import InputError

ISIC_NUMBER = re.compile(r"isic_(\d{7})(?!\d)", re.IGNORECASE)

COLUMNS_2017 = {"melanoma": "melanoma", "seborrheic_keratosis": "seborrheic_keratosis"}
COLUMNS_2018 = {
    "MEL": "melanoma",
    "NV": "nevus",
    "BCC": "basal_cell_carcinoma",
    "AKIEC": "actinic_keratosis",
    "BKL": "benign_keratosis",
    "DF": "dermatofibroma",
    "VASC": "vascular_lesion",
}
VALUES_2016 = {"benign": "benign", "malignant": "malignant", "0.0": "benign", "1.0": "malignant"}


def isic_number(text: str) -> str | None:
    """Return the seven digits of a name such as "ISIC_0000001_segmentation", or None if it has none."""
    match = ISIC_NUMBER.match(text)
    return match[1] if match else None


def read_diagnoses(path: Path) -> dict[str, str]:
    """Read a challenge's table: ISIC number -> diagnosis, empty if there is no table.

    The table is the file `path` or, as the archive of 2018 unpacks it, a file of this name in a folder of the
    same stem. Raises InputError for an unreadable table, with the line.
    """
    if not os.path.exists(path):
        path = path.parent / path.stem / path.name
    if not os.path.exists(path):
        return {}
    diagnoses: dict[str, str] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            table = csv.reader(file)
            columns: list[str] = []
            for row in filter(None, table):
                if row[0] in ("image", "image_id"):
                    columns = row[1:]
                    continue
                number, diagnosis = _read_row(row, columns)
                if number in diagnoses:
                    raise ValueError(f"{row[0]} is listed a second time")
                diagnoses[number] = diagnosis
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path}: line {table.line_num}: {error}; download the table again") from None
    return diagnoses


def _read_row(row: list[str], columns: list[str]) -> tuple[str, str]:
    """Return the ISIC number and the diagnosis of a row. Raises ValueError if it is malformed."""
    number = isic_number(row[0])
    if number is None:
        raise ValueError(f"{row[0]!r} is not an ISIC number")
    if not columns:
        if len(row) != 2 or row[1] not in VALUES_2016:
            raise ValueError("expected 'ISIC_...,benign' or 'ISIC_...,malignant'")
        return number, VALUES_2016[row[1]]
    names = COLUMNS_2017 if columns == list(COLUMNS_2017) else COLUMNS_2018
    if columns != list(names) or len(row) != 1 + len(columns):
        raise ValueError("the columns are not those of ISIC 2017 or 2018")
    values = [float(value) for value in row[1:]]
    chosen = [names[column] for column, value in zip(columns, values, strict=True) if value == 1]
    if set(values) - {0.0, 1.0} or len(chosen) > 1 or (not chosen and names is COLUMNS_2018):
        raise ValueError("expected a single 1, and 0 elsewhere")
    return number, chosen[0] if chosen else "nevus"

"""The age and the sex of the patients, where the tables beside the images say them.

    HAM10000    HAM10000_metadata.csv                      image_id, age, sex
    ISIC 2017   ISIC-2017_Training_Data_metadata.csv       image_id, age_approximate, sex

Scores by age and by sex show for whom a network is worse. Training does not use them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from r2unet.data import ham10000, isic
from r2unet.data.folders import find_pairs, paths
from r2unet.data.tables import Row, find_table, image_key, read_table
from r2unet.errors import InputError

UNKNOWN = ("", "unknown", "nan", "na", "n/a", "none")
SEXES = ("female", "male")


class Patient(NamedTuple):
    """What is known of a patient."""

    age: float | None = None  # in years, as a rule rounded to 5
    sex: str | None = None  # "female" or "male"


def read_patients(data: str | Path, split: str = "training") -> dict[str, Patient]:
    """Return the patient of each image of a split, by the name of the image.

    `data` is one data set or several, as for `folders.find_pairs`. Raises InputError as that does, and for an
    age or a sex that cannot be read.
    """
    rows: dict[str, Row] = {}
    for table in (table for root in paths(data) for table in _tables(root)):
        rows |= read_table(table)
    patients = {}
    for pair in find_pairs(data, split, masks_needed=False):
        row = rows.get(image_key(pair.image.name))
        patients[pair.name] = Patient(_age(row), _sex(row)) if row else Patient()
    return patients


def _tables(root: Path) -> Iterator[Path]:
    """Yield the tables of a data set that may contain age and sex."""
    if not ham10000.is_root(root):
        yield from isic.patient_tables(root)
    elif table := find_table(root, *ham10000.METADATA):
        yield table


def _age(row: Row) -> float | None:
    """Return the age in years."""
    text = row.cells.get("age", row.cells.get("age_approximate", ""))
    if text.casefold() in UNKNOWN:
        return None
    try:
        age = float(text)
    except ValueError:
        age = math.nan
    if not 0 <= age <= 120:
        raise InputError(f"{row.where}: {text!r} is not an age in years; correct it, or leave it empty")
    return age


def _sex(row: Row) -> str | None:
    """Return the sex."""
    sex = row.cells.get("sex", "").casefold()
    if sex in UNKNOWN:
        return None
    if sex not in SEXES:
        raise InputError(f"{row.where}: {sex!r} is not a sex; use {' or '.join(SEXES)}, or leave it empty")
    return sex

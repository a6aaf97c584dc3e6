"""Labels: the diagnosis of each image, from the tables of the ISIC challenges and of HAM10000.

    ISIC 2016   benign or malignant,        ISIC_0000001,malignant
                in the test table 0 or 1    ISIC_0000002,0.0
    ISIC 2017   two columns, of which one   image_id,melanoma,seborrheic_keratosis
                is 1, or none: a nevus      ISIC_0000001,0.0,0.0
    ISIC 2018   seven columns, of which     image,MEL,NV,BCC,AKIEC,BKL,DF,VASC
                exactly one is 1            ISIC_0000001,1.0,0.0,0.0,0.0,0.0,0.0,0.0
    HAM10000    the diagnosis as a word,    lesion_id,image_id,dx,dx_type,age,sex,localization
                and which lesion it is      HAM_0000118,ISIC_0027419,bkl,histo,80.0,male,scalp

The columns may have any order. Any other content is refused with its line, because nobody can see in an image
that its diagnosis is wrong.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from r2unet.data.classes import PARENTS
from r2unet.data.tables import IMAGE_COLUMNS, Row, read_table
from r2unet.errors import InputError

# The abbreviations of the seven types: values of HAM10000's `dx`, and the columns of ISIC 2018.
TYPES = {
    "mel": "melanoma",
    "nv": "nevus",
    "bcc": "basal_cell_carcinoma",
    "akiec": "actinic_keratosis",
    "bkl": "benign_keratosis",
    "df": "dermatofibroma",
    "vasc": "vascular_lesion",
}
# The one-hot tables: column -> diagnosis, and the diagnosis where no column is 1.
TYPES_2017 = {"melanoma": "melanoma", "seborrheic_keratosis": "seborrheic_keratosis"}
ONE_HOT = ((TYPES_2017, "nevus"), (TYPES, None))
FORMATS = f"'malignant'; {' and '.join(map(repr, TYPES_2017))}; {', '.join(map(repr, TYPES))}; or 'dx'"


class Label(NamedTuple):
    """What a table says about an image."""

    diagnosis: str
    lesion: str  # the lesion's identity; "" where the table does not have it
    where: str  # "FILE: line N", for messages


def read_labels(path: Path) -> dict[str, Label]:
    """Read a table of diagnoses: the key of an image (`tables.image_key`) -> its label.

    Raises InputError for a malformed table, with the line.
    """
    return {
        key: Label(_diagnosis(row), row.cells.get("lesion_id", ""), row.where)
        for key, row in read_table(path).items()
    }


def _diagnosis(row: Row) -> str:
    """Return the diagnosis of a row, in whichever of the formats the table is."""
    columns = [name for name in row.cells if name not in IMAGE_COLUMNS]
    if "dx" in columns:
        if others := [name for name in columns if name in ("malignant", *TYPES_2017, *TYPES)]:
            raise InputError(f"{row.where}: both 'dx' and {others[0]!r} say the diagnosis; remove one column")
        return _word(row, row.cells["dx"])
    if columns == ["malignant"]:
        value = row.cells["malignant"].casefold()
        if value in ("benign", "malignant"):
            return value
        expected = "benign, malignant, 0 or 1; correct it, or name the columns in line 1"
        return ("benign", "malignant")[_bit(row, "malignant", expected)]
    for types, otherwise in ONE_HOT:
        if types.keys() & set(columns):
            _check_columns(row, columns, list(types))
            return _one_hot(row, types, otherwise)
    raise InputError(
        f"{row.where}: no known columns of a diagnosis in {', '.join(row.cells)}; they are {FORMATS}"
    )


def _word(row: Row, word: str) -> str:
    """Return the diagnosis that a word stands for, an abbreviation or the full name."""
    word = word.casefold()
    if word not in TYPES and word not in PARENTS:
        raise InputError(f"{row.where}: {word!r} is an unknown type; use one of {', '.join(TYPES)}")
    return TYPES.get(word, word)


def _check_columns(row: Row, columns: list[str], expected: list[str]) -> None:
    """Raise InputError unless the columns are those expected, in any order."""
    if unknown := [name for name in columns if name not in expected]:
        raise InputError(
            f"{row.where}: unknown column {unknown[0]!r}; remove it, the columns are {', '.join(expected)}"
        )
    if missing := [name for name in expected if name not in columns]:
        raise InputError(
            f"{row.where}: column {missing[0]!r} is missing; add it, the columns are {', '.join(expected)}"
        )


def _one_hot(row: Row, types: dict[str, str], otherwise: str | None) -> str:
    """Return the diagnosis whose column is 1, or `otherwise` if none is."""
    chosen = [column for column in types if _bit(row, column)]
    if len(chosen) > 1:
        raise InputError(
            f"{row.where}: {' and '.join(chosen)} are both 1, but a lesion has one diagnosis; set that to 1 "
            "and the others to 0"
        )
    if not chosen and otherwise is None:
        raise InputError(f"{row.where}: no column is 1; set that of the diagnosis to 1")
    return types[chosen[0]] if chosen else otherwise


def _bit(row: Row, column: str, expected: str = "0 or 1; correct it") -> int:
    """Return the number in a column, 0 or 1. The error ends with what is `expected`."""
    try:
        return (0.0, 1.0).index(float(row.cells[column]))
    except ValueError:  # no number, or another number
        raise InputError(
            f"{row.where}: {row.cells[column]!r} in column {column!r} is not {expected}"
        ) from None

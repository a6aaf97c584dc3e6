"""Studies: questions that are answered by training several variants and comparing them.

A study is data: a name, a question, and variants. A variant is a label with the settings that it changes. All
other settings are shared: the data, the number of epochs, the seeds. So two rows differ only by their changes
and by chance; several seeds show the effect of chance.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from r2unet.errors import InputError
from r2unet.training.settings import Settings, as_text, flag

SEEDS = (0, 1)  # the default seeds of every row
# The settings that decide which images are used, and which classes they have. No variant may change them.
SHARED = ("data", "labels", "images", "seed", "classes")


RESULTS = (".md", ".csv", ".json", ".png")  # the ends of the names of the files beside the rows' folders
LONGEST = 255  # characters in the name of a folder, in most file systems


class Variant(NamedTuple):
    """A row's label and the settings that it changes."""

    label: str
    changes: dict[str, Any]


class Study(NamedTuple):
    """A question and the variants that answer it."""

    name: str
    question: str
    variants: tuple[Variant, ...]
    modes: bool = False  # whether to score in train mode too, with each batch's own statistics
    factors: tuple[str, ...] = ()  # settings that are changed one at a time; each has a panel in factors.png


class Row(NamedTuple):
    """A variant with all of its settings except the seed."""

    label: str
    folder: str
    settings: Settings


def _one_at_a_time(**factors: Sequence[Any]) -> tuple[Variant, ...]:
    """Return the unchanged variant, and a variant for every value of every factor."""
    variants = [
        Variant(f"{name.replace('_', ' ')} {as_text(value)}", {name: value})
        for name, values in factors.items()
        for value in values
    ]
    return (Variant("as given", {}), *variants)


FACTORS = {
    "lr": (3e-4, 1e-3, 3e-3),
    "widths": ((4, 8, 16, 32), (8, 16, 32, 64), (16, 32, 64, 128)),
    "steps": (1, 2, 3),
    "loss": ("bce", "dice", "bce+dice"),
    "augment": (0.0, 0.5, 1.0),
}

_STUDIES = (
    Study(
        "variants",
        "What do recurrence, residual connections and attention contribute? The first five are the paper's.",
        (
            Variant("U-Net", {"model": "unet"}),
            Variant("ResU-Net", {"model": "resunet"}),
            Variant("RU-Net, t=2", {"model": "recurrent-unet", "steps": 2}),
            Variant("R2U-Net, t=2", {"model": "r2unet", "steps": 2}),
            Variant("R2U-Net, t=3", {"model": "r2unet", "steps": 3}),
            Variant("Attention U-Net", {"model": "attention-unet"}),
            Variant("R2 Attention U-Net, t=2", {"model": "r2-attention-unet", "steps": 2}),
        ),
    ),
    Study(
        "skips",
        "What does it cost to add skip connections instead of concatenating them, or to leave them out?",
        tuple(Variant(skips, {"skips": skips}) for skips in ("concat", "add", "none")),
    ),
    Study(
        "norm",
        "Do running statistics that all recurrent steps share make evaluation worse than training? Users of "
        "other implementations report black validation masks.",
        tuple(
            Variant(f"{label}, {norm}", {"model": model, "norm": norm})
            for label, model in (("R2U-Net", "r2unet"), ("RU-Net", "recurrent-unet"))
            for norm in ("per-step", "shared", "group")
        ),
        modes=True,
    ),
    Study(
        "tuning",
        "Which settings matter? Each is changed alone; the others are as given.",
        _one_at_a_time(**FACTORS),
        factors=tuple(FACTORS),
    ),
    Study(
        "diagnosis",
        "Does the outline help the diagnosis, and does the diagnosis harm the outline? In the first row the "
        "diagnosis is pooled over the lesion and over the image.",
        (
            Variant("outline and diagnosis", {"task": "both", "pooling": "both"}),
            Variant("pooled over the lesion", {"task": "both", "pooling": "lesion"}),
            Variant("pooled over the image", {"task": "both", "pooling": "image"}),
            Variant("diagnosis alone", {"task": "diagnosis", "pooling": "image"}),
            Variant("outline alone", {"task": "outline", "pooling": "both"}),
        ),
    ),
    Study("own", "Which of these variants is better?", ()),
)
STUDIES = {study.name: study for study in _STUDIES}


def make_rows(variants: Iterable[Variant], shared: Settings) -> list[Row]:
    """Apply each variant's changes to the shared settings. A row that repeats an earlier one is left out.

    Raises InputError, naming the row, for invalid settings and for two rows with the same name.
    """
    rows: dict[Settings, Row] = {}
    for label, changes in variants:
        for name in SHARED:
            if name in changes:
                raise InputError(f"{label}: {flag(name)} must be the same in all rows; omit it in this row")
        try:
            settings = dataclasses.replace(shared, **changes).check()
        except InputError as error:
            raise InputError(f"{label}: {error}") from None
        folder = _folder(label)
        if settings not in rows and folder in {row.folder for row in rows.values()}:
            raise InputError(f"{label}: another row has the same name; choose a different label")
        rows.setdefault(settings, Row(label, folder, settings))
    return list(rows.values())


def _folder(label: str) -> str:
    """Return the name of a row's folder. Raises InputError for a label that gives none."""
    if len(label.splitlines()) > 1:
        raise InputError(f"{label!r}: has a line break; write this label in one line")
    folder = re.sub(r"[^a-z0-9.]+", "-", label.lower()).strip("-.")
    if not folder:
        raise InputError(f"{label!r}: is not a valid folder name; use letters or digits in this label")
    if len(folder) > LONGEST:
        raise InputError(
            f"{label[:20]}...: is too long for the name of a folder; use at most {LONGEST} characters in "
            "this label"
        )
    if folder.endswith(RESULTS):
        raise InputError(
            f"{label}: its folder could have the name of a file with results; choose a label that does not "
            f"end with {Path(folder).suffix}"
        )
    return folder

"""Studies: questions that are answered by training several variants side by side.

A study is data: a name, what it asks, and its rows, each a label with the settings that it changes. Whatever
a row does not change it shares with all others: the data, the budget of epochs, the seeds. So what differs
between two rows is what their changes say, and chance, of which several seeds show the size.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from r2unet.errors import InputError
from r2unet.training.settings import Settings, as_text, flag

SEEDS = (0, 1)  # with which every row is trained, unless others are given
SHARED = ("data", "images", "seed")  # settings that decide which images there are, and no row may change


class Variant(NamedTuple):
    """What a row is called, and the settings that it changes."""

    label: str
    changes: dict[str, Any]


class Study(NamedTuple):
    """A question and the variants that answer it."""

    name: str
    question: str
    variants: tuple[Variant, ...]
    modes: bool = False  # also scored with each batch's own statistics, as in training
    factors: tuple[str, ...] = ()  # settings that are changed one at a time; each gets a panel of a picture


class Row(NamedTuple):
    """A variant as it is trained; only the seed is still to be chosen."""

    label: str
    folder: str
    settings: Settings


def _one_at_a_time(**factors: Sequence[Any]) -> tuple[Variant, ...]:
    """Return the unchanged variant, and one for every value of every factor."""
    rows = [
        Variant(f"{name.replace('_', ' ')} {as_text(value)}", {name: value})
        for name, values in factors.items()
        for value in values
    ]
    return (Variant("as given", {}), *rows)


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
        "What do recurrence, the way around it and attention bring? The first five are those of the paper.",
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
        "What is lost when skips are added instead of concatenated, or left out?",
        tuple(Variant(skips, {"skips": skips}) for skips in ("concat", "add", "none")),
    ),
    Study(
        "norm",
        "Do running statistics that mix the recurrence's steps make evaluation worse than training? Users of "
        "other versions see black validation masks.",
        tuple(
            Variant(f"{label}, {norm}", {"model": model, "norm": norm})
            for label, model in (("R2U-Net", "r2unet"), ("RU-Net", "recurrent-unet"))
            for norm in ("per-step", "shared", "group")
        ),
        modes=True,
    ),
    Study(
        "tuning",
        "Which settings matter? Each is changed alone, around those given.",
        _one_at_a_time(**FACTORS),
        factors=tuple(FACTORS),
    ),
    Study("own", "Which of these is better?", ()),
)
STUDIES = {study.name: study for study in _STUDIES}


def make_rows(variants: Iterable[Variant], shared: Settings) -> list[Row]:
    """Lay each variant's changes over the shared settings; a row that repeats an earlier one is left out.

    Raises InputError for settings that cannot be, naming the row, and for two rows of one name.
    """
    rows: dict[Settings, Row] = {}
    for label, changes in variants:
        for name in SHARED:
            if name in changes:
                raise InputError(
                    f"{label}: {flag(name)} must be the same in all rows; leave it out of this one"
                )
        try:
            settings = dataclasses.replace(shared, **changes).check()
        except InputError as fault:
            raise InputError(f"{label}: {fault}") from None
        folder = re.sub(r"[^a-z0-9.]+", "-", label.lower()).strip("-.")
        if not folder:
            raise InputError(f"{label!r}: cannot name a folder; call this row by letters or digits")
        if settings not in rows and folder in {row.folder for row in rows.values()}:
            raise InputError(f"{label}: another row has this name already; call one of them otherwise")
        rows.setdefault(settings, Row(label, folder, settings))
    return list(rows.values())

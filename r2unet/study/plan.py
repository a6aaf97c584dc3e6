"""A study's folder, and the plan in it that decides what is trained.

    DIR/study.json      the name, the rows and the seeds of the study, and the settings that all rows share
    DIR/ROW/seed-K/     an ordinary training's folder (`r2unet.training.run_folder`) for every row and seed

The rows are written down as they were when the study began, so a later version of this program, whose studies
may have other rows, goes on with the same ones.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from r2unet import __version__
from r2unet.data.isic import find_pairs
from r2unet.errors import InputError
from r2unet.files import output_file
from r2unet.study.studies import SEEDS, STUDIES, Row, Study, Variant, make_rows
from r2unet.training.settings import Settings, as_text, flag

PLAN = "study.json"


class Plan(NamedTuple):
    """A study with all that decides its trainings."""

    study: Study
    shared: Settings  # what the rows have in common
    seeds: tuple[int, ...]

    @property
    def rows(self) -> list[Row]:
        """The rows as they are trained."""
        return make_rows(self.study.variants, self.shared)

    def folder(self, out: Path, row: Row, seed: int) -> Path:
        """Where one training of the study is."""
        return out / row.folder / f"seed-{seed}"


def begin_study(
    out: Path,
    name: str,
    given: dict[str, Any],
    seeds: Sequence[int] | None = None,
    variants: Sequence[Variant] = (),
    only_report: bool = False,
) -> Plan:
    """Return the plan of a new study, or of the one in `out`, which more seeds may join; write it down.

    What is not given is the default, or what the study began with. Raises InputError where `out` holds
    another study, or where something given would change the one that goes on; its data may have moved.
    """
    study = STUDIES[name]
    study = study._replace(variants=(*study.variants, *variants))
    if not (out / PLAN).exists():
        if only_report:
            raise InputError(f"--only-report: {out} holds no study; leave it out to begin one, or mend --out")
        plan = Plan(study, Settings(**given), tuple(seeds or SEEDS))
        _check_new(plan, given)
    else:
        before = read_plan(out)
        _check_same(out, before, study, given, seeds, bool(variants))
        shared = dataclasses.replace(before.shared, data=given.get("data", before.shared.data))
        plan = Plan(before.study, shared, tuple(dict.fromkeys((*before.seeds, *(seeds or ())))))
    if plan.shared.data is not None and not only_report:
        find_pairs(plan.shared.data, "validation")  # before anything is written: is it there?
    if not only_report:
        _write_plan(out, plan)
    return plan


def _check_new(plan: Plan, given: dict[str, Any]) -> None:
    """Raise InputError for a study that has no rows, or that a setting would have no effect on."""
    name, _, variants, *_ = plan.study
    if not variants:
        raise InputError(f"{name}: has no rows yet; give each with --variant 'LABEL: SETTING=VALUE ...'")
    for setting in given:
        if all(setting in variant.changes for variant in variants):
            raise InputError(f"{flag(setting)}: is what {name} compares, every row has its own; leave it out")
    if len({row.folder for row in plan.rows}) < 2:
        raise InputError(f"{name}: needs two rows to compare; give another with --variant")


def _check_same(
    out: Path,
    before: Plan,
    study: Study,
    given: dict[str, Any],
    seeds: Sequence[int] | None,
    variants_given: bool,
) -> None:
    """Raise InputError unless what is given is what the study in `out` began with."""
    if study.name != before.study.name:
        raise InputError(
            f"--out {out}: holds the study {before.study.name}, not {study.name}; choose another folder"
        )
    if variants_given and study.variants != before.study.variants:
        raise InputError(
            f"--variant: the study in {out} began with other rows; leave it out to go on, or begin another "
            "with a new --out"
        )
    for name, value in given.items():
        if name != "data" and value != getattr(before.shared, name):
            raise InputError(
                f"{flag(name)} {as_text(value)}: the study in {out} began with "
                f"{as_text(getattr(before.shared, name))}; leave the option out to go on, or begin another "
                "with a new --out"
            )
    if seeds and (missing := [seed for seed in before.seeds if seed not in seeds]):
        raise InputError(
            f"--seeds {as_text(tuple(seeds))}: the study in {out} has seed {missing[0]} too; seeds can be "
            "added, not taken away"
        )


def read_plan(out: Path, option: str = "--out") -> Plan:
    """Read a study's plan. Raises InputError where it cannot be used, naming the option that gave it."""
    path = out / PLAN
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        variants = tuple(Variant(label, _with_tuples(changes)) for label, changes in plan["variants"])
        study = STUDIES[plan["study"]]._replace(variants=variants)
        read = Plan(study, Settings(**_with_tuples(plan["settings"])), tuple(plan["seeds"]))
        if not read.rows or not read.seeds:
            raise ValueError("it compares nothing")
    except (InputError, OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
        raise InputError(f"{path}: is no plan of a study ({fault}); choose another {option}") from None
    return read


def _with_tuples(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings as they were before JSON, which knows no tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}


def _write_plan(out: Path, plan: Plan) -> None:
    content = {
        "program": "r2unet",
        "version": __version__,
        "study": plan.study.name,
        "seeds": plan.seeds,
        "settings": dataclasses.asdict(plan.shared),
        "variants": plan.study.variants,
    }
    with output_file(out / PLAN) as file:
        file.write(json.dumps(content, indent=2).encode())

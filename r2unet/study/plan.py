"""A study's folder, and the plan in it that decides what is trained.

    DIR/study.json      the name, the rows and the seeds of the study, and the settings that all rows share
    DIR/ROW/seed-K/     an ordinary run folder (`r2unet.training.run_folder`) for every row and seed

The plan stores the rows of the study at its start. A later version of this program may define other rows, and
still resumes the study with the stored ones.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from r2unet import __version__
from r2unet.errors import InputError
from r2unet.files import read_json, write_text
from r2unet.study.studies import SEEDS, STUDIES, Row, Study, Variant, make_rows
from r2unet.training.checkpoints import CONTENT_ERRORS, short_reason
from r2unet.training.run_files import read_report
from r2unet.training.run_folder import PATHS, find_files
from r2unet.training.settings import LIMITS, Settings, as_text, flag

PLAN = "study.json"
FINISHED = "report.json"  # exists once a run is finished


class Task(NamedTuple):
    """One training run of a study: a row with a seed, and its folder."""

    row: Row
    seed: int
    folder: Path

    @property
    def title(self) -> str:
        """The name of this run in messages."""
        return f"{self.row.label}, seed {self.seed}"

    @property
    def settings(self) -> Settings:
        """All settings of this run."""
        return dataclasses.replace(self.row.settings, seed=self.seed)

    @property
    def finished(self) -> bool:
        """Whether the run is finished."""
        return (self.folder / FINISHED).exists()


class Plan(NamedTuple):
    """A study with everything that determines its training runs."""

    study: Study
    shared: Settings  # the settings of every row, before its changes
    seeds: tuple[int, ...]

    @property
    def rows(self) -> list[Row]:
        """The rows in the order of the table."""
        return make_rows(self.study.variants, self.shared)

    def tasks(self, out: Path) -> list[Task]:
        """Return all runs in the order of execution: all rows with one seed, then with the next."""
        rows = self.rows
        return [Task(row, seed, out / row.folder / f"seed-{seed}") for seed in self.seeds for row in rows]


def open_study(
    out: Path,
    name: str,
    given: dict[str, Any],
    seeds: Sequence[int] | None = None,
    variants: Sequence[Variant] = (),
    only_report: bool = False,
) -> Plan:
    """Return the plan of a new study, or of the study in `out`, and write it unless `only_report`.

    Settings that are not in `given` have their default, or the value that the study started with. An existing
    study accepts more seeds, and another path to its data. Raises InputError if `out` contains another study,
    or if anything else that is given would change the existing study.
    """
    study = STUDIES[name]
    study = study._replace(variants=(*study.variants, *variants))
    if not (out / PLAN).exists():
        if only_report:
            raise InputError(
                f"--only-report: {out} contains no study; omit the option to start one, or correct --out"
            )
        plan = Plan(study, Settings(**given), tuple(seeds or SEEDS))
        _check_new(plan, given)
    else:
        existing = read_plan(out)
        _check_unchanged(out, existing, study, given, seeds, bool(variants))
        moved = {name: given[name] for name in PATHS if name in given}
        shared = dataclasses.replace(existing.shared, **moved)
        plan = Plan(existing.study, shared, tuple(dict.fromkeys((*existing.seeds, *(seeds or ())))))
        if shared.data != existing.shared.data:
            _check_same_images(out, plan)
    if not only_report:
        _check_paths(plan)  # fails before anything is written
        _write_plan(out, plan)
    return plan


def _check_paths(plan: Plan) -> None:
    """Raise InputError if the paths do not fit the rows, or if the validation images are missing."""
    plan.rows  # noqa: B018 - checks the settings of every row
    if plan.shared.data is not None:
        find_files(plan.shared, "validation")


def _check_new(plan: Plan, given: dict[str, Any]) -> None:
    """Raise InputError for a study without rows, or for a given setting that every row overrides."""
    name, variants = plan.study.name, plan.study.variants
    if not variants:
        raise InputError(f"{name}: has no rows yet; add each with --variant 'LABEL: SETTING=VALUE ...'")
    for setting in given:
        if all(setting in variant.changes for variant in variants):
            raise InputError(f"{flag(setting)}: every row of {name} sets this itself; omit the option")
    if any(row.settings.freeze_encoder for row in plan.rows):
        raise InputError("--freeze-encoder: a study trains new encoders, which have learned nothing; omit it")
    if len({row.folder for row in plan.rows}) < 2:
        raise InputError(f"{name}: needs two rows to compare; add another with --variant")


def _check_unchanged(
    out: Path,
    existing: Plan,
    study: Study,
    given: dict[str, Any],
    seeds: Sequence[int] | None,
    variants_given: bool,
) -> None:
    """Raise InputError if anything that is given differs from the existing study in `out`."""
    if study.name != existing.study.name:
        raise InputError(
            f"--out {out}: contains the study {existing.study.name}, not {study.name}; choose another folder"
        )
    if variants_given and study.variants != existing.study.variants:
        raise InputError(
            f"--variant: the study in {out} started with other rows; omit the option to resume it, or "
            "start another study with a new --out"
        )
    if "data" in given and existing.shared.data is None:
        raise InputError(
            f"--data {given['data']}: the images are not those of the study in {out}, which started with "
            "generated lesions; omit the option to resume it, or start another study with a new --out"
        )
    for name, value in given.items():
        if name not in PATHS and value != getattr(existing.shared, name):
            raise InputError(
                f"{flag(name)} {as_text(value)}: the study in {out} started with "
                f"{as_text(getattr(existing.shared, name))}; omit the option to resume it, or start "
                "another study with a new --out"
            )
    if seeds and (missing := [seed for seed in existing.seeds if seed not in seeds]):
        raise InputError(
            f"--seeds {as_text(tuple(seeds))}: the study in {out} also has seed {missing[0]}; seeds can be "
            "added, not removed"
        )


def _check_same_images(out: Path, plan: Plan) -> None:
    """Raise InputError if the validation images are not those of the finished runs: only paths may change.

    One run is enough, because the report compares the images of all runs.
    """
    outlined = (task for task in plan.tasks(out) if task.finished and task.settings.task != "diagnosis")
    if (task := next(outlined, None)) is None:
        return
    try:
        scored = read_report(task.folder / FINISHED)["model"]["jaccard_by_image"].keys()
    except (OSError, *CONTENT_ERRORS):
        return  # the report of the study names this file
    if scored != {pair.name for pair in find_files(task.settings, "validation")}:
        raise InputError(
            f"--data {plan.shared.data}: the images are not those of the study in {out}; give the same "
            "images, or start another study with a new --out"
        )


def read_plan(out: Path, option: str = "--out") -> Plan:
    """Read the plan in a study's folder.

    Raises InputError, naming the option that gave the folder, if there is no valid plan.
    """
    path = out / PLAN
    try:
        content = read_json(path)
        unknown = _unknown_settings(content)
        plan = None if unknown else _plan_of(content)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{option} {out}: contains no study, there is no {PLAN}; choose another") from None
    except (OSError, *CONTENT_ERRORS) as error:
        raise InputError(
            f"{path}: is not the plan of a study ({short_reason(error)}); choose another {option}"
        ) from None
    if plan is None:
        raise InputError(
            f"{path}: was written by another version of r2unet, {str(content.get('version'))[:20]}, with the "
            f"setting {unknown[0][:50]}, which {__version__} does not know; use that version, or choose "
            f"another {option}"
        )
    return plan


def _plan_of(content: dict[str, Any]) -> Plan:
    """Return the plan in a study.json. Raises one of CONTENT_ERRORS for an invalid one."""
    variants = tuple(Variant(label, _with_tuples(changes)) for label, changes in content["variants"])
    study = STUDIES[content["study"]]._replace(variants=variants)
    plan = Plan(study, Settings(**_with_tuples(content["settings"])), tuple(content["seeds"]))
    if not plan.rows or not plan.seeds:
        raise ValueError("it has no rows or no seeds")
    lowest, highest = LIMITS["seed"]
    if not all(type(seed) is int and lowest <= seed <= highest for seed in plan.seeds):
        raise ValueError("a seed is not a natural number")
    return plan


def _unknown_settings(content: dict[str, Any]) -> list[str]:
    """Return the settings in a study.json that this version of the program does not know."""
    known = {field.name for field in dataclasses.fields(Settings)}
    stored = [content["settings"], *(changes for _, changes in content["variants"])]
    return [name for settings in stored for name, _ in settings.items() if name not in known]


def _with_tuples(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings read from JSON with their lists turned back into tuples."""
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
    write_text(out / PLAN, json.dumps(content, indent=2))

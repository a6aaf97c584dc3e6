"""Reads finished training runs of any settings, and compares them: the content of `r2unet report`.

A study (`r2unet.study.plan`) plans its runs, so it knows that they fit together. These runs may come from
anywhere: they may have other data, other seeds and another task. Two scores can be compared only if they are
of the same images, so the runs are grouped (`same_images`, `same_diagnoses`), and differences are computed
within a group. The names alone do not tell: generated lesions of two seeds have the same names. Two runs
have the same images if also the baselines that see only the image and its mask score the same on them.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from r2unet.diagnosis.bootstrap import with_intervals
from r2unet.errors import InputError
from r2unet.study.diagnosis_findings import mean_auc, read_diagnoses
from r2unet.study.findings import Difference, Run, compare_runs, count_parameters, read_run
from r2unet.study.plan import FINISHED, PLAN
from r2unet.training.check import check_history, check_report
from r2unet.training.checkpoints import checkpoint_errors, read_settings, read_state
from r2unet.training.run_folder import BEST, HISTORY, LAST
from r2unet.training.settings import Settings

UNTRAINED = ("all background", "Otsu's threshold")  # baselines that depend on the images alone


class ComparedRun(NamedTuple):
    """A finished run, its settings, and the name by which the report calls it."""

    label: str
    number: int  # its position, which is also its colour
    run: Run
    settings: Settings
    parameters: int


def read_runs(folders: Sequence[Path]) -> list[ComparedRun]:
    """Read the files of these run folders, at least one.

    Raises InputError for a folder that is given twice, that has no finished run, or whose files are invalid.
    """
    seen: dict[Path, Path] = {}
    for folder in folders:
        other = seen.setdefault(folder.resolve(), folder)
        if other is not folder:
            raise InputError(f"{folder}: is the same run as {other}; give each run once")
    names = zip(labels(folders), folders, strict=True)
    return [_read(label, number, folder) for number, (label, folder) in enumerate(names)]


def labels(folders: Sequence[Path]) -> list[str]:
    """Return the name of each folder or, where two have the same name, its whole path."""
    names = [folder.resolve().name for folder in folders]
    return [
        name if names.count(name) == 1 else str(folder) for name, folder in zip(names, folders, strict=True)
    ]


def _read(label: str, number: int, folder: Path) -> ComparedRun:
    resume = f"`r2unet train --resume --out {shlex.quote(str(folder))}`"
    if (folder / PLAN).exists():
        runs = sorted(report.parent for report in folder.glob(f"*/seed-*/{FINISHED}"))
        example = f", such as {shlex.quote(str(runs[0]))}" if runs else ""
        raise InputError(f"{folder}: is a study; give folders of its runs, ROW/seed-K in it{example}")
    if not (folder / FINISHED).exists():
        if not ((folder / LAST).exists() or (folder / BEST).exists()):
            raise InputError(
                f"{folder}: contains no training run; give a folder that `r2unet train --out` wrote"
            )
        raise InputError(f"{folder}: its training is not finished; finish it with {resume}")
    for finding in (check_history(folder, resume), check_report(folder, resume)):
        if finding.error:
            raise InputError(finding.error)
    run = read_run(folder, 0, again=f"{HISTORY}, and run {resume}, which writes them again")
    state = read_state(folder / BEST)
    with checkpoint_errors(folder / BEST):
        settings = read_settings(state)
    parts = {"model": settings.task != "diagnosis", "diagnosis": settings.task != "outline"}
    if any((part in run.scores) != expected for part, expected in parts.items()):
        raise InputError(
            f"{folder}: {FINISHED} and {BEST} are of different runs, because the network's task is "
            f"{settings.task}; delete {FINISHED} and run {resume}"
        )
    if run.diagnosis:
        read_diagnoses(run)  # raises InputError if they are invalid
    return ComparedRun(label, number, run, settings, count_parameters(settings))


def same_images(runs: Sequence[ComparedRun]) -> list[list[ComparedRun]]:
    """Group the runs with outlines by the images that their outlines were scored on."""

    def key(each: ComparedRun) -> Hashable:
        scores = each.run.scores
        trivial = [tuple(scores[name]["mean"].items()) for name in UNTRAINED if name in scores]
        return frozenset(each.run.jaccards), tuple(trivial)

    return _grouped([each for each in runs if "model" in each.run.scores], key)


def same_diagnoses(runs: Sequence[ComparedRun]) -> list[list[ComparedRun]]:
    """Group the runs with diagnoses by the images, lesions and classes that were scored."""

    def key(each: ComparedRun) -> Hashable:
        classes = each.run.diagnosis["types"]["model"]["classes"]
        return tuple(read_diagnoses(each.run).images), tuple(classes)

    return _grouped([each for each in runs if each.run.diagnosis], key)


def _grouped(runs: list[ComparedRun], key: Callable[[ComparedRun], Hashable]) -> list[list[ComparedRun]]:
    groups: dict[Hashable, list[ComparedRun]] = {}
    for each in runs:
        groups.setdefault(key(each), []).append(each)
    return list(groups.values())


def jaccard_difference(run: ComparedRun, first: ComparedRun) -> Difference | None:
    """Return the mean Jaccard of a run minus that of the first of its group, paired over images."""
    return None if run is first else compare_runs([run.run], [first.run], same_images=True)


def auc_difference(run: ComparedRun, first: ComparedRun) -> Difference | None:
    """Return the mean AUC of a run minus that of the first of its group, paired over lesions.

    None for the first run, and where an AUC is undefined.
    """
    if run is first:
        return None
    own, other = read_diagnoses(run.run), read_diagnoses(first.run)

    def statistics(weights: np.ndarray) -> dict[Hashable, np.ndarray]:
        return {"difference": mean_auc(own, weights) - mean_auc(other, weights)}

    number = with_intervals(statistics, own.lesions, np.random.default_rng(0))["difference"]
    return None if number["interval"] is None else Difference(number["value"], number["interval"], {})

"""The findings of a study: the scores of its training runs, and how certain it is that two rows differ.

This file is about the outlines, `diagnosis_findings.py` about the diagnoses. A row may have either or both.

Scores differ for two other reasons than the variant. The two are independent of each other.

* **Seeds.** With other initial weights and another order of the images, the same variant scores differently.
  Two or three seeds are too few for an interval, so the mean, the lowest and the highest are reported.
* **Images.** On other images all scores would be different. But two rows are scored on the same images, and
  an image that is hard for one row is often hard for the other. So the rows are compared image by image. Let
  J(row, s, i) be the Jaccard of image i with seed s. Over the seeds that both rows have,

      d(i) = mean over s of J(row, s, i) - J(first row, s, i)

  The mean of d is the difference between the rows. A bootstrap over the images
  (`metrics.bootstrap_interval`) estimates how much it would vary with other images. Generated lesions differ
  from seed to seed, so each of them counts as an image of its own. Rows without outlines are left out: the
  first row is the first that has some.

Trust a difference only if its interval excludes zero *and* all seeds have the same sign.

All runs together show whether scores depend more on the network or on the image. If the Jaccards of the
images in any two runs have a correlation close to 1, the same images are hard for all (`agreement`).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minidl.init import shapes_only
from r2unet.errors import InputError
from r2unet.scores.metrics import USABLE_JACCARD, bootstrap_interval
from r2unet.study.plan import FINISHED, Plan
from r2unet.study.studies import Row
from r2unet.study.train_study import read_seconds
from r2unet.training.checkpoints import CONTENT_ERRORS, short_reason
from r2unet.training.run_files import read_history, read_modes, read_report
from r2unet.training.settings import Settings, new_model
from r2unet.training.state import quality

COLUMNS = {
    "model": "validation_jaccard",
    "diagnosis": "validation_auc",
}  # of history.csv, for parts of the report


class Run(NamedTuple):
    """One finished training run."""

    seed: int
    folder: Path
    seconds: float | None  # per epoch, the median over epochs that were not interrupted
    history: list[dict[str, float]]
    scores: dict[str, Any]  # report.json: `evaluate.report`, and as "diagnosis" that of `Diagnoses`
    modes: dict[str, float] | None  # as `compare_modes` returns them

    @property
    def best_epoch(self) -> int:
        """The epoch with the best `quality`, whose weights are scored."""
        return 1 + int(np.argmax([quality(row) for row in self.history]))

    @property
    def jaccards(self) -> dict[str, float]:
        """The Jaccard of every image, by name. Raises KeyError for a run without outlines."""
        return self.scores["model"]["jaccard_by_image"]

    @property
    def diagnosis(self) -> dict[str, Any] | None:
        """The scores of the diagnoses; None for a run without them."""
        return self.scores.get("diagnosis")

    @property
    def gain_in_last_fifth(self) -> float | None:
        """How much the best `quality` rose in the last fifth of the epochs; None for fewer than five."""
        values = [quality(row) for row in self.history]
        fifth = math.ceil(0.8 * len(values))  # where the last fifth starts
        return max(values) - max(values[:fifth]) if fifth < len(values) else None


class Spread(NamedTuple):
    """The mean over seeds, and the values of the lowest and the highest seed."""

    mean: float
    lowest: float
    highest: float


class Difference(NamedTuple):
    """The score of a row minus that of the first row: the mean Jaccard, or the mean AUC of diagnoses."""

    mean: float
    interval: list[float]  # 95 %, over images or over lesions
    by_seed: dict[int, float]


class Finding(NamedTuple):
    """A row and its finished runs, at least one."""

    row: Row
    parameters: int
    runs: list[Run]
    interval: list[float] | None  # of the mean Jaccard, 95 %, over images; None without outlines
    difference: Difference | None  # None for the first row, without outlines, a common seed or size

    @property
    def outlines(self) -> bool:
        """Whether these runs predict outlines."""
        return predicts_outlines(self.row)

    def score(self, name: str) -> Spread:
        """The spread over seeds of a score of the outlines, which is a mean over images."""
        return spread([run.scores["model"]["mean"][name] for run in self.runs])

    @property
    def seconds(self) -> float | None:
        """Seconds per epoch, the median over the seeds."""
        known = [run.seconds for run in self.runs if run.seconds is not None]
        return float(np.median(known)) if known else None


class Agreement(NamedTuple):
    """How similarly the runs of a study score on the same images."""

    correlation: float  # of the images' Jaccards in two runs, the mean over all pairs of runs
    always_low: int  # how many images have a Jaccard below 0.65 in every run
    distance_share: float  # their share in the sum of the Jaccard distances 1 - J of all images


def predicts_outlines(row: Row) -> bool:
    """Return whether the networks of a row predict outlines."""
    return row.settings.task != "diagnosis"


def spread(values: list[float]) -> Spread:
    """Summarise the values of the seeds, at least one."""
    return Spread(float(np.mean(values)), min(values), max(values))


def collect(out: Path, plan: Plan, scores: str = FINISHED, modes: str | None = None) -> list[Finding]:
    """Read the finished runs of a study; rows without a finished run are left out.

    `scores` and `modes` are the names of the files to read in the folder of each run with outlines. Raises
    InputError if no run is finished, or if a file is invalid.
    """
    finished = [task for task in plan.tasks(out) if task.finished]
    found: list[tuple[Row, list[Run]]] = []
    for row in plan.rows:
        files = (scores, modes) if predicts_outlines(row) else (FINISHED, None)
        if runs := [read_run(t.folder, t.seed, *files) for t in finished if t.row == row]:
            found.append((row, runs))
    if not found:
        raise InputError(
            f"{out}: no training run of this study is finished; run the command without --only-report"
        )
    same_images = plan.shared.data is not None
    _check_same_images([run for row, runs in found if predicts_outlines(row) for run in runs], same_images)
    first: tuple[Row, list[Run]] | None = None  # with outlines
    findings = []
    for row, runs in found:
        interval = difference = None
        if predicts_outlines(row):
            interval = bootstrap_interval(_by_image([run.jaccards for run in runs], same_images), _rng())
            # A mask of fewer pixels has other Jaccards, unless all are scored at the images' original size.
            if first and (row.settings.size == first[0].settings.size or scores != FINISHED):
                difference = compare_runs(runs, first[1], same_images)
            first = first or (row, runs)
        findings.append(Finding(row, count_parameters(row.settings), runs, interval, difference))
    return findings


def read_run(
    folder: Path,
    seed: int,
    scores: str = FINISHED,
    modes: str | None = None,
    again: str = "run the command again",
) -> Run:
    """Read the files of a finished run. Raises InputError for an invalid file.

    `again` says how a deleted file is written again.
    """
    path = folder / scores
    try:
        report = read_report(path)
        compared = read_modes(path := folder / modes) if modes else None
        history = read_history(path := folder / "history.csv")
        seconds = list(read_seconds(folder).values())
        run = Run(seed, folder, float(np.median(seconds)) if seconds else None, history, report, compared)
        # What is missing fails here, where the file is known, and not later.
        columns = [column for part, column in COLUMNS.items() if part in report]
        [row[column] for row in history for column in columns], run.best_epoch  # noqa: B018
        path = folder / scores
        if "model" in report or "diagnosis" not in report:
            run.jaccards  # noqa: B018
    except (OSError, *CONTENT_ERRORS) as error:
        raise InputError(
            f"{path}: is invalid ({short_reason(error)}); delete {folder / FINISHED} and {again}"
        ) from None
    return run


def _check_same_images(runs: list[Run], same_images: bool) -> None:
    """Raise InputError for a run whose images or baselines differ from those that it is compared with."""
    first: dict[int, Run] = {}
    for run in runs:
        other = first.setdefault(0 if same_images else run.seed, run)
        baselines = [run.scores.keys() - {"diagnosis"}, other.scores.keys() - {"diagnosis"}]
        if run.jaccards.keys() != other.jaccards.keys() or baselines[0] != baselines[1]:
            raise InputError(
                f"{run.folder}: was scored on other images than {other.folder}; delete "
                f"{run.folder / FINISHED} and run the command again"
            )


def compare_runs(runs: list[Run], first: list[Run], same_images: bool) -> Difference | None:
    """Compare a row with the first row image by image, over their common seeds; None if there are none."""
    others = {run.seed: run.jaccards for run in first}
    by_seed = {
        run.seed: {name: jaccard - others[run.seed][name] for name, jaccard in run.jaccards.items()}
        for run in runs
        if run.seed in others
    }
    if not by_seed:
        return None
    values = _by_image(list(by_seed.values()), same_images)
    return Difference(
        float(values.mean()),
        bootstrap_interval(values, _rng()),
        {seed: float(np.mean(list(each.values()))) for seed, each in by_seed.items()},
    )


def agreement(findings: list[Finding], same_images: bool) -> Agreement | None:
    """Compare the runs with outlines image by image; None if no two have the same images.

    Without `same_images`, only runs with the same seed have.
    """
    by_images: dict[int | None, list[dict[str, float]]] = {}
    for finding in findings:
        for run in finding.runs if finding.outlines else []:
            by_images.setdefault(None if same_images else run.seed, []).append(run.jaccards)
    groups = [
        np.array([[run[name] for name in sorted(run)] for run in runs])  # (runs, images)
        for runs in by_images.values()
        if len(runs) > 1
    ]
    if not groups or not all(values.std(axis=1).all() for values in groups):
        return None  # a run with equal Jaccards has no correlation
    pairs = [np.corrcoef(values)[np.triu_indices(len(values), 1)] for values in groups]
    low = np.concatenate([(values < USABLE_JACCARD).all(axis=0) for values in groups])  # (images,)
    distance = np.concatenate([1 - values.mean(axis=0) for values in groups])  # (images,)
    share = float(distance[low].sum() / distance.sum())
    return Agreement(float(np.concatenate(pairs).mean()), int(low.sum()), share)


def baselines(findings: list[Finding]) -> dict[str, float]:
    """Return the mean Jaccard of each trivial baseline, over images and seeds: seeds may differ in images.

    Without outlines there are no such baselines.
    """
    scores = next(([run.scores for run in finding.runs] for finding in findings if finding.outlines), [{}])
    names = [name for name in scores[0] if name not in ("model", "diagnosis")]
    return {name: float(np.mean([of_seed[name]["mean"]["jaccard"] for of_seed in scores])) for name in names}


def unfinished(plan: Plan, findings: list[Finding]) -> list[str]:
    """Return the names of the runs that are not among the findings."""
    finished = {(finding.row.label, run.seed) for finding in findings for run in finding.runs}
    planned = [(row.label, seed) for row in plan.rows for seed in plan.seeds]
    return [f"{label} with seed {seed}" for label, seed in planned if (label, seed) not in finished]


def _by_image(by_seed: list[dict[str, float]], same_images: bool) -> np.ndarray:
    """Return one value per image, (images,): the mean over seeds if these have the same images."""
    values = np.array([[each[name] for name in sorted(each)] for each in by_seed])  # (seeds, images)
    return values.mean(axis=0) if same_images else values.ravel()


def count_parameters(settings: Settings) -> int:
    """Count the parameters of the network that the settings describe, without memory for them."""
    with shapes_only():
        return sum(p.data.size for p in new_model(settings, np.random.default_rng(0)).parameters())


def _rng() -> np.random.Generator:
    """Return the same generator for every interval, so that tables are reproducible."""
    return np.random.default_rng(0)

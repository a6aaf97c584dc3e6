"""What came out of a study: the scores of its trainings, and how sure one can be that two rows differ.

Two things other than the variants make scores differ, and neither says anything about the other.

* **Seeds.** Trained again from other weights, in another order, the same variant scores otherwise. Two or
  three seeds are too few for an interval, so what is told is their mean, the lowest and the highest.
* **Images.** On other photographs all scores would be others. But two rows are judged on the same ones, and
  much of what makes an image hard is hard for both. So images are compared in pairs: with J the Jaccard of
  image i, averaged over the seeds s that both rows have,

      d(i) = mean over s of J(row, s, i) - J(first row, s, i),

  the mean of d is how far the two are apart, and a bootstrap over the images (`metrics.bootstrap_interval`)
  how far it would change with other images. Generated lesions are others for every seed; there each is
  an image of its own.

A difference is only to be believed where the interval leaves zero out *and* all seeds have its sign.

Whether networks decide or images do, all trainings tell together: if the Jaccards of the images in one of
them correlate with those in any other by nearly 1, then what is hard is hard for all (`agreement`).
"""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from r2unet.errors import InputError
from r2unet.scores.metrics import USABLE_JACCARD, bootstrap_interval
from r2unet.study.compare import FINISHED, read_seconds
from r2unet.study.plan import Plan
from r2unet.study.studies import Row
from r2unet.training.run_folder import new_model


class Run(NamedTuple):
    """One finished training."""

    seed: int
    folder: Path
    seconds: float | None  # an epoch, the median over those that were not interrupted
    history: list[dict[str, float]]
    scores: dict[str, dict[str, Any]]  # as `evaluate.report` returns them
    modes: dict[str, float] | None  # as `evaluate.compare_modes` does

    @property
    def best_epoch(self) -> int:
        """The epoch whose weights are the run's result."""
        return 1 + int(np.argmax([row["validation_jaccard"] for row in self.history]))

    @property
    def jaccards(self) -> dict[str, float]:
        """Every image's Jaccard."""
        return self.scores["model"]["jaccard_by_image"]

    @property
    def late_gain(self) -> float | None:
        """How much the best Jaccard rose in the last fifth of the epochs; None for fewer than five."""
        values = [row["validation_jaccard"] for row in self.history]
        before = math.ceil(0.8 * len(values))
        return max(values) - max(values[:before]) if before < len(values) else None


class Spread(NamedTuple):
    """A mean over seeds with the lowest and the highest of them."""

    mean: float
    lowest: float
    highest: float


class Difference(NamedTuple):
    """How much more Jaccard a row has than the first."""

    mean: float
    interval: list[float]  # 95 %, over images
    by_seed: dict[int, float]


class Finding(NamedTuple):
    """A row with its finished trainings, at least one."""

    row: Row
    parameters: int
    runs: list[Run]
    interval: list[float]  # 95 % of the mean Jaccard, over images
    difference: Difference | None  # None for the first row, and where the two share no seed

    def score(self, name: str) -> Spread:
        """A score, as the mean over images, over the seeds."""
        return spread([run.scores["model"]["mean"][name] for run in self.runs])

    @property
    def seconds(self) -> float | None:
        """Seconds an epoch, the median over the seeds."""
        known = [run.seconds for run in self.runs if run.seconds is not None]
        return float(np.median(known)) if known else None


class Agreement(NamedTuple):
    """How alike the trainings of a study do on the same images."""

    correlation: float  # of the images' Jaccards in two trainings, the mean over all pairs
    low_everywhere: int  # images below a Jaccard of 0.65, which is of no use, in every training
    share: float  # of all that is missing to a Jaccard of 1, how much these images miss


def spread(values: list[float]) -> Spread:
    """Summarise the values of some seeds, at least one."""
    return Spread(float(np.mean(values)), min(values), max(values))


def collect(out: Path, plan: Plan, scores: str = FINISHED, modes: str | None = None) -> list[Finding]:
    """Read the finished trainings of a study, from the named files in their folders; rows without any are
    left out.

    Raises InputError where there is none, or where a file cannot be used.
    """
    found: list[tuple[Row, list[Run]]] = []
    for row in plan.rows:
        folders = {seed: plan.folder(out, row, seed) for seed in plan.seeds}
        finished = {seed: folder for seed, folder in folders.items() if (folder / FINISHED).exists()}
        if finished:
            found.append((row, [read_run(folder, seed, scores, modes) for seed, folder in finished.items()]))
    if not found:
        raise InputError(
            f"{out}: no training of this study is finished; give the command without --only-report"
        )
    first_row, first_runs = found[0]
    same_images = plan.shared.data is not None
    return [
        Finding(
            row,
            sum(p.data.size for p in new_model(row.settings, np.random.default_rng(0)).parameters()),
            runs,
            bootstrap_interval(_by_image([run.jaccards for run in runs], same_images), _rng()),
            None if row is first_row else compare_runs(runs, first_runs, same_images),
        )
        for row, runs in found
    ]


def read_run(folder: Path, seed: int, scores: str = FINISHED, modes: str | None = None) -> Run:
    """Read what a finished training left. Raises InputError for a file that cannot be used."""
    path = folder / scores
    try:
        report = json.loads(path.read_text())
        compared = json.loads((path := folder / modes).read_text()) if modes else None
        path = folder / "history.csv"
        history = [
            {name: float(value) for name, value in line.items()}
            for line in csv.DictReader(path.read_text().splitlines())
        ]
        seconds = list(read_seconds(folder).values())
        run = Run(seed, folder, float(np.median(seconds)) if seconds else None, history, report, compared)
        run.best_epoch, run.jaccards  # noqa: B018 - fails here, where the file is known, and not in a picture
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise InputError(
            f"{path}: cannot be used ({fault}); delete {folder / FINISHED} and give the command again"
        ) from None
    return run


def compare_runs(runs: list[Run], first: list[Run], same_images: bool) -> Difference | None:
    """Compare a row with the first, over the seeds that both have, in pairs of images; see the module."""
    theirs = {run.seed: run.jaccards for run in first}
    pairs = {run.seed: (run.jaccards, theirs[run.seed]) for run in runs if run.seed in theirs}
    if not pairs:
        return None
    by_seed = {seed: {name: a[name] - b[name] for name in a} for seed, (a, b) in pairs.items()}
    values = _by_image(list(by_seed.values()), same_images)
    return Difference(
        float(values.mean()),
        bootstrap_interval(values, _rng()),
        {seed: float(np.mean(list(each.values()))) for seed, each in by_seed.items()},
    )


def agreement(findings: list[Finding]) -> Agreement | None:
    """Compare all trainings image by image; None where there is one alone, or they had other images."""
    runs = [run.jaccards for finding in findings for run in finding.runs]
    if len(runs) < 2 or any(run.keys() != runs[0].keys() for run in runs):
        return None
    values = np.array([[run[name] for name in sorted(run)] for run in runs])  # (trainings, images)
    if not values.std(axis=1).all():
        return None  # the same for all images: nothing to correlate
    pairs = np.corrcoef(values)[np.triu_indices(len(runs), 1)]
    low = (values < USABLE_JACCARD).all(axis=0)
    missing = 1 - values.mean(axis=0)
    return Agreement(float(pairs.mean()), int(low.sum()), float(missing[low].sum() / missing.sum()))


def _by_image(by_seed: list[dict[str, float]], same_images: bool) -> np.ndarray:
    """Return one value an image, (images,): the mean over seeds where they share their images."""
    values = np.array([[each[name] for name in sorted(each)] for each in by_seed])  # (seeds, images)
    return values.mean(axis=0) if same_images else values.ravel()


def _rng() -> np.random.Generator:
    """Every interval is drawn alike, so that a table made twice is the same."""
    return np.random.default_rng(0)

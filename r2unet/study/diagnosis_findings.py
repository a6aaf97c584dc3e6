"""The diagnoses of a study: their scores, and how certain it is that two rows differ.

The score that is compared is the mean AUC: for each class, the area under the ROC curve of this class against
the rest (`r2unet.diagnosis.roc`), averaged over the classes. As for the outlines (`findings.py`), seeds and
images are two independent reasons for a difference. The seeds are reported one by one.

**AUC has no value for a single image.** A Jaccard belongs to an image, so two rows can be subtracted image by
image. AUC is a mean over *pairs* of a positive image p and a negative image n:

    AUC = 1 / (P N)  sum over p, n of  [s_p > s_n]        (a tie counts one half)

Every image is in many pairs. The share of the negatives that score below p could be called the value of p,
but the values of two positives depend on the same negatives: they are not independent, and a bootstrap of
their mean would treat the negatives as fixed. So the lesions are drawn, and AUC is computed again from the
lesions that were drawn. Lesions, not images, because images of one lesion are nearly the same observation
(`r2unet.diagnosis.bootstrap`).

**The difference is paired.** A resample w, which is how often each lesion was drawn, is the same for both
rows and all seeds. Over the seeds s that both rows have,

    d(w) = mean over s of AUC(row, s, w) - AUC(first row, s, w)

With w = 1 this is the difference of the mean AUCs, and over the resamples d(w) spans its interval. Lesions
that are difficult for both rows move both AUCs together, so the interval of the difference is narrower than
those of the AUCs suggest. A class of which no lesion was drawn is left out, of both rows.

Generated lesions differ from seed to seed. Each of them counts as a lesion of its own, and w has one entry
for each lesion of each seed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from r2unet.diagnosis.bootstrap import with_intervals
from r2unet.diagnosis.roc import auc, mean_of_defined, roc_counts
from r2unet.errors import InputError
from r2unet.study.findings import Difference, Finding, Run, Spread, predicts_outlines, spread
from r2unet.study.plan import FINISHED, Plan
from r2unet.study.studies import Row

# Where each score is in the part "diagnosis" of report.json. "model" is the network, next to its baselines.
SCORES: dict[str, Callable[[dict[str, Any], str], dict[str, Any]]] = {
    "auc": lambda report, name: report["types"][name]["mean"]["auc"],
    "malignant_auc": lambda report, name: report["malignant"][name]["auc"],
    "balanced_accuracy": lambda report, name: report["types"][name]["decisions"]["argmax p"][
        "balanced_accuracy"
    ],
    "accuracy": lambda report, name: report["types"][name]["decisions"]["argmax p"]["accuracy"],
}


class DiagnosisFinding(NamedTuple):
    """A row that gives diagnoses, and its finished runs, at least one."""

    row: Row
    runs: list[Run]
    interval: list[float] | None  # of the mean AUC, averaged over seeds, 95 %, over lesions
    difference: Difference | None  # of the mean AUC; None for the first row, and without a common seed

    def score(self, name: str) -> Spread | None:
        """The spread over seeds of one of `SCORES`; None if it is undefined for a seed."""
        values = self.values(name)
        return spread(values) if values else None

    def values(self, name: str, predictor: str = "model") -> list[float]:
        """The values of one of `SCORES`, of the network or a baseline, by seed; [] if one is undefined."""
        values = [SCORES[name](run.diagnosis, predictor)["value"] for run in self.runs]
        return [] if None in values else values


class Diagnoses(NamedTuple):
    """The diagnoses of one run, N images of K classes."""

    images: list[tuple[str, str, str]]  # (N,) sorted: the name, the class, the lesion
    labels: np.ndarray  # (N,) int, in 0..K-1
    probabilities: np.ndarray  # (N, K)

    @property
    def lesions(self) -> list[str]:
        """The lesion of each image, (N,)."""
        return [lesion for _, _, lesion in self.images]


def diagnosed(plan: Plan, findings: list[Finding]) -> list[DiagnosisFinding]:
    """Return the rows with diagnoses, each compared with the first of them; [] if no row has any.

    Raises InputError for an invalid report, and for runs whose images, classes or lesions differ.
    """
    rows = [(finding.row, finding.runs) for finding in findings if finding.runs[0].diagnosis]
    if not rows:
        return []
    same_images = plan.shared.data is not None
    diagnoses = {(row.label, run.seed): read_diagnoses(run) for row, runs in rows for run in runs}
    lesions, places = _all_lesions(diagnoses, same_images)
    common = {row.label: _common_seeds(runs, rows[0][1]) for row, runs in rows[1:]}

    def statistics(weights: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
        aucs = {key: mean_auc(each, weights[:, places[key[1]]]) for key, each in diagnoses.items()}  # (R,)
        values = {
            ("auc", row.label): np.mean([aucs[row.label, run.seed] for run in runs], axis=0)
            for row, runs in rows
        }
        first = rows[0][0].label
        for label, seeds in common.items():
            if seeds:
                by_seed = [aucs[label, seed] - aucs[first, seed] for seed in seeds]
                values["difference", label] = np.mean(by_seed, axis=0)
        return values

    numbers = with_intervals(statistics, lesions, np.random.default_rng(0))
    return [
        DiagnosisFinding(
            row,
            runs,
            numbers["auc", row.label]["interval"],
            _difference(runs, rows[0][1], numbers.get(("difference", row.label))),
        )
        for row, runs in rows
    ]


def read_diagnoses(run: Run) -> Diagnoses:
    """Return the diagnoses in the report of a run. Raises InputError if the report is invalid."""
    try:
        by_image = run.diagnosis["by_image"]
        classes = run.diagnosis["types"]["model"]["classes"]
        for score in SCORES.values():
            score(run.diagnosis, "model")["value"]
        images = sorted((name, entry["class"], entry["lesion"]) for name, entry in by_image.items())
        labels = np.array([classes.index(name) for _, name, _ in images])
        probabilities = np.array([by_image[name]["probabilities"] for name, _, _ in images], dtype=np.float64)
        if probabilities.shape != (len(images), len(classes)):
            raise ValueError(f"the probabilities are not of {len(classes)} classes")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        path = run.folder / FINISHED
        raise InputError(f"{path}: is invalid ({error}); delete it and run the command again") from None
    return Diagnoses(images, labels, probabilities)


def mean_auc(diagnoses: Diagnoses, weights: np.ndarray) -> np.ndarray:
    """Return the mean AUC over the classes for R resamples: weights (R, N) -> (R,), nan where undefined."""
    columns = enumerate(diagnoses.probabilities.T)  # K columns (N,)
    by_class = [auc(roc_counts(column, diagnoses.labels == k, weights)) for k, column in columns]
    return mean_of_defined(np.stack(by_class, axis=-1))  # (R, K) -> (R,)


def baseline_row(found: list[DiagnosisFinding]) -> DiagnosisFinding:
    """Return the row whose baselines are reported: the first with outlines, which the regression needs."""
    return next((each for each in found if predicts_outlines(each.row)), found[0])


def baselines(found: list[DiagnosisFinding]) -> dict[str, dict[str, float]]:
    """Return the scores of each baseline, {name: {score: mean over seeds}}, without undefined scores."""
    finding = baseline_row(found)
    names = [name for name in finding.runs[0].diagnosis["types"] if not name.startswith("model")]
    return {
        name: {score: float(np.mean(v)) for score in SCORES if (v := finding.values(score, name))}
        for name in names
    }


def _all_lesions(
    diagnoses: dict[tuple[str, int], Diagnoses], same_images: bool
) -> tuple[list[str], dict[int, slice]]:
    """Return all lesions that are drawn from, and where among them the images of each seed are.

    With the same images for all seeds that is everywhere. Raises InputError if runs that should have the same
    images differ in them.
    """
    references: dict[int | None, tuple[str, Diagnoses]] = {}
    for (label, seed), each in diagnoses.items():
        other, reference = references.setdefault(None if same_images else seed, (label, each))
        if each.images != reference.images:
            raise InputError(
                f"{label}, seed {seed}: its diagnoses are not of the same images, classes and lesions as "
                f"those of {other}; train both rows with the same data, in a new --out"
            )
    lesions: list[str] = []
    places: dict[int | None, slice] = {}
    for seed, (_, reference) in references.items():
        start, own = len(lesions), reference.lesions
        lesions += own if same_images else [f"{seed}: {lesion}" for lesion in own]
        places[seed] = slice(start, len(lesions))
    return lesions, {seed: places[None if same_images else seed] for _, seed in diagnoses}


def _common_seeds(runs: list[Run], first: list[Run]) -> list[int]:
    seeds = {run.seed for run in first}
    return [run.seed for run in runs if run.seed in seeds]


def _difference(runs: list[Run], first: list[Run], number: dict[str, Any] | None) -> Difference | None:
    """Join a difference and its interval with the difference of each seed; None if it is undefined."""
    if number is None or number["interval"] is None:
        return None

    def aucs(runs: list[Run]) -> dict[int, float]:
        return {run.seed: SCORES["auc"](run.diagnosis, "model")["value"] for run in runs}

    own, others = aucs(runs), aucs(first)
    by_seed = {seed: own[seed] - others[seed] for seed in own if seed in others}
    return Difference(number["value"], number["interval"], by_seed)

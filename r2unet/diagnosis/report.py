"""The scores of a diagnosis: how well each class is separated, decided, and calibrated, with intervals.

Three questions, which different numbers answer:

1. Does the probability of a class separate its images from the rest? AUC, average precision, and the
   sensitivity and the specificity at one point of the ROC curve (roc.py). No decision is needed.
2. Are the decisions right? Accuracy, balanced accuracy, sensitivity and specificity by class (decisions.py).
   The report has them for each decision: argmax p and, given a prior, argmax p / prior.
3. Can the probabilities be believed? Calibration (calibration.py).

Every number is a dictionary {"value": float, "interval": [low, high]}, with the 95 % bootstrap interval over
lesions (bootstrap.py). An undefined number has None for both. A class without images, or to which all
images belong, has neither AUC nor average precision and is left out of their means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from r2unet.diagnosis import calibration
from r2unet.diagnosis.bootstrap import with_intervals
from r2unet.diagnosis.decisions import (
    accuracy,
    balanced_accuracy,
    confusion_matrix,
    decide,
    sensitivities,
    specificities,
)
from r2unet.diagnosis.roc import (
    RocCounts,
    auc,
    average_precision,
    mean_of_defined,
    roc_counts,
    sensitivity_at,
    specificity_at,
)

OPERATING_POINT = 0.9  # the specificity at which the sensitivity is reported, and the reverse
SEPARATION: dict[str, Callable[[RocCounts], np.ndarray]] = {
    "auc": auc,
    "average_precision": average_precision,
    "sensitivity_at_specificity": lambda counts: sensitivity_at(counts, OPERATING_POINT),
    "specificity_at_sensitivity": lambda counts: specificity_at(counts, OPERATING_POINT),
}
Statistics = dict[tuple[str, ...], np.ndarray]  # a path in the report -> values (R,) of R resamples


def diagnosis_report(
    probabilities: np.ndarray,
    labels: np.ndarray,
    lesions: Sequence[str],
    classes: Sequence[str],
    rng: np.random.Generator,
    prior: np.ndarray | None = None,
) -> dict[str, Any]:
    """Score N diagnoses: probabilities (N, K), labels (N,) in 0..K-1, N lesion names, K names of classes.

    Returns a dictionary that JSON can store: "images", "lesions", "classes", "by_class" and "mean" (question
    1 of the module docstring), "decisions" by name (2), "calibration" (3). `prior` (K,), the shares of the
    classes in training, adds the decision argmax p / prior. Raises ValueError for arrays that do not match,
    rows that do not sum to 1, and no images.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    labels = np.asarray(labels)
    _check(probabilities, labels, lesions, classes)
    decisions = {"argmax p": decide(probabilities)}
    if prior is not None:
        decisions["argmax p / prior"] = decide(probabilities, prior)

    def statistics(weights: np.ndarray) -> Statistics:
        values = _separation(probabilities, labels, classes, weights)
        for name, decision in decisions.items():
            matrix = confusion_matrix(labels, decision, len(classes), weights)  # (R, K, K)
            values |= {("decisions", name, *path): v for path, v in _decision(matrix, classes).items()}
        return values | _calibration(probabilities, labels, weights)

    report = _counts(lesions) | {"classes": list(classes), "operating_point": OPERATING_POINT}
    report |= _nested(with_intervals(statistics, lesions, rng))
    for k, name in enumerate(classes):
        report["by_class"][name]["images"] = int(np.sum(labels == k))
    for name, decision in decisions.items():
        matrix = confusion_matrix(labels, decision, len(classes))
        report["decisions"][name]["confusion"] = matrix.astype(int).tolist()
    report["calibration"] |= _chance(probabilities, rng) | {"bins": _bins(probabilities, labels)}
    return report


def binary_report(
    scores: np.ndarray,
    labels: np.ndarray,
    lesions: Sequence[str],
    rng: np.random.Generator,
    threshold: float = 0.5,
) -> dict[str, Any]:
    """Score answers to a yes-no question, such as malignant or not: scores (N,) in [0, 1], labels 0 and 1.

    Returns what `diagnosis_report` returns for one class, without nesting, and the calibration. The decision
    is scores > threshold, and "decision" says so.
    """
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    probabilities = np.stack((1 - scores, scores), axis=1)  # (N,) -> (N, 2)
    _check(probabilities, labels, lesions, ("no", "yes"))
    decision = (scores > threshold).astype(int)

    def statistics(weights: np.ndarray) -> Statistics:
        counts = roc_counts(scores, labels == 1, weights)
        values: Statistics = {(name,): metric(counts) for name, metric in SEPARATION.items()}
        matrix = confusion_matrix(labels, decision, 2, weights)  # (R, 2, 2)
        values |= {
            ("sensitivity",): sensitivities(matrix)[..., 1],
            ("specificity",): specificities(matrix)[..., 1],
            ("accuracy",): accuracy(matrix),
            ("balanced_accuracy",): balanced_accuracy(matrix),
        }
        return values | _calibration(probabilities, labels, weights)

    report = _counts(lesions) | {"positives": int(labels.sum()), "decision": f"score > {threshold:g}"}
    report |= {"operating_point": OPERATING_POINT} | _nested(with_intervals(statistics, lesions, rng))
    report["confusion"] = confusion_matrix(labels, decision, 2).astype(int).tolist()
    report["calibration"] |= _chance(probabilities, rng) | {"bins": _bins(probabilities, labels)}
    return report


def _check(
    probabilities: np.ndarray, labels: np.ndarray, lesions: Sequence[str], classes: Sequence[str]
) -> None:
    images = len(lesions)
    if images == 0 or probabilities.shape != (images, len(classes)) or labels.shape != (images,):
        raise ValueError(
            f"diagnosis: probabilities {probabilities.shape} and labels {labels.shape} must be (N, K) and "
            f"(N,) for {images} lesion names and {len(classes)} classes, with N > 0"
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= len(classes):
        raise ValueError(f"diagnosis: labels must be integers in 0..{len(classes) - 1}")
    if not (np.all(probabilities >= 0) and np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)):
        raise ValueError("diagnosis: probabilities must be in [0, 1] and sum to 1 for each image")


def _separation(
    probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str], weights: np.ndarray
) -> Statistics:
    values: Statistics = {}
    for k, name in enumerate(classes):
        counts = roc_counts(probabilities[:, k], labels == k, weights)  # class k against the rest
        values |= {("by_class", name, metric): function(counts) for metric, function in SEPARATION.items()}
    for metric in ("auc", "average_precision"):
        by_class = np.stack([values["by_class", name, metric] for name in classes], axis=-1)  # (R, K)
        values["mean", metric] = mean_of_defined(by_class)
    return values


def _decision(matrix: np.ndarray, classes: Sequence[str]) -> Statistics:
    values: Statistics = {
        ("accuracy",): accuracy(matrix),
        ("balanced_accuracy",): balanced_accuracy(matrix),
    }
    recalls, true_negative_rates = sensitivities(matrix), specificities(matrix)  # (R, K) each
    for k, name in enumerate(classes):
        values["by_class", name, "sensitivity"] = recalls[..., k]
        values["by_class", name, "specificity"] = true_negative_rates[..., k]
    return values


def _calibration(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Statistics:
    bins = calibration.reliability(probabilities, labels, weights=weights)
    return {
        ("calibration", "expected_calibration_error"): calibration.expected_calibration_error(bins),
        ("calibration", "negative_log_likelihood"): calibration.negative_log_likelihood(
            probabilities, labels, weights
        ),
        ("calibration", "brier_score"): calibration.brier_score(probabilities, labels, weights),
    }


def _chance(probabilities: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    """Return the calibration error of perfectly calibrated answers: its mean and 95 % of its values."""
    own = rng.spawn(1)[0]  # leaves the numbers that `rng` draws next as they are
    errors = calibration.errors_by_chance(probabilities, own)
    interval = np.quantile(errors, (0.025, 0.975)).tolist()
    return {"error_by_chance": {"value": float(errors.mean()), "interval": interval}}


def _bins(probabilities: np.ndarray, labels: np.ndarray) -> list[dict[str, Any]]:
    """Return the bins of the reliability diagram; an empty one has no confidence and no accuracy (None)."""
    images, confidence, right = calibration.reliability(probabilities, labels)
    return [
        {
            "low": b / len(images),
            "high": (b + 1) / len(images),
            "images": int(images[b]),
            "confidence": float(confidence[b]) if images[b] else None,
            "accuracy": float(right[b]) if images[b] else None,
        }
        for b in range(len(images))
    ]


def _counts(lesions: Sequence[str]) -> dict[str, Any]:
    return {"images": len(lesions), "lesions": len(set(lesions))}


def _nested(values: dict[tuple[str, ...], Any]) -> dict[str, Any]:
    """Turn {("mean", "auc"): value} into {"mean": {"auc": value}}."""
    report: dict[str, Any] = {}
    for path, value in values.items():
        place = report
        for name in path[:-1]:
            place = place.setdefault(name, {})
        place[path[-1]] = value
    return report

"""Scores of a table of diagnoses, by the rules of the ISIC challenge's tool, isic-challenge-scoring.

    truth                                       predictions
    image,MEL,NV,BCC,AKIEC,BKL,DF,VASC          image,MEL,NV,BCC,AKIEC,BKL,DF,VASC
    ISIC_0000001,0.0,1.0,0.0,0.0,0.0,0.0,0.0    ISIC_0000001,0.05,0.9,0.0,0.0,0.05,0.0,0.0

| challenge          | columns of the truth                         | ranked by                              |
|--------------------|----------------------------------------------|----------------------------------------|
| ISIC 2018, task 3  | `image` and a column for each class, one 1   | balanced accuracy                      |
| ISIC 2017, part 3  | `image_id`, `melanoma`,                      | mean AUC of the two columns            |
|                    | `seborrheic_keratosis`, at most one 1        |                                        |

The rules of the tool (its files classification.py, metrics.py, load_csv.py):

* Each column alone: a value above 0.5 means yes. Accuracy, sensitivity, specificity, Dice, and the positive
  and negative predictive values (ppv, npv) follow from TP, TN, FP, FN. A ratio of 0 / 0 counts as 1. AUC, AP
  and the area under the part of the ROC curve with a sensitivity of at least 0.8 (`auc_sens_80`) need no
  threshold.
* Balanced accuracy: an image's decision is its largest value. If several are equally large, the image is
  undecided, which is wrong whatever its class. Recall is averaged over the classes that occur.
* The truth may have two more columns. `score_weight` weights the images in all scores. With
  `validation_weight`, the ranking score is computed a second time, with these weights ("validation").
* ISIC_0035068 has weight 0, because its published truth is wrong.

Two things differ on purpose. Where the truth has no positive or no negative of a class, the tool stops or
returns what its version of scikit-learn returns. Here AUC, AP and `auc_sens_80` are undefined (None) and left
out of the means. And the tool refuses a column in which no value has a decimal point; here "1" is "1.0".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from r2unet.data.diagnoses import TYPES_2017
from r2unet.diagnosis.csv_tables import Table, read_table
from r2unet.diagnosis.decisions import balanced_accuracy, confusion_matrix
from r2unet.diagnosis.roc import RocCounts, auc, average_precision, mean_of_defined, roc_counts, roc_curve
from r2unet.errors import InputError

SCORE_WEIGHT, VALIDATION_WEIGHT = "score_weight", "validation_weight"
EXCLUDED = "ISIC_0035068"
MINIMAL_SENSITIVITY = 0.8  # of `auc_sens_80`


def score_diagnoses(truth: Path, predictions: Path) -> dict[str, Any]:
    """Score a table of predictions against the truth; a dictionary that JSON can store.

    Its keys are "images", "ranked_by" (a metric), "overall" (its value), "balanced_accuracy" (of 2018),
    "mean" {metric: value}, "by_class" {class: {metric: value}} and, where the truth has such weights,
    "validation".
    Raises InputError, naming file and row, for images or columns that are missing, unknown or listed twice,
    for values that are not numbers in [0, 1], and for a truth that is not 0 or 1 or has two classes at once.
    """
    true = read_table(truth, (SCORE_WEIGHT, VALIDATION_WEIGHT))
    exclusive = set(true.columns) != set(TYPES_2017)  # in 2017 a row without 1 is a nevus
    _check_truth(true, exclusive)
    labels, weights = true.values, _weights(true, SCORE_WEIGHT)
    optional = () if exclusive else ("nevus",)  # which `r2unet predict` adds to the columns of 2017
    values = _aligned(true, read_table(predictions, optional, true.columns))  # (N, K), the truth's order
    by_class = {
        name: _column_scores(labels[:, k] > 0.5, values[:, k], weights) for k, name in enumerate(true.columns)
    }
    metrics = list(next(iter(by_class.values())))
    mean = {m: float(mean_of_defined(np.array([each[m] for each in by_class.values()]))) for m in metrics}
    scores: dict[str, Any] = {"images": len(true.images)}
    scores["ranked_by"] = "balanced_accuracy" if exclusive else "auc"
    scores["overall"] = _ranking_score(labels, values, weights, exclusive)
    if VALIDATION_WEIGHT in true.extra:
        validation = _weights(true, VALIDATION_WEIGHT)
        scores["validation"] = _ranking_score(labels, values, validation, exclusive)
    if exclusive:
        scores["balanced_accuracy"] = scores["overall"]
    return _without_nan(scores | {"mean": mean, "by_class": by_class})


def as_table(scores: dict[str, Any]) -> str:
    """Format the scores of `score_diagnoses` as text, a row for each class."""
    metrics = list(scores["mean"])
    lines = [
        f"{scores['images']} images; ranked by {scores['ranked_by'].replace('_', ' ')}: "
        f"{_cell(scores['overall'])}",
        f"{'':22}" + "".join(f"{name:>13}" for name in metrics),
    ]
    for name, values in {**scores["by_class"], "mean": scores["mean"]}.items():
        lines.append(f"{name:22}" + "".join(f"{_cell(values[m]):>13}" for m in metrics))
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _check_truth(true: Table, exclusive: bool) -> None:
    for row, image in enumerate(true.images):
        ones = int(np.sum(true.values[row] == 1))
        if not np.isin(true.values[row], (0, 1)).all() or ones > 1 or (exclusive and ones == 0):
            expected = "a single 1" if exclusive else "at most a single 1"
            raise InputError(
                f"{true.path}: line {true.lines[row]} ({image}): expected {expected}, and 0 elsewhere; "
                "correct the row or download the table again"
            )


def _aligned(true: Table, predicted: Table) -> np.ndarray:
    """Return the predictions (N, K) in the order of the truth. InputError for missing or unknown images."""
    row_of = {image: row for row, image in enumerate(predicted.images)}
    if missing := [image for image in true.images if image not in row_of]:
        raise InputError(f"{predicted.path}: no row for {missing[0]}{_more(missing)} of {true.path}; add it")
    known = set(true.images)
    if extra := [image for image in predicted.images if image not in known]:
        line = predicted.lines[row_of[extra[0]]]
        raise InputError(
            f"{predicted.path}: line {line}: {extra[0]}{_more(extra)} is not in {true.path}; remove the row"
        )
    return predicted.values[[row_of[image] for image in true.images]]


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _weights(true: Table, name: str) -> np.ndarray:
    weights = true.extra.get(name, np.ones(len(true.images)))
    return np.where([image == EXCLUDED for image in true.images], 0.0, weights)


def _ranking_score(labels: np.ndarray, values: np.ndarray, weights: np.ndarray, exclusive: bool) -> float:
    if exclusive:
        return float(_balanced_accuracy(labels, values, weights))
    columns = [auc(roc_counts(values[:, k], labels[:, k] > 0.5, weights)) for k in range(labels.shape[1])]
    return float(mean_of_defined(np.array(columns)))


def _balanced_accuracy(labels: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    classes = labels.shape[1]
    largest = values == values.max(axis=1, keepdims=True)  # (N, K)
    undecided = classes  # one more class, which is never true
    decisions = np.where(largest.sum(axis=1) > 1, undecided, largest.argmax(axis=1))
    return balanced_accuracy(confusion_matrix(labels.argmax(axis=1), decisions, classes + 1, weights))


def _column_scores(positive: np.ndarray, values: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    """Score a column: positive (N,) bool, values (N,), weights (N,) -> {metric: value}, nan if undefined."""
    yes = values > 0.5
    tp, fp = float(np.sum(weights * (positive & yes))), float(np.sum(weights * (~positive & yes)))
    fn, tn = float(np.sum(weights * (positive & ~yes))), float(np.sum(weights * (~positive & ~yes)))
    counts = roc_counts(values, positive, weights)
    return {
        "accuracy": _share(tp + tn, fp + fn),
        "sensitivity": _share(tp, fn),
        "specificity": _share(tn, fp),
        "dice": _share(2 * tp, fp + fn),
        "ppv": _share(tp, fp),
        "npv": _share(tn, fn),
        "auc": float(auc(counts)),
        "auc_sens_80": _area_above(counts, MINIMAL_SENSITIVITY),
        "ap": float(average_precision(counts)),
    }


def _share(part: float, rest: float) -> float:
    return part / (part + rest) if part + rest else 1.0


def _area_above(counts: RocCounts, sensitivity: float) -> float:
    """Area under the part of the ROC curve above a sensitivity, which starts at an interpolated point."""
    fpr, tpr = roc_curve(counts)  # (M,) each
    if np.isnan(fpr).any() or np.isnan(tpr).any():
        return float("nan")
    first = int(np.searchsorted(tpr, sensitivity))  # at least 1, because the curve starts at 0
    start = np.interp(sensitivity, tpr[first - 1 : first + 1], fpr[first - 1 : first + 1])
    x, y = np.append(start, fpr[first:]), np.append(sensitivity, tpr[first:])
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))


def _without_nan(value: Any) -> Any:
    """Replace nan by None, which JSON can store, in a dictionary of dictionaries."""
    if isinstance(value, dict):
        return {name: _without_nan(each) for name, each in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value

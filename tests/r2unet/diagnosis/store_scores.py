"""Stores what scikit-learn and isic-challenge-scoring compute, for the tests to compare with.

    python -m venv oracle
    oracle/bin/pip install scikit-learn==1.9.1 isic-challenge-scoring==5.6.0 'pandas<3'
    oracle/bin/python tests/r2unet/diagnosis/store_scores.py

It writes stored_scores.json next to this file. The tests need neither package.
"""

import io
import json
import warnings
from pathlib import Path

import numpy as np
from isic_challenge_scoring.classification import ClassificationMetric, ClassificationScore
from sklearn import metrics

PRIOR = np.array([0.2, 0.5, 0.2, 0.1])
TYPES = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")


def diagnoses(seed, images, digits, occurring):
    """Probabilities of four classes, rounded to `digits` (1: many ties), labels of some, and weights."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(occurring, images)
    logits = rng.normal(size=(images, 4)) + 1.2 * np.eye(4)[labels] + np.log(PRIOR)
    p = np.exp(logits)
    p = np.round(p / p.sum(axis=1, keepdims=True), digits)
    p[:, -1] += 1 - p.sum(axis=1)  # rounded rows sum to 1 again
    p = np.abs(np.round(p, digits))
    p /= p.sum(axis=1, keepdims=True)
    return p, labels, rng.integers(0, 4, images)  # and weights


def scikit_learn(seed, images, digits, occurring):
    p, labels, weights = diagnoses(seed, images, digits, occurring)
    decisions = p.argmax(axis=1)
    case = {"probabilities": p.tolist(), "labels": labels.tolist(), "weights": weights.tolist()}
    for name, w in (("", None), ("weighted_", weights)):
        case[name + "auc"] = [metrics.roc_auc_score(labels == k, p[:, k], sample_weight=w) for k in range(4)]
        case[name + "average_precision"] = [
            metrics.average_precision_score(labels == k, p[:, k], sample_weight=w) for k in range(4)
        ]
        case[name + "accuracy"] = metrics.accuracy_score(labels, decisions, sample_weight=w)
        case[name + "balanced_accuracy"] = metrics.balanced_accuracy_score(labels, decisions, sample_weight=w)
        case[name + "confusion"] = metrics.confusion_matrix(
            labels, decisions, labels=range(4), sample_weight=w
        ).tolist()
        case[name + "log_loss"] = metrics.log_loss(labels, p, labels=range(4), sample_weight=w)
        case[name + "brier_score"] = metrics.brier_score_loss(
            labels, p, labels=range(4), sample_weight=w, scale_by_half=False
        )
    for k in range(4):
        for single in (labels == k).all(), not (labels == k).any():
            if single:  # scikit-learn warns and returns nan, 0 or 1; we say undefined
                for name in ("auc", "average_precision", "weighted_auc", "weighted_average_precision"):
                    case[name][k] = None
    case["roc_curves"] = []
    for k in range(4):
        if case["auc"][k] is not None:
            curve = metrics.roc_curve(labels == k, p[:, k], drop_intermediate=False)
            case["roc_curves"].append([k, *(values[1:].tolist() for values in curve)])  # without infinity
    return case


def table(columns, names, values, digits=3):
    rows = [
        ",".join((name, *(str(float(round(v, digits))) for v in row)))
        for name, row in zip(names, values, strict=True)
    ]
    return "\n".join((",".join(columns), *rows)) + "\n"


def challenge(seed, year, digits, weighted=False):
    """A truth and predictions as CSV, in different orders, and the scores of the official tool."""
    rng = np.random.default_rng(seed)
    columns = TYPES if year == 2018 else ("melanoma", "seborrheic_keratosis")
    images, classes = 60, len(columns)
    # The truth is sorted, as the challenge's is: the tool sorts its rows, but not the weights.
    names = [f"ISIC_{number:07}" for number in np.sort(rng.choice(9999, images, replace=False))]
    labels = np.concatenate(
        (np.arange(classes), rng.integers(0, classes if year == 2018 else 4, images - classes))
    )
    truth = np.eye(max(classes, 4))[labels][:, :classes]  # in 2017 labels 2 and 3 are nevi
    predictions = np.clip(0.25 + 0.35 * truth + 0.25 * rng.normal(size=truth.shape), 0, 1)
    image = "image" if year == 2018 else "image_id"
    if weighted:
        names[-1] = "ISIC_0035068"
        more = np.stack((rng.integers(0, 3, images), rng.integers(0, 2, images)), axis=1)
        true = table((image, *columns, "score_weight", "validation_weight"), names, np.hstack((truth, more)))
    else:
        true = table((image, *columns), names, truth)
    order = rng.permutation(images)
    predicted = table(
        (image, *columns[::-1]),
        [names[i] + (".jpg" if weighted else "") for i in order],
        predictions[order][:, ::-1],
        digits,
    )
    metric = ClassificationMetric.BALANCED_ACCURACY if year == 2018 else ClassificationMetric.AUC
    streams = [io.StringIO(text.replace("image_id", "image")) for text in (true, predicted)]
    scores = ClassificationScore.from_stream(*streams, metric).to_dict(rocs=False)
    return {"year": year, "truth": true, "predictions": predicted, "scores": scores}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    stored = {
        "scikit-learn": {
            "continuous": scikit_learn(0, 50, 5, (0, 1, 2, 3)),
            "ties": scikit_learn(1, 50, 1, (0, 1, 2, 3)),
            "a class that does not occur": scikit_learn(2, 30, 2, (0, 1, 3)),
            "one class": scikit_learn(3, 12, 2, (1,)),
        },
        "challenge": {
            "2018": challenge(0, 2018, 3),
            "2018, ties and weights": challenge(1, 2018, 1, weighted=True),
            "2017": challenge(2, 2017, 3),
            "2017, ties": challenge(3, 2017, 1),
        },
    }
    path = Path(__file__).with_name("stored_scores.json")
    path.write_text(json.dumps(stored, indent=None) + "\n", encoding="utf-8")

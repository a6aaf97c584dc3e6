"""The scores of a diagnosis, next to those of trivial baselines on the same images.

    class shares           the share of each class in training, for every image: "always nevus"
    logistic regression    on twelve numbers of the predicted lesion: colour, area, asymmetry, border

and the same network's answer to the simpler question, malignant or not: the sum of the probabilities of the
malignant classes. Where the labels say only benign or malignant, as in ISIC 2016, no type can be scored, and
these two are the classes of the whole report.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from r2unet.data.classes import class_index, malignant_classes
from r2unet.data.images import resize_image, resize_probability
from r2unet.data.sample import Sample
from r2unet.data.targets import lesion_of
from r2unet.diagnosis.baselines import ClassShares, LogisticRegression
from r2unet.diagnosis.calibration import apply_temperature
from r2unet.diagnosis.lesion_features import lesion_features
from r2unet.diagnosis.plots import plot_confusion, plot_reliability, plot_roc
from r2unet.diagnosis.report import binary_report, diagnosis_report
from r2unet.diagnosis.tables import as_binary_table, as_table, cell
from r2unet.prediction.predict import THRESHOLD, Prediction
from r2unet.scores.evaluate import not_beaten
from r2unet.scores.predictions import Answered

UNCORRECTED = "model before temperature"
FIGURES = ("roc.png", "reliability.png", "confusion.png")


class Diagnosed(NamedTuple):
    """What the report needs of one image."""

    name: str
    lesion: str  # the lesion's identity
    label: int  # the true class
    probabilities: np.ndarray  # (K,)
    features: np.ndarray | None  # of the predicted lesion, for the logistic regression


class Diagnoses:
    """Collects the diagnoses of a data set, and what the baselines need of each image.

    `entry` is the entry "diagnosis" of the checkpoint; without it there are no baselines. `size` is the side
    of the training images, to which images are resized before their features are computed. `temperature` is
    that of the probabilities. `scored` are benign and malignant where the labels say no more.
    """

    def __init__(
        self,
        classes: tuple[str, ...],
        size: int,
        entry: dict[str, Any] | None,
        temperature: float = 1.0,
        scored: tuple[str, ...] | None = None,
    ) -> None:
        self.classes, self.size, self.temperature = classes, size, temperature
        self.scored = scored or classes
        self.shares = None if entry is None else np.asarray(entry["shares"])
        parts = (entry or {}).get("regression")
        self.regression = parts and LogisticRegression(**{k: np.asarray(v) for k, v in parts.items()})
        self.images: list[Diagnosed] = []

    def collected(self, answers: Iterable[Answered]) -> Iterator[Answered]:
        """Yield the answers unchanged, and collect the diagnosis of each image that has a class."""
        for sample, prediction in answers:
            self.add(self.of_image(sample, prediction))
            yield sample, prediction

    def add(self, image: Diagnosed | None) -> None:
        """Collect what `of_image` returned."""
        if image is not None:
            self.images.append(image)

    def of_image(self, sample: Sample, prediction: Prediction) -> Diagnosed | None:
        """Return what the report needs of an image, None if it has no class; collects nothing."""
        label = class_index(sample.diagnosis, self.scored)
        if label is None:
            return None
        features = self._features(sample.image, prediction.outline) if self.regression else None
        return Diagnosed(sample.name, lesion_of(sample), label, prediction.diagnosis, features)

    def _features(self, image: np.ndarray, outline: np.ndarray) -> np.ndarray:
        shape = (self.size, self.size)
        if image.shape[:2] != shape:
            image, outline = resize_image(image, shape), resize_probability(outline, shape)
        return lesion_features(image, outline > THRESHOLD)

    def report(self, rng: np.random.Generator) -> dict[str, Any] | None:
        """Return the scores as a dictionary that JSON can store, or None if no image has a class."""
        if not self.images:
            return None
        labels = np.array([image.label for image in self.images])
        model = np.array([image.probabilities for image in self.images])
        lesions = [image.lesion for image in self.images]
        by_image = {
            name: {"class": self.scored[label], "lesion": lesion, "probabilities": self._merged(p).tolist()}
            for name, lesion, label, p, _ in self.images
        }
        predictors = {"model": model}
        if self.temperature != 1.0:
            logits = np.log(np.maximum(model, np.finfo(np.float64).tiny))  # a probability can round to 0
            predictors[UNCORRECTED] = apply_temperature(logits, 1.0 / self.temperature)
        if self.shares is not None:
            predictors["class shares"] = ClassShares(self.shares).probabilities(model)
        if self.regression:
            predictors["logistic regression"] = self.regression.probabilities(
                np.array([image.features for image in self.images])
            )
        predictors = {name: self._merged(p) for name, p in predictors.items()}
        prior = None if self.shares is None else self._merged(self.shares)
        reports = {
            name: diagnosis_report(p, labels, lesions, self.scored, rng, prior)
            for name, p in predictors.items()
        }
        malignant = malignant_classes(self.scored)
        truth = np.isin(labels, malignant).astype(int)
        binary = {
            name: binary_report(p[:, malignant].sum(axis=1).clip(0, 1), truth, lesions, rng)
            for name, p in predictors.items()
        }
        return {"types": reports, "malignant": binary, "by_image": by_image}

    def _merged(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the probabilities (..., K) of the classes, summed for each of the scored classes."""
        if self.scored == self.classes:
            return probabilities
        members = [class_index(name, self.scored) for name in self.classes]
        return probabilities @ np.eye(len(self.scored))[members]  # (..., K) @ (K, scored)


def baseline_warnings(report: dict[str, Any]) -> list[str]:
    """Return a warning for each baseline that the model does not beat in mean AUC."""
    aucs = {name: scores["mean"]["auc"]["value"] for name, scores in report["types"].items()}
    defined = {name: auc for name, auc in aucs.items() if auc is not None and name != UNCORRECTED}
    return not_beaten("mean AUC", defined)


def as_text(report: dict[str, Any]) -> str:
    """Format a report of `Diagnoses`: the network in full, the baselines in a line each."""
    types, malignant = report["types"], report["malignant"]
    lines = [
        "diagnosis: " + as_table(types["model"]),
        "",
        "malignant or not: " + as_binary_table(malignant["model"]),
    ]
    lines += ["", _row("next to baselines", "mean AUC", "accuracy", "balanced accuracy", "malignant: AUC")]
    for name, scores in types.items():
        decision = scores["decisions"]["argmax p"]
        values = (
            scores["mean"]["auc"],
            decision["accuracy"],
            decision["balanced_accuracy"],
            malignant[name]["auc"],
        )
        lines.append(_row(name, *map(cell, values)))
    return "\n".join(lines)


def _row(name: str, *cells: str) -> str:
    return f"{name:{len(UNCORRECTED)}}" + "".join(f"{text:>24}" for text in cells)


def plot_diagnoses(report: dict[str, Any] | None, folder: Path) -> None:
    """Draw the network's ROC curves, reliability and confusion matrix, the `FIGURES`, into a folder.

    Without a report, where no image has a class, it draws nothing. Raises InputError if it cannot write.
    """
    if report is None:
        return
    roc, reliability, confusion = (folder / name for name in FIGURES)
    model = report["types"]["model"]
    rows = report["by_image"].values()
    probabilities = np.array([row["probabilities"] for row in rows])
    labels = np.array([model["classes"].index(row["class"]) for row in rows])
    plot_roc(probabilities, labels, model, roc)
    shown = {name: scores for name, scores in report["types"].items() if name.startswith("model")}
    plot_reliability(shown, reliability)
    decision = model["decisions"]["argmax p"]["confusion"]
    plot_confusion(decision, model["classes"], confusion, "decision: the most probable class")

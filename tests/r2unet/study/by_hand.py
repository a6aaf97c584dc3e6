"""Runs of a study whose reports are written by hand, without any training."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from r2unet.data.classes import CLASSES
from r2unet.data.sample import Sample
from r2unet.diagnosis.evaluate import Diagnoses
from r2unet.prediction.predict import Prediction
from r2unet.scores.metrics import Confusion, summarize
from r2unet.study.plan import Plan
from r2unet.study.studies import STUDIES, Variant
from r2unet.training.settings import Settings

TYPES = CLASSES["types-3"]
# 12 images of 8 lesions: four lesions have two images. Each class has 4 images.
LESIONS = ["a", "a", "b", "b", "c", "c", "d", "d", "e", "f", "g", "h"]
LABELS = np.array([0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2])


def new_plan(tasks: dict[str, str], seeds: Sequence[int] = (0, 1), data: str | None = "isic") -> Plan:
    """A study of rows with these labels and tasks. Their epochs differ, or equal rows would be joined."""
    variants = [Variant(label, {"task": t, "epochs": i}) for i, (label, t) in enumerate(tasks.items(), 1)]
    shared = Settings(data=data, size=16, widths=(2, 4))
    return Plan(STUDIES["own"]._replace(variants=tuple(variants)), shared, tuple(seeds))


def write_run(folder: Path, report: dict, history: Sequence[dict[str, float]]) -> None:
    """Write the files of a finished run that the report of a study reads."""
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(report))
    lines = [",".join(history[0]), *(",".join(map(str, row.values())) for row in history)]
    (folder / "history.csv").write_text("\n".join(lines))
    (folder / "seconds.csv").write_text("epoch,seconds\n1,2.0\n")


def outline_report(shares: Sequence[float]) -> dict:
    """The report on outlines of images of 100 pixels: these shares of their 50 lesion pixels are found."""
    found = [round(50 * share) for share in shares]
    scores = {
        name: summarize([Confusion(n, 50, 0, 50 - n) for n in counts], np.random.default_rng(0))
        for name, counts in {"model": found, "Otsu's threshold": [10] * len(found)}.items()
    }
    scores["model"]["jaccard_by_image"] = {f"image {i}": n / 50 for i, n in enumerate(found)}
    return scores


def diagnosis_report(
    probabilities: np.ndarray, labels: np.ndarray = LABELS, lesions: Sequence[str] = LESIONS
) -> dict:
    """The report on the diagnoses of N images: probabilities (N, 3), labels (N,), N lesions."""
    diagnoses = Diagnoses(TYPES, 16, {"shares": [0.2, 0.2, 0.6]})
    blank = np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16), np.uint8)
    answers = [
        (Sample(*blank, f"image {i:02}", TYPES[label], lesion), Prediction(None, p))
        for i, (label, lesion, p) in enumerate(zip(labels, lesions, probabilities, strict=True))
    ]
    assert len(list(diagnoses.collected(answers))) == len(labels)
    return {"diagnosis": diagnoses.report(np.random.default_rng(0))}


def random_probabilities(seed: int, skill: float = 1.0, labels: np.ndarray = LABELS) -> np.ndarray:
    """Probabilities (N, 3) of a network that favours the true class by `skill`."""
    logits = np.random.default_rng(seed).normal(size=(len(labels), 3)) + skill * np.eye(3)[labels]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

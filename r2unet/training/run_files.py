"""Reads the files of a finished run, and checks every number in them: a study's table must not hide damage.

A file that does not contain what this program writes raises one of `checkpoints.CONTENT_ERRORS`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from r2unet.files import read_json, read_rows
from r2unet.scores.metrics import METRICS

# Which answers of the network the report on a run of each task has scores of.
PARTS = {"outline": {"model"}, "diagnosis": {"diagnosis"}, "both": {"model", "diagnosis"}}


def read_report(path: Path) -> dict[str, dict[str, Any]]:
    """Read the scores of the network and of the baselines; what is known of masks is checked."""
    report = read_json(path)
    if not isinstance(report, dict):
        raise ValueError("it has no scores by name")
    for name, scores in report.items():
        if name == "diagnosis":
            continue
        _check_shares(f"{name}: mean", [scores["mean"][metric] for metric in METRICS])
        _check_shares(f"{name}: pooled", scores["pooled"].values())
    if "model" in report:
        by_image = report["model"]["jaccard_by_image"]
        _check_shares("jaccard_by_image", by_image.values())
        if not by_image or report["model"]["images"] != len(by_image):
            raise ValueError(f"the number of images is not {len(by_image)}")
    return report


def check_parts(report: dict[str, Any], task: str) -> None:
    """Raise ValueError unless a report has the scores of all answers of this task, and of no others."""
    if PARTS["both"] & report.keys() != PARTS[task]:
        raise ValueError(f"its scores are not those of the task {task}")


def check_diagnoses(scores: dict[str, Any] | None) -> None:
    """Raise one of CONTENT_ERRORS unless each image has probabilities of all classes, one of them true."""
    if scores is None:  # no image has a class
        return
    if not isinstance(scores, dict) or not {"types", "by_image"} <= scores.keys():
        raise ValueError("diagnosis: it has no scores by class and by image")
    classes = scores["types"]["model"]["classes"]
    for name, answer in scores["by_image"].items():
        # A sum over classes, as for malignant, can be larger than 1 by rounding.
        _check_shares(name, [p / 1.001 for p in answer["probabilities"]])
        if answer["class"] not in classes or len(answer["probabilities"]) != len(classes):
            raise ValueError(f"{name}: its diagnosis is not one of {len(classes)} classes")


def read_history(path: Path) -> list[dict[str, float]]:
    """Read the scores of every epoch."""
    (_, header), *lines = read_rows(path) or [(0, [])]
    if not lines:
        raise ValueError("it has no epochs")
    rows = [dict(zip(header, map(float, line), strict=True)) for _, line in lines]
    if [row["epoch"] for row in rows] != list(range(1, len(rows) + 1)):
        raise ValueError("its epochs are not 1, 2, 3, ...")
    if not all(math.isfinite(value) for row in rows for value in row.values()):
        raise ValueError("a score is not a finite number")
    return rows


def read_modes(path: Path) -> dict[str, float]:
    """Read how much train mode and eval mode differ."""
    modes = read_json(path)
    _check_shares("Jaccard", [modes["jaccard_train_mode"], modes["jaccard_eval_mode"]])
    if not all(type(value) in (int, float) for value in modes.values()):
        raise ValueError("a value is not a number")
    return modes


def _check_shares(name: str, values: Any) -> None:
    """Raise ValueError unless all values are numbers from 0 to 1, which NaN is not."""
    if not all(type(value) in (int, float) and 0 <= value <= 1 for value in values):
        raise ValueError(f"{name}: a score is not a number from 0 to 1")

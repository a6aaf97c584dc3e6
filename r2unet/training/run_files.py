"""Reads the files of a finished run, and checks every number in them: a study's table must not hide damage.

A file that does not contain what this program writes raises one of `checkpoints.CONTENT_ERRORS`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from r2unet.files import read_json, read_rows
from r2unet.scores.metrics import METRICS


def read_report(path: Path) -> dict[str, dict[str, Any]]:
    """Read the scores of the network and of the baselines; what is known of masks is checked."""
    report = read_json(path)
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


def read_history(path: Path) -> list[dict[str, float]]:
    """Read the scores of every epoch."""
    (_, header), *lines = read_rows(path)
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

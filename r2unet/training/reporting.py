"""The output of a training run: progress bar, a line per epoch, and the tables and figures in its folder."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from r2unet.data.classes import CLASSES
from r2unet.data.sample import Sample
from r2unet.diagnosis.evaluate import Diagnoses, plot_diagnoses
from r2unet.files import write_text
from r2unet.scores.evaluate import report as score_report
from r2unet.scores.overlays import plot_overlays
from r2unet.scores.predictions import answer_samples, outlines
from r2unet.scores.ranking import best_to_worst_rows
from r2unet.training.calibrate import correction
from r2unet.training.checkpoints import load_model
from r2unet.training.curves import plot_curves
from r2unet.training.run_folder import BEST, HISTORY, REPORT
from r2unet.training.settings import Settings


def progress_bar(settings: Settings, images: int, epochs_done: int, batches_done: int, show: bool) -> Any:
    """Return a tqdm bar on stderr that counts images: it shows the loss, images per second and time left."""
    from tqdm import tqdm

    return tqdm(
        total=images * settings.epochs,
        initial=images * epochs_done + min(batches_done * settings.batch_size, images),
        unit=" images",
        disable=not show,
        dynamic_ncols=True,
        mininterval=0.5,
    )


def epoch_line(row: dict[str, float], epochs: int, seconds: float, best: bool) -> str:
    """Return the line that is printed after an epoch."""
    titles = {"jaccard": "Jaccard", "dice": "Dice", "auc": "AUC"}
    scores = "".join(
        f"  {title} {row[f'validation_{name}']:.4f}"
        for name, title in titles.items()
        if f"validation_{name}" in row
    )
    return (
        f"epoch {row['epoch']:3}/{epochs}  loss {row['train_loss']:.4f}  validation: loss "
        f"{row['validation_loss']:.4f}{scores}  {seconds:.0f} s{'  best' if best else ''}"
    )


def write_history(out: Path, history: list[dict[str, float]]) -> None:
    """Write history.csv and curves.png. Raises InputError if they cannot be written."""
    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=list(history[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(history)
    write_text(out / HISTORY, text.getvalue())
    plot_curves(history, out / "curves.png")


def write_report(
    out: Path, validation: Sequence[Sample], mean_mask: np.ndarray, device: str
) -> dict[str, Any]:
    """Score best.npz on the validation set at the training size; write report.json and figures.

    Returns the report: the scores of `scores.evaluate`, and as "diagnosis" those of `diagnosis.evaluate`.
    """
    model, settings, state = load_model(out / BEST)
    rng = np.random.default_rng(settings.seed)
    fix = correction(state, tta=False)
    answers = answer_samples(model.to(device), validation, settings.batch_size, device, correction=fix)
    report = {}
    if settings.task != "outline":
        entry = state.get("diagnosis")
        diagnoses = Diagnoses(CLASSES[settings.classes], settings.size, entry, fix.temperature)
        answers = list(diagnoses.collected(answers))
        report["diagnosis"] = diagnoses.report(rng)
        plot_diagnoses(report["diagnosis"], out)
    if settings.task != "diagnosis":
        predictions = list(outlines(answers))
        report |= score_report(predictions, mean_mask, rng)
        plot_overlays(best_to_worst_rows(predictions, count=6), out / "overlays.png")
    write_text(out / REPORT, json.dumps(report, indent=2))
    return report

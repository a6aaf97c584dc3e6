"""Which predictions to draw: images chosen by their Jaccard."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from r2unet.prediction.predict import THRESHOLD
from r2unet.scores.metrics import confusion, jaccard
from r2unet.scores.overlays import OverlayRow, shrink
from r2unet.scores.predictions import Outlined


def best_to_worst(jaccards: dict[str, float], count: int) -> list[str]:
    """Choose names at equal distances of rank, from the best Jaccard to the worst: a fair sample."""
    ranked = _ranked(jaccards)
    chosen = np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int)
    return [ranked[i] for i in chosen]


def worst(jaccards: dict[str, float], count: int) -> list[str]:
    """Choose the names with the lowest Jaccards, the worst last."""
    return _ranked(jaccards)[-count:]


def best_to_worst_rows(predictions: Iterable[Outlined], count: int) -> list[OverlayRow]:
    """Choose predictions with `best_to_worst` and return them as rows for `overlays.plot_overlays`."""
    rows = {}
    for sample, probability in predictions:
        score = float(jaccard(confusion(probability > THRESHOLD, sample.mask)))
        rows[sample.name] = shrink(OverlayRow(sample.image, sample.mask, probability, sample.name, score))
    return [rows[name] for name in best_to_worst({name: row.jaccard for name, row in rows.items()}, count)]


def _ranked(jaccards: dict[str, float]) -> list[str]:
    return sorted(jaccards, key=lambda name: -jaccards[name])

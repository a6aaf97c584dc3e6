"""The scores of a trained network, next to those of the trivial baselines.

A score alone says nothing: on ISIC, a program that predicts "all background" has an accuracy above 0.8. So
every report scores the model and the baselines on the same images with the same code.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from r2unet.data.sample import Sample
from r2unet.prediction.predict import THRESHOLD
from r2unet.scores.baselines import Baseline, all_baselines
from r2unet.scores.metrics import Confusion, confusion, jaccard, summarize
from r2unet.scores.predictions import Outlined

COLUMNS = {
    "jaccard": "Jaccard",
    "thresholded_jaccard": "thr. J",
    "dice": "Dice",
    "accuracy": "accuracy",
    "sensitivity": "sensit.",
    "specificity": "specif.",
}


class ImageScores(NamedTuple):
    """The pixel counts of the model's mask and of each baseline's mask on one image, by predictor."""

    name: str  # of the image
    counts: dict[str, Confusion]


def score_image(sample: Sample, probability: np.ndarray, baselines: dict[str, Baseline]) -> ImageScores:
    """Score what was predicted for an image, (H, W) in [0, 1], and the baselines."""
    counts = {"model": confusion(probability > THRESHOLD, sample.mask)}
    for name, baseline in baselines.items():
        counts[name] = confusion(baseline(sample.image), sample.mask)
    return ImageScores(sample.name, counts)


def summarize_images(scores: Sequence[ImageScores], rng: np.random.Generator) -> dict[str, dict[str, Any]]:
    """Summarize the scores of all images, as `report` does."""
    counts = {name: [score.counts[name] for score in scores] for name in scores[0].counts}
    report = {name: summarize(confusions, rng) for name, confusions in counts.items()}
    report["model"]["jaccard_by_image"] = {
        score.name: float(jaccard(score.counts["model"])) for score in scores
    }
    return report


def report(
    predictions: Iterable[Outlined], mean_mask: np.ndarray | None, rng: np.random.Generator
) -> dict[str, dict[str, Any]]:
    """Score the model and the baselines on the same images: {name: scores of `metrics.summarize`}.

    The model's scores include "jaccard_by_image", {name: Jaccard}: a mean hides which images fail. Without a
    `mean_mask` that baseline is left out.
    """
    baselines = all_baselines(mean_mask)
    return summarize_images([score_image(*outlined, baselines) for outlined in predictions], rng)


def baseline_warnings(scores: dict[str, dict[str, Any]]) -> list[str]:
    """Return a warning for each baseline that the model does not beat in mean Jaccard."""
    return not_beaten("mean Jaccard", {name: score["mean"]["jaccard"] for name, score in scores.items()})


def not_beaten(metric: str, values: dict[str, float]) -> list[str]:
    """Return a warning for each baseline that the model does not beat: {name: value of the metric}."""
    return [
        f"warning: the model's {metric} {values['model']:.4f} does not beat {name} ({value:.4f})"
        for name, value in values.items()
        if name != "model" and values["model"] <= value
    ]


def as_table(scores: dict[str, dict[str, Any]]) -> str:
    """Format scores as text, one row per predictor: means over images, then scores pooled over pixels."""
    head = f"{'':18}" + "".join(f"{title:>10}" for title in COLUMNS.values()) + "    95 % of Jaccard"
    lines = [f"mean over {next(iter(scores.values()))['images']} images", head]
    for name, score in scores.items():
        low, high = score["jaccard_interval"]
        lines.append(f"{name:18}{_cells(score['mean'])}    {low:.4f} to {high:.4f}")
    lines.append("pooled over all pixels")
    lines += [f"{name:18}{_cells(score['pooled'])}".rstrip() for name, score in scores.items()]
    return "\n".join(lines)


def _cells(values: dict[str, float]) -> str:
    return "".join(f"{values[name]:10.4f}" if name in values else " " * 10 for name in COLUMNS)

"""Scores of a trained network, beside what it must beat.

A score alone says nothing: on ISIC, a program that answers "all background" has an accuracy above 0.8. So
every report holds the model and the trivial baselines, judged on the same images by the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from minidl import Tensor, no_grad
from minidl.backend import Array, to_device, to_numpy
from minidl.data import DataLoader
from minidl.nn import BatchNorm2d
from r2unet.data.isic import Pair, read_pair
from r2unet.data.sample import Sample, collate
from r2unet.network.model import UShape
from r2unet.plots import OverlayRow
from r2unet.prediction.clean_up import clean_up
from r2unet.prediction.predict import THRESHOLD, predict_image, probabilities
from r2unet.scores import baselines
from r2unet.scores.metrics import Confusion, confusion, jaccard, summarize

Prediction = tuple[Sample, np.ndarray]  # and the lesion probability of its pixels, (H, W) float32


def predict_samples(
    model: UShape, dataset: Sequence[Sample], batch_size: int, device: str = "cpu", tta: bool = False
) -> Iterator[Prediction]:
    """Yield every sample with the lesion probability of its pixels, (H, W) float32."""
    for samples in DataLoader(dataset, batch_size):
        pictures = [s.image for s in samples]
        yield from zip(samples, probabilities(model, pictures, device, tta), strict=True)


def predict_originals(
    model: UShape, pairs: Iterable[Pair], size: int, device: str = "cpu", tta: bool = False
) -> Iterator[Prediction]:
    """Yield every pair of files as a sample of the *original* size, with its probability, (H, W) float32.

    The official scoring compares masks of the original size, so the small prediction is stretched back.
    """
    for pair in pairs:
        sample = read_pair(pair)
        yield sample, predict_image(model, sample.image, size, device, tta)


def cleaned_up(predictions: Iterable[Prediction]) -> Iterator[Prediction]:
    """Yield every sample with the mask of its one lesion without holes, (H, W) uint8, as its probability."""
    for sample, probability in predictions:
        yield sample, clean_up(probability > THRESHOLD)


def report(
    predictions: Iterable[Prediction], mean_mask: np.ndarray | None, rng: np.random.Generator
) -> dict[str, dict[str, Any]]:
    """Summarise the model and the baselines on the same images, by name; see `metrics.summarize`.

    The model's entry also holds "jaccard_by_image", {name: Jaccard}: a mean hides which images fail.
    """
    guesses: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "all background": baselines.all_background,
        "Otsu's threshold": baselines.otsu,
    }
    if mean_mask is not None:
        guesses["mean mask"] = baselines.MeanMask(mean_mask)
    counts: dict[str, list[Confusion]] = {name: [] for name in ("model", *guesses)}
    by_image: dict[str, float] = {}
    for sample, probability in predictions:
        counts["model"].append(confusion(probability > THRESHOLD, sample.mask))
        by_image[sample.name] = float(jaccard(counts["model"][-1]))
        for name, guess in guesses.items():
            counts[name].append(confusion(guess(sample.image), sample.mask))
    scores = {name: summarize(each, rng) for name, each in counts.items()}
    scores["model"]["jaccard_by_image"] = by_image
    return scores


def warnings(scores: dict[str, dict[str, Any]]) -> list[str]:
    """Say of each trivial baseline that the model does not beat it, in mean Jaccard."""
    means = {name: score["mean"]["jaccard"] for name, score in scores.items()}
    return [
        f"warning: the model's mean Jaccard {means['model']:.4f} does not beat {name} ({value:.4f})"
        for name, value in means.items()
        if name != "model" and means["model"] <= value
    ]


def as_table(scores: dict[str, dict[str, Any]]) -> str:
    """Lay scores out as text, a row a predictor: means over images, then values pooled over pixels."""
    columns = {
        "jaccard": "Jaccard",
        "thresholded_jaccard": "thr. J",
        "dice": "Dice",
        "accuracy": "accuracy",
        "sensitivity": "sensit.",
        "specificity": "specif.",
    }
    head = f"{'':18}" + "".join(f"{title:>10}" for title in columns.values()) + "    95 % of Jaccard"
    lines = [f"mean over {next(iter(scores.values()))['images']} images", head]
    for name, score in scores.items():
        low, high = score["jaccard_interval"]
        cells = "".join(f"{score['mean'][key]:10.4f}" for key in columns)
        lines.append(f"{name:18}{cells}    {low:.4f} to {high:.4f}")
    lines.append("pooled over all pixels")
    for name, score in scores.items():
        cells = "".join(
            f"{score['pooled'][key]:10.4f}" if key in score["pooled"] else " " * 10 for key in columns
        )
        lines.append(f"{name:18}{cells}".rstrip())
    return "\n".join(lines)


def evenly_ranked(jaccards: dict[str, float], rows: int) -> list[str]:
    """Pick names from the best Jaccard to the worst at even distances: an honest look, not the prettiest."""
    ranked = sorted(jaccards, key=lambda name: -jaccards[name])
    chosen = np.linspace(0, len(ranked) - 1, min(rows, len(ranked))).round().astype(int)
    return [ranked[i] for i in chosen]


def worst(jaccards: dict[str, float], rows: int) -> list[str]:
    """Pick the names with the lowest Jaccards, the worst last: what is left to learn."""
    return sorted(jaccards, key=lambda name: -jaccards[name])[-rows:]


def from_best_to_worst(predictions: Iterable[Prediction], rows: int) -> list[OverlayRow]:
    """Choose predictions by `evenly_ranked`, as `plots.plot_overlays` takes them."""
    scored = {}
    for s, p in predictions:
        score = float(jaccard(confusion(p > THRESHOLD, s.mask)))
        scored[s.name] = OverlayRow(s.image, s.mask, p, s.name, score)
    return [scored[name] for name in evenly_ranked({n: row.jaccard for n, row in scored.items()}, rows)]


def compare_modes(model: UShape, dataset: Sequence[Sample], batch_size: int) -> dict[str, float]:
    """Run the same batches in train mode and in eval mode, and tell how far the two are apart.

    Train mode normalises with each batch's own statistics, eval mode with running ones. They may differ for
    two reasons, told apart here as the root mean square of the logits' difference over that of the logits:
    "relative_rms" also holds how far a few images are from all those of the training; for
    "relative_rms_settled" the running statistics are those of the very batch, so that nothing but the mode
    differs, and it must be near zero. The mean Jaccard is given for both modes. The model is left as it was.
    """
    kept = model.state_dict()
    norms = [m for _, m in model.named_modules() if isinstance(m, BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    squares = {"trained": 0.0, "settled": 0.0, "all": 0.0}
    counts: dict[str, list[Confusion]] = {"train": [], "trained": []}
    for batch in DataLoader(dataset, batch_size, collate=collate):
        x, truths = to_device(batch.images, model.head.weight.device), batch.masks > 0.5
        logits = {"trained": _logits(model.eval(), x)}
        for norm in norms:
            norm.momentum = 1.0  # the next batch replaces what was remembered
        logits["train"] = _logits(model.train(), x)
        logits["settled"] = _logits(model.eval(), x)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.load_state_dict(kept)
        squares["all"] += float(np.square(logits["train"]).sum())
        for name in ("trained", "settled"):
            squares[name] += float(np.square(logits[name] - logits["train"]).sum())
        for name, each in counts.items():
            each += [confusion(*pair) for pair in zip(logits[name] > 0.0, truths, strict=True)]
    rng = np.random.default_rng(0)
    return {
        "relative_rms": (squares["trained"] / squares["all"]) ** 0.5,
        "relative_rms_settled": (squares["settled"] / squares["all"]) ** 0.5,
        "jaccard_train_mode": summarize(counts["train"], rng)["mean"]["jaccard"],
        "jaccard_eval_mode": summarize(counts["trained"], rng)["mean"]["jaccard"],
    }


def _logits(model: UShape, x: Array) -> np.ndarray:
    """Return the logits in float64, in which squares are summed without loss."""
    with no_grad():
        return to_numpy(model(Tensor(x)).data).astype(np.float64)

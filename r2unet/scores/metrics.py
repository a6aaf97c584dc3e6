"""Metrics of a predicted mask, all computed from the four counts of its confusion matrix.

Compare the predicted mask with the true mask pixel by pixel and count

    TP  lesion predicted as lesion    FP  skin predicted as lesion
    FN  lesion predicted as skin      TN  skin predicted as skin

    accuracy     = (TP + TN) / (TP + TN + FP + FN)
    sensitivity  = TP / (TP + FN)             the share of the lesion that was found
    specificity  = TN / (TN + FP)             the share of the skin that was recognised as skin
    Jaccard   J  = TP / (TP + FP + FN)        intersection over union
    Dice      D  = 2 TP / (2 TP + FP + FN)    the F1 score of the pixels
    thresholded Jaccard = J if J >= 0.65, else 0

These are the definitions of the official ISIC tool (isic-challenge-scoring: confusion.py, metrics.py,
segmentation.py), including its special cases. A ratio with a denominator of zero is undefined and counts
as 1: sensitivity where there is no lesion, specificity where there is no skin, J and D where both masks are
empty.

**Accuracy alone says nothing.** On average a lesion fills a fifth of a dermoscopy image or less. Predicting
"all background" is therefore right for 0.80-0.83 of the pixels of ISIC, with J = 0. TN, the skin that every
predictor gets right, appears in neither J nor D. That is why J and D are the scores to read.

**J and D rank the predictions of one image in the same order**, because each is a function of the other:

    D / (2 - D) = 2 TP / (2 (2 TP + FP + FN) - 2 TP) = TP / (TP + FP + FN) = J

The function is convex, so by Jensen's inequality a mean of J over images is at least D / (2 - D) of the
mean D. A table with a lower J than that, or with a J equal to its accuracy, has measured something else.

**Mean and pooled scores differ.** The mean scores each image and then averages. Every image has the same
weight, and missing a small lesion costs as much as missing a large one. The challenge ranks by this number.
A pooled score adds the counts of all images first and is computed once. Every pixel has the same weight, so
large lesions and large images dominate. A pooled J far above the mean shows that small lesions are missed.
Thresholded Jaccard decides for each image whether its outline is usable, so it has no pooled version.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

USABLE_JACCARD = 0.65  # ISIC 2018: an outline below this counts as a failure


class Confusion(NamedTuple):
    """The four pixel counts of one image (int64 scalars), or of several images (int64 arrays (images,))."""

    tp: np.ndarray | np.int64
    tn: np.ndarray | np.int64
    fp: np.ndarray | np.int64
    fn: np.ndarray | np.int64


def confusion(prediction: np.ndarray, truth: np.ndarray) -> Confusion:
    """Count the pixels of one image: two masks (H, W) of booleans or integers 0 and 1 -> four int64 scalars.

    Raises ValueError for unequal shapes, empty masks, or other values. Probabilities are refused, because
    the threshold is the caller's decision and should be visible there.
    """
    if prediction.shape != truth.shape or prediction.size == 0:
        raise ValueError(
            f"confusion: prediction {prediction.shape} and truth {truth.shape} must be masks of the same "
            "image, with equal shapes and at least one pixel"
        )
    predicted_lesion = _as_boolean(prediction, "prediction")
    true_lesion = _as_boolean(truth, "truth")
    # Three counts give all four cells without negating a mask.
    tp = np.int64(np.count_nonzero(predicted_lesion & true_lesion))
    fp = np.int64(np.count_nonzero(predicted_lesion)) - tp
    fn = np.int64(np.count_nonzero(true_lesion)) - tp
    return Confusion(tp=tp, tn=np.int64(truth.size) - tp - fp - fn, fp=fp, fn=fn)


def _as_boolean(mask: np.ndarray, name: str) -> np.ndarray:
    if mask.dtype == np.bool_:
        return mask
    if not np.issubdtype(mask.dtype, np.integer) or mask.min() < 0 or mask.max() > 1:
        raise ValueError(
            f"confusion: {name} {mask.shape} {mask.dtype} must be booleans or integers 0 and 1, "
            f"but holds {mask.min()} to {mask.max()}; threshold it first"
        )
    return mask.astype(np.bool_)


def accuracy(counts: Confusion) -> np.ndarray | np.float64:
    """Share of all pixels that are right, in [0, 1]; high even for useless predictions of small lesions."""
    return _ratio(counts.tp + counts.tn, counts.tp + counts.tn + counts.fp + counts.fn)


def sensitivity(counts: Confusion) -> np.ndarray | np.float64:
    """Share of the lesion's pixels that were found, in [0, 1]; 1 where there is no lesion."""
    return _ratio(counts.tp, counts.tp + counts.fn)


def specificity(counts: Confusion) -> np.ndarray | np.float64:
    """Share of the skin's pixels that were recognised as skin, in [0, 1]; 1 where there is no skin."""
    return _ratio(counts.tn, counts.tn + counts.fp)


def jaccard(counts: Confusion) -> np.ndarray | np.float64:
    """Intersection over union of the two lesions, in [0, 1]; 1 where both masks are empty (Jaccard 1912)."""
    return _ratio(counts.tp, counts.tp + counts.fp + counts.fn)


def dice(counts: Confusion) -> np.ndarray | np.float64:
    """Intersection over the mean of the two areas, in [0, 1]; 1 where both masks are empty (Dice 1945)."""
    return _ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn)


def thresholded_jaccard(counts: Confusion) -> np.ndarray | np.float64:
    """Jaccard, but 0 below 0.65, because an outline that poor is useless (ISIC 2018, task 1)."""
    score = jaccard(counts)
    return np.where(score >= USABLE_JACCARD, score, 0.0)[()]


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray | np.float64:
    # The trailing [()] turns the 0-d array of a single image into a scalar and leaves (images,) as it is.
    ones = np.ones(np.shape(denominator))
    return np.divide(numerator, denominator, out=ones, where=denominator != 0)[()]


METRICS = {
    "jaccard": jaccard,
    "dice": dice,
    "thresholded_jaccard": thresholded_jaccard,
    "accuracy": accuracy,
    "sensitivity": sensitivity,
    "specificity": specificity,
}


def stack(confusions: Sequence[Confusion]) -> Confusion:
    """Join the counts of single images into one Confusion of arrays (images,), scored in one call."""
    tp, tn, fp, fn = np.array(confusions, dtype=np.int64).reshape(-1, 4).T  # (images, 4) -> 4 x (images,)
    return Confusion(tp=tp, tn=tn, fp=fp, fn=fn)


def summarize(confusions: Sequence[Confusion] | Confusion, rng: np.random.Generator) -> dict:
    """Score a data set from the counts of its images and return a dictionary that JSON can store.

    Its keys are "images" (their number), "mean" {metric: float} over images, "pooled" {metric: float} over
    pixels, and "jaccard_interval" [low, high] around the mean Jaccard. Raises ValueError without images.
    """
    counts = confusions if isinstance(confusions, Confusion) else stack(confusions)
    images = np.size(counts.tp)
    if images == 0:
        raise ValueError("summarize: there are no images to score")
    pooled = Confusion(*(np.sum(cell) for cell in counts))  # (images,) -> scalar, four times
    return {
        "images": images,
        "mean": {name: float(np.mean(metric(counts))) for name, metric in METRICS.items()},
        "pooled": {
            name: float(metric(pooled))
            for name, metric in METRICS.items()
            if metric is not thresholded_jaccard
        },
        "jaccard_interval": bootstrap_interval(np.atleast_1d(jaccard(counts)), rng),
    }


def bootstrap_interval(
    values: np.ndarray, rng: np.random.Generator, resamples: int = 2000, level: float = 0.95
) -> list[float]:
    """Percentile bootstrap interval [low, high] for the mean of values (n,) (Efron 1979).

    Draws n images with replacement, `resamples` times, and spans the middle `level` of their means. It
    estimates how much the mean would vary with other images, not with other training seeds. Two models whose
    intervals overlap may still differ on the same images.
    """
    chosen = rng.integers(0, len(values), size=(resamples, len(values)))  # (resamples, n) indices
    means = values[chosen].mean(axis=1)  # (resamples, n) -> (resamples,)
    tail = (1 - level) / 2
    return [float(bound) for bound in np.quantile(means, (tail, 1 - tail))]

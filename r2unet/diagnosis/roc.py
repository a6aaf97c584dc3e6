"""How well a score separates one class from the rest: ROC curve, AUC, average precision, operating points.

Call an image positive if its score is at least a threshold t. With P positive and N negative images,

    TP(t), FP(t)    positives, negatives with a score >= t
    sensitivity TPR = TP / P      specificity 1 - FPR, with FPR = FP / N      precision TP / (TP + FP)

Lowering t from infinity past every score draws the ROC curve (FPR, TPR), from (0, 0) to (1, 1).

**The area under it is AUC = P(score of a positive > score of a negative).** Let all scores differ. The curve
moves to the right, by 1 / N, only when t passes a negative. Its height there is the share of the positives
that score higher than this negative. The area is the sum of these rectangles:

    AUC = 1 / N  sum over negatives n of  #{positives p: s_p > s_n} / P  =  #{(p, n): s_p > s_n} / (P N)

Images with equal scores enter together, as one oblique segment. The trapezoid below it counts half of their
pairs, so a tie counts one half. This is the statistic U / (P N) of Mann and Whitney (1947), usually computed
from ranks: U is the sum of the positives' ranks minus P (P + 1) / 2. One sort gives both forms. AUC depends
neither on how many images are positive nor on any increasing function that is applied to the scores.

**Average precision** weights the precision at every threshold by the gain in recall, TPR:

    AP = sum over m of (TPR_m - TPR_(m-1)) precision_m          (scikit-learn's definition)

It does not interpolate between thresholds. A random score has an AP of about P / (P + N) and an AUC of 1/2,
so AP is the stricter of the two for a rare class.

**Undefined values.** A class without positives or without negatives has no AUC: there are no pairs. It has no
AP either: without negatives AP is 1 for every score. Both are nan, as are the operating points, and callers
leave nan out of means.

**Weights.** An image of weight w counts as w images. Weights (R, N) compute R results at once. This makes
a bootstrap fast: a resample is a weight for each image, and one sort serves many resamples.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

ROUNDING = 1e-9  # relative; a specificity of 0.9 is reached by 27 of 30, however 0.9 * 30 is rounded


class RocCounts(NamedTuple):
    """True and false positives at every threshold, from infinity (no image) to the lowest score (all)."""

    thresholds: np.ndarray  # (M,) decreasing: infinity, then every distinct score
    tp: np.ndarray  # (..., M) increasing, from 0 to P
    fp: np.ndarray  # (..., M) increasing, from 0 to N

    @property
    def positives(self) -> np.ndarray:
        """The weight of the positive images, (...)."""
        return self.tp[..., -1]

    @property
    def negatives(self) -> np.ndarray:
        """The weight of the negative images, (...)."""
        return self.fp[..., -1]


def roc_counts(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray | None = None) -> RocCounts:
    """Count positives and negatives above every threshold: scores (N,), positive (N,) bool, weights (..., N).

    Without weights every image counts once. Raises ValueError for other shapes, no images, or a score that
    is not a number.
    """
    weights = np.ones(len(scores)) if weights is None else np.asarray(weights, dtype=np.float64)
    if scores.ndim != 1 or positive.shape != scores.shape or weights.shape[-1:] != scores.shape:
        raise ValueError(
            f"roc_counts: scores {scores.shape}, positive {positive.shape} and weights {weights.shape} must "
            "be (N,), (N,) and (..., N)"
        )
    if scores.size == 0 or np.isnan(scores).any():
        raise ValueError("roc_counts: every image needs a score that is a number, and there must be an image")
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))  # (M - 1,) the last of equal scores
    both = weights[..., order]  # (..., N)
    tp = np.cumsum(both * positive[order], axis=-1)[..., last]  # (..., N) -> (..., M - 1)
    fp = np.cumsum(both * ~positive[order].astype(bool), axis=-1)[..., last]
    start = np.zeros((*weights.shape[:-1], 1))
    return RocCounts(
        np.append(np.inf, ordered[last]),
        np.concatenate((start, tp), axis=-1),
        np.concatenate((start, fp), axis=-1),
    )


def roc_curve(counts: RocCounts) -> tuple[np.ndarray, np.ndarray]:
    """Return FPR and TPR (..., M) at `counts.thresholds`; nan without negatives or without positives."""
    return (
        ratio(counts.fp, counts.negatives[..., np.newaxis]),
        ratio(counts.tp, counts.positives[..., np.newaxis]),
    )


def auc(counts: RocCounts) -> np.ndarray:
    """Area under the ROC curve, (...) in [0, 1]: 1/2 for a random score, nan if only one class occurs."""
    heights = (counts.tp[..., 1:] + counts.tp[..., :-1]) / 2  # a tie counts one half
    pairs = np.sum(np.diff(counts.fp, axis=-1) * heights, axis=-1)
    return ratio(pairs, counts.positives * counts.negatives)


def average_precision(counts: RocCounts) -> np.ndarray:
    """Mean precision, weighted by the gain in recall, (...) in [0, 1]; nan if only one class occurs.

    Equal to scikit-learn's average_precision_score where both classes occur.
    """
    tp, fp = counts.tp[..., 1:], counts.fp[..., 1:]
    # Where a resample has no image above a threshold, precision is 0 / 0, and its gain in recall is 0.
    precision = np.divide(tp, tp + fp, out=np.zeros_like(tp), where=tp + fp > 0)
    total = np.sum(np.diff(counts.tp, axis=-1) * precision, axis=-1)
    return _where_both(counts, ratio(total, counts.positives))


def sensitivity_at(counts: RocCounts, specificity: float) -> np.ndarray:
    """Sensitivity at the lowest threshold whose specificity is at least the one given, (...) in [0, 1].

    The threshold is one of the scores, or infinity (sensitivity 0) if no score reaches the specificity: the
    curve is not interpolated. It is chosen on the images that are scored, so the result is slightly
    optimistic for other images. nan if only one class occurs.
    """
    allowed = (1 - specificity) * counts.negatives + ROUNDING * counts.negatives
    # TP grows as the threshold falls, so the largest TP is the one at the lowest threshold.
    tp = np.where(counts.fp <= allowed[..., np.newaxis], counts.tp, 0.0).max(axis=-1)
    return _where_both(counts, ratio(tp, counts.positives))


def specificity_at(counts: RocCounts, sensitivity: float) -> np.ndarray:
    """Specificity at the highest threshold whose sensitivity is at least the one given, (...) in [0, 1].

    The conventions are those of `sensitivity_at`. The lowest score always reaches the sensitivity.
    """
    needed = sensitivity * counts.positives - ROUNDING * counts.positives
    fp = np.where(counts.tp >= needed[..., np.newaxis], counts.fp, np.inf).min(axis=-1)
    return _where_both(counts, ratio(counts.negatives - fp, counts.negatives))


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide, and return nan, without a warning, where the denominator is 0."""
    shape = np.broadcast_shapes(np.shape(numerator), np.shape(denominator))
    return np.divide(numerator, denominator, out=np.full(shape, np.nan), where=np.asarray(denominator) != 0)


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Average over the last axis without nan: (..., K) -> (...); nan where no value is defined."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))


def _where_both(counts: RocCounts, values: np.ndarray) -> np.ndarray:
    return np.where((counts.positives > 0) & (counts.negatives > 0), values, np.nan)


def mean_auc(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean AUC of each class against the rest: probabilities (N, K), labels (N,), -1 for unknown.

    Classes without images, or to which all images belong, are left out; without any class left it is 0.
    """
    known = labels >= 0
    aucs = [auc(roc_counts(column, labels[known] == k)) for k, column in enumerate(probabilities[known].T)]
    mean = float(mean_of_defined(np.array(aucs))) if known.any() else np.nan
    return 0.0 if np.isnan(mean) else mean

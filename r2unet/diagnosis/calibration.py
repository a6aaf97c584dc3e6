"""Calibration: of the answers given with a confidence of 80 %, are 80 % right? And temperature scaling.

The confidence of an answer is the probability of its class, the largest of the K. Sort the answers by their
confidence into M bins of equal width. In every bin compare the accuracy with the mean confidence:

    ECE = sum over bins b of  n_b / n  |accuracy_b - confidence_b|        expected calibration error

A reliability diagram shows both by bin. A trained network is usually too confident: its training loss still
falls when right answers become more confident, even after its accuracy has stopped rising (Guo et al. 2017).
The ECE of few images is too high, because noise in the accuracy of a bin has an absolute value, too:
`errors_by_chance` says which ECE the same confidences would have if they were exactly right.

**Temperature scaling** (Guo et al. 2017, section 4.2) divides all logits z by one number T > 0. The answer,
the largest logit, stays the same. T > 1 lowers the confidence. T minimises the negative log likelihood on
images that did not train the network. With beta = 1 / T and p = softmax(beta z) it is, for one image of
class y,

    f(beta)   = log sum_k exp(beta z_k) - beta z_y
    f'(beta)  = sum_k p_k z_k - z_y               the mean logit under p, minus the logit of the truth
    f''(beta) = sum_k p_k z_k^2 - (sum_k p_k z_k)^2  >=  0         the variance of the logits under p

So f is convex in beta, and its mean over images has one minimum. Newton's method finds it: the step is
-f' / f''. A bracket [low, high] around the minimum, which the sign of f' narrows, catches steps that are too
long. There is no minimum if every image is classified correctly (T falls to 0), or if the logits are worse
than none (T grows without limit). Then the nearest end of [0.05, 20] is returned.

Besides ECE, two proper scores: each is best, in expectation, only for the true probabilities.

    negative log likelihood   mean of -log p_y
    Brier score               mean of sum_k (p_k - [k = y])^2, in [0, 2]        (Brier 1950)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from r2unet.diagnosis.roc import ratio

BINS = 15  # as in Guo et al.
LOWEST, HIGHEST = 0.05, 20.0  # the temperatures that are considered
SMALLEST = np.finfo(np.float64).eps  # a probability of 0 counts as this, so that one image is not infinite


class Reliability(NamedTuple):
    """The bins of a reliability diagram: bin b has the confidences in (b / M, (b + 1) / M]."""

    images: np.ndarray  # (..., M) their weight
    confidence: np.ndarray  # (..., M) mean, nan in an empty bin
    accuracy: np.ndarray  # (..., M) nan in an empty bin


def reliability(
    probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS, weights: np.ndarray | None = None
) -> Reliability:
    """Sort answers by confidence: probabilities (N, K), labels (N,), weights (..., N) -> bins (..., M)."""
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=np.float64)
    confidence = probabilities.max(axis=1)  # (N, K) -> (N,)
    right = probabilities.argmax(axis=1) == labels
    member = _members(confidence, bins)
    images = weights @ member  # (..., M)
    return Reliability(
        images,
        ratio(weights @ (member * confidence[:, np.newaxis]), images),
        ratio(weights @ (member * right[:, np.newaxis]), images),
    )


def expected_calibration_error(bins: Reliability) -> np.ndarray:
    """Mean distance between accuracy and confidence, weighted by the images of a bin: (..., M) -> (...)."""
    gaps = np.where(bins.images > 0, np.abs(bins.accuracy - bins.confidence), 0.0)
    return ratio(np.sum(bins.images * gaps, axis=-1), bins.images.sum(axis=-1))


def errors_by_chance(
    probabilities: np.ndarray, rng: np.random.Generator, draws: int = 1000, bins: int = BINS
) -> np.ndarray:
    """Return the expected calibration errors of perfectly calibrated answers: (N, K) -> (draws,).

    Each draw decides anew which answers are right, an answer of confidence c with probability c, for each
    image independently. An ECE below the largest of these errors is no evidence of a bad calibration.
    """
    confidence = probabilities.max(axis=1)  # (N, K) -> (N,)
    member = _members(confidence, bins)
    right = rng.random((draws, len(confidence))) < confidence
    gaps = np.abs((right - confidence) @ member)  # (draws, M): n_b |accuracy_b - confidence_b|
    return gaps.sum(axis=1) / len(confidence)


def negative_log_likelihood(
    probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Mean of -log p of the true class, in nats.

    probabilities (N, K), labels (N,), weights (..., N) -> (...)
    """
    true = probabilities[np.arange(len(labels)), labels]  # (N, K) -> (N,)
    return _mean(-np.log(np.maximum(true, SMALLEST)), weights)


def brier_score(
    probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Mean squared distance to the truth, in [0, 2].

    probabilities (N, K), labels (N,), weights (..., N) -> (...)
    """
    truth = np.eye(probabilities.shape[1])[labels]  # (N, K) one-hot
    return _mean(np.square(probabilities - truth).sum(axis=1), weights)


def apply_temperature(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Return softmax(logits / temperature), (N, K) float64.

    Log probabilities serve as logits, because the softmax ignores a constant that is added to a row.
    """
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))  # the largest is 1: no overflow
    return powers / powers.sum(axis=1, keepdims=True)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature in [0.05, 20] of the smallest negative log likelihood.

    logits (N, K), labels (N,) in 0..K-1 -> T

    Use images that did not train the network. Raises ValueError without images, or for logits that are not
    finite.
    """
    logits = np.asarray(logits, dtype=np.float64)
    if logits.ndim != 2 or len(logits) == 0 or len(logits) != len(labels) or not np.isfinite(logits).all():
        raise ValueError(
            f"fit_temperature: logits {logits.shape} of {len(labels)} labels must be (N, K), finite, N > 0"
        )
    low, high, beta = 1 / HIGHEST, 1 / LOWEST, 1.0
    for _ in range(100):  # about six steps suffice; bisection alone needs about fifty
        slope, curvature = _derivatives(logits, labels, beta)
        low, high = (low, beta) if slope > 0 else (beta, high)
        step = beta - slope / curvature if curvature > 0 else np.inf
        following = step if low <= step <= high else np.sqrt(low * high)
        if abs(following - beta) <= 1e-12 * beta:
            break
        beta = following
    return float(1 / beta)


def _members(confidence: np.ndarray, bins: int) -> np.ndarray:
    """Return the bin of each confidence, (N,) -> (N, M) one-hot."""
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)  # (N,)
    return np.eye(bins)[bin_of]


def _derivatives(logits: np.ndarray, labels: np.ndarray, beta: float) -> tuple[float, float]:
    """Return the mean of f' and f'' of the module docstring over the images."""
    p = apply_temperature(logits, 1 / beta)
    mean = np.sum(p * logits, axis=1)  # (N, K) -> (N,)
    variance = np.sum(p * np.square(logits - mean[:, np.newaxis]), axis=1)
    # f' as sum_k p_k (z_k - z_y): without cancellation where p_y is nearly 1
    excess = logits - logits[np.arange(len(labels)), labels][:, np.newaxis]  # (N, K)
    return float(np.mean(np.sum(p * excess, axis=1))), float(np.mean(variance))


def _mean(values: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Average values (N,) with weights (..., N) -> (...)."""
    weights = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
    return ratio(weights @ values, weights.sum(axis=-1))

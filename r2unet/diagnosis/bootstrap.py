"""Bootstrap intervals over lesions, for any number of statistics at once.

The bootstrap (Efron 1979) asks how much a number would vary with other patients' lesions. It draws L of the
L lesions with replacement, computes the number again, and repeats. The percentile interval spans the middle
95 % of the results.

**The unit is the lesion, not the image.** Two photographs of one lesion are nearly the same observation.
Drawing images would count them as independent, and the interval would be too narrow. So a lesion is drawn
with all its images.

**A resample is a weight for each image**: the number of times its lesion was drawn. A statistic that accepts
weights (R, N) computes R resamples in one call, without a copy of the images.

The interval says nothing about other training seeds. It also cannot correct a bias: the expected calibration
error grows with noise and a resample is noisier than the data, so its interval lies too high and need not
contain the value.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95
CHUNK = 200_000  # numbers in a block of weights: small blocks stay in the processor's cache


def draw_weights(lesions: Sequence[str], rng: np.random.Generator, resamples: int) -> np.ndarray:
    """Draw resamples of lesions: N lesion names -> weights (resamples, N), how often each image counts."""
    names, lesion = np.unique(np.asarray(lesions, dtype=str), return_inverse=True)  # lesion (N,) in 0..L-1
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    return drawn[:, lesion].astype(np.float64)  # (resamples, L) -> (resamples, N)


def with_intervals(
    statistics: Callable[[np.ndarray], dict[Hashable, np.ndarray]],
    lesions: Sequence[str],
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> dict[Hashable, dict[str, Any]]:
    """Compute statistics and their 95 % intervals: {name: {"value": float, "interval": [low, high]}}.

    `statistics` maps weights (R, N) to {name: values (R,)}. Resamples in which a value is undefined (nan),
    for example because a rare class was not drawn, are left out of its interval. An undefined value is None,
    and so is its interval, because JSON has no nan. Raises ValueError without images.
    """
    images = len(lesions)
    if images == 0:
        raise ValueError("with_intervals: there are no images to score")
    values = {name: float(value[0]) for name, value in statistics(np.ones((1, images))).items()}
    rows = max(1, CHUNK // images)
    blocks = [
        statistics(draw_weights(lesions, rng, min(rows, resamples - start)))
        for start in range(0, resamples, rows)
    ]
    return {
        name: _number(value, np.concatenate([block[name] for block in blocks]))
        for name, value in values.items()
    }


def _number(value: float, resampled: np.ndarray) -> dict[str, Any]:
    defined = resampled[~np.isnan(resampled)]
    if np.isnan(value) or defined.size == 0:
        return {"value": None if np.isnan(value) else value, "interval": None}
    tail = (1 - LEVEL) / 2
    return {"value": value, "interval": [float(b) for b in np.quantile(defined, (tail, 1 - tail))]}

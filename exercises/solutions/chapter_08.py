"""Solutions of the exercises of chapter 8, docs/8-from-photo-to-mask.md."""

import numpy as np


def dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Return the Dice coefficient of two boolean masks, (H, W) each."""
    total = prediction.sum() + truth.sum()  # 2 TP + FP + FN
    return float(2 * (prediction & truth).sum() / total) if total else 1.0


def difference_interval(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean difference of two models, scored on the same images."""
    size = (2000, len(a))  # 2000 draws of N images
    # The same images for both models, so that a hard image is hard for both.
    chosen = rng.integers(0, len(a), size)
    means = a[chosen].mean(axis=1) - b[chosen].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def flattering_masks() -> list[tuple[np.ndarray, np.ndarray]]:
    """Return pairs (prediction, truth) with a pooled Jaccard above 0.9 and a mean Jaccard below 0.3."""
    large, small, nothing = np.zeros((3, 20, 20), bool)
    large[:, :15], small[0, 0] = True, True
    # 300 of 304 lesion pixels were found, in one image of five.
    return [(large, large)] + 4 * [(nothing, small)]

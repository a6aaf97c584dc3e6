"""Solutions of the exercises of chapter 12, docs/12-many-hands.md."""

from collections.abc import Sequence

import numpy as np


def whole_gradient(gradients: Sequence[np.ndarray], counts: Sequence[int]) -> np.ndarray:
    """Return the gradient of a batch from those of its parts."""
    # A mean over all images gives part i the weight n_i / N.
    return sum(n / sum(counts) * g for n, g in zip(counts, gradients, strict=True))


def joined_moments(
    means: np.ndarray, variances: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the variance of all values from those of P parts, (C,) each."""
    share = (counts / counts.sum())[:, None]  # (P, 1)
    mean = (share * means).sum(axis=0)
    # The spread within the parts, and the spread of their means.
    return mean, (share * (variances + (means - mean) ** 2)).sum(axis=0)


def all_sums(parts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the sum that each process computes, after all have received the parts of all."""
    sums = []
    # The order of a sum changes its rounding, so every process adds in the order of the ranks.
    for _ in parts:
        order = list(range(len(parts)))
        total = parts[order[0]]
        for other in order[1:]:
            total = total + parts[other]
        sums.append(total)
    return sums

"""Solutions of the exercises of chapter 4, docs/4-pooling-and-norms.md."""

from collections.abc import Iterable

import numpy as np


def rms_norm_backward(x: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Return dx of the RMS norm, y = x r with r = 1 / sqrt(mean(x^2) + 1e-5), over the last axis."""
    r = 1.0 / np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-5)  # (N, 1)
    y = x * r
    # The direct path and the path through r. There is no mean to pass through.
    return r * (dy - y * (dy * y).mean(axis=1, keepdims=True))


def max_pool_backward(x: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Return dx of max-pooling along rows, with windows of two pixels."""
    first = x[:, 0::2] >= x[:, 1::2]  # (C, W)
    dx = np.zeros_like(x)
    dx[:, 0::2] = np.where(first, dy, 0.0)
    dx[:, 1::2] = np.where(first, 0.0, dy)
    return dx


def running_statistics(batches: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the running mean and variance of a batch norm after these batches, (C,) each."""
    momentum, mean, var = 0.1, 0.0, 1.0
    for x in batches:
        # The momentum is the weight of the new batch, and not of the past.
        mean = (1 - momentum) * mean + momentum * x.mean(axis=(0, 2, 3))
        var = (1 - momentum) * var + momentum * x.var(axis=(0, 2, 3), ddof=1)
    return mean, var

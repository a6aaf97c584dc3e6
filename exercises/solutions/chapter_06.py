"""Solutions of the exercises of chapter 6, docs/6-the-u.md."""

import numpy as np


def indistinguishable(s: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return another skip and another up-sampled image that a decoder which adds cannot tell from s and u."""
    # (u, s) has the same sum, and so has (s + a, u - a) for any a.
    return u, s


def dice_gradient(p: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Return dL/dp of the Dice loss of a batch."""
    intersection = (p * t).sum(axis=(1, 2), keepdims=True)  # (N, 1, 1)
    total = (p + t).sum(axis=(1, 2), keepdims=True)
    dice = (2.0 * intersection + 1.0) / (total + 1.0)
    return -(2.0 * t - dice) / (total + 1.0) / len(p)


def cross_entropy(x: np.ndarray, t: np.ndarray) -> np.floating:
    """Return the mean binary cross-entropy of the logits x with the masks t of 0 and 1, both of any shape."""
    # Log p = -log(1 + exp(-x)), and exp of a negative number does not overflow.
    return (np.maximum(x, 0.0) - x * t + np.log1p(np.exp(-np.abs(x)))).mean()

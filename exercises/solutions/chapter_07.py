"""Solutions of the exercises of chapter 7, docs/7-training.md."""

import math

import numpy as np


def adam_step(
    p: np.ndarray, g: np.ndarray, m: np.ndarray, v: np.ndarray, t: int, lr: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the new (p, m, v) after step t = 1, 2, ... of Adam."""
    b1, b2, eps = 0.9, 0.999, 1e-8
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    # M and v start at zero, so they are too small by 1 - b^t.
    mean, square = m / (1 - b1**t), v / (1 - b2**t)
    return p - lr * mean / (np.sqrt(square) + eps), m, v


def learning_rate(step: int, total: int, warmup: int) -> float:
    """Return the learning rate at `step` = 0 ... total - 1, as a fraction of the largest."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def flipped(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the image and its mask, mirrored at random: left to right or not, and top to bottom or not."""
    # One draw for both. An outline must turn with its lesion.
    horizontally, vertically = rng.random(2) < 0.5
    if horizontally:
        image, mask = image[:, ::-1], mask[:, ::-1]
    if vertically:
        image, mask = image[::-1], mask[::-1]
    return image, mask

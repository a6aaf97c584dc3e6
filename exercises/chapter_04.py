"""Exercises of chapter 4, docs/4-pooling-and-norms.md.

Fill in the functions. `make exercise N=4` says which are right.
"""

from collections.abc import Iterable

import numpy as np


def rms_norm_backward(x: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Return dx of the RMS norm, y = x r with r = 1 / sqrt(mean(x^2) + 1e-5), over the last axis.

    x, y, dy and dx are (N, C), and r is (N, 1). RMS norm (Zhang & Sennrich 2019) is a norm that does not
    subtract the mean. Which of the three paths of batch norm are left? Derive the last one: mean(x^2) changes
    by 2 x[i] / C for a unit of x[i].

    Chapter 4, "Backward: three paths".
    """
    raise NotImplementedError("exercise 4.1")


def max_pool_backward(x: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Return dx of max-pooling along rows, with windows of two pixels.

    x and dx are (C, 2 W), y and dy are (C, W): y[c, i] is the larger of x[c, 2 i] and x[c, 2 i + 1]. That
    pixel takes the whole gradient dy[c, i]. If the two are equal, the first takes it. (If both took it, the
    gradient would be doubled.)

    Chapter 4, "Pooling: the maximum takes the gradient".
    """
    raise NotImplementedError("exercise 4.2")


def running_statistics(batches: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the running mean and variance of a batch norm after these batches, (C,) each.

    A batch is (N, C, H, W). The averages start at 0 and 1. A network with this code trains well, and is
    evaluated with statistics that jump from batch to batch. Find out why, and compare with a BatchNorm2d of
    `minidl`.

    Chapter 4, "Evaluation".
    """
    raise NotImplementedError("exercise 4.3")  # delete this line, then mend the code below
    momentum, mean, var = 0.1, 0.0, 1.0
    for x in batches:
        mean = momentum * mean + (1 - momentum) * x.mean(axis=(0, 2, 3))
        var = momentum * var + (1 - momentum) * x.var(axis=(0, 2, 3), ddof=1)
    return mean, var

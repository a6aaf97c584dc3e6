"""Exercises of chapter 12, docs/12-many-hands.md.

Fill in the functions. `make exercise N=12` says which are right.
"""

from collections.abc import Sequence

import numpy as np


def whole_gradient(gradients: Sequence[np.ndarray], counts: Sequence[int]) -> np.ndarray:
    """Return the gradient of a batch from those of its parts.

    gradients[i] belongs to the mean loss over the counts[i] images of process i. The code is right if all
    parts have the same size, and wrong for 5 images on 2 processes. A process may also have no image.

    Chapter 12, "The gradient of a batch is a sum over its parts".
    """
    raise NotImplementedError("exercise 12.1")  # delete this line, then mend the code below
    return sum(gradients) / len(gradients)


def joined_moments(
    means: np.ndarray, variances: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the variance of all values from those of P parts, (C,) each.

    means and variances are (P, C), and counts (P,) says how many values each part has; a variance divides by
    the count. This is what the batch norms of several processes exchange. Two parts with variance 0 and
    different means do not have variance 0 together.

    Chapter 12, "Batch norm looks at the whole batch".
    """
    raise NotImplementedError("exercise 12.2")


def all_sums(parts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the sum that each process computes, after all have received the parts of all.

    parts[i] is the gradient of process i. All processes must take the same step, so their sums must agree bit
    by bit. With this code their last digits differ, and so do the weights after the next step. Why does the
    sum depend on the process that computes it?

    Chapter 12, "Two processes".
    """
    raise NotImplementedError("exercise 12.3")  # delete this line, then mend the code below
    sums = []
    for rank in range(len(parts)):
        order = [rank, *(other for other in range(len(parts)) if other != rank)]
        total = parts[order[0]]
        for other in order[1:]:
            total = total + parts[other]
        sums.append(total)
    return sums

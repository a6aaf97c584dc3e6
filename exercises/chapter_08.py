"""Exercises of chapter 8, docs/8-from-photo-to-mask.md.

Fill in the functions. `make exercise N=8` says which are right.
"""

import numpy as np


def dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Return the Dice coefficient of two boolean masks, (H, W) each.

    D = 2 TP / (2 TP + FP + FN). If neither mask has a pixel, this is 0/0. Decide what it should be: think of
    an image without a lesion, for which the network found none.

    Chapter 8, "Four counts".
    """
    raise NotImplementedError("exercise 8.1")


def difference_interval(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean difference of two models, scored on the same images.

    a and b are (N,), the scores of the models: one for each image. The difference is a - b. The interval is
    much too wide: it says that a model that is better on every image may well be worse. Which images does
    each model get in one draw?

    Chapter 8, "Confidence intervals".
    """
    raise NotImplementedError("exercise 8.2")  # delete this line, then mend the code below
    size = (2000, len(a))  # 2000 draws of N images
    chosen = rng.integers(0, len(a), size)
    others = rng.integers(0, len(b), size)
    means = a[chosen].mean(axis=1) - b[others].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def flattering_masks() -> list[tuple[np.ndarray, np.ndarray]]:
    """Return pairs (prediction, truth) with a pooled Jaccard above 0.9 and a mean Jaccard below 0.3.

    All masks are boolean and (20, 20), and every truth has a lesion. The mean Jaccard averages the Jaccards
    of the pairs, the pooled one adds up the counts of all pairs first. Which images does the pooled score
    hide?

    Chapter 8, "Mean, pooled and thresholded".
    """
    raise NotImplementedError("exercise 8.3")

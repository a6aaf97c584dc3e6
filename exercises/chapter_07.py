"""Exercises of chapter 7, docs/7-training.md.

Fill in the functions. `make exercise N=7` says which are right.
"""

import numpy as np


def adam_step(
    p: np.ndarray, g: np.ndarray, m: np.ndarray, v: np.ndarray, t: int, lr: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the new (p, m, v) after step t = 1, 2, ... of Adam.

    All arrays have the same shape; m and v are zero before step 1. Training with this code starts with steps
    that are several times too long. Work out the first update by hand: how long should it be for any g, and
    how long is it here?

    Chapter 7, "From gradient descent to Adam".
    """
    raise NotImplementedError("exercise 7.1")  # delete this line, then mend the code below
    b1, b2, eps = 0.9, 0.999, 1e-8
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    mean, square = m, v
    return p - lr * mean / (np.sqrt(square) + eps), m, v


def learning_rate(step: int, total: int, warmup: int) -> float:
    """Return the learning rate at `step` = 0 ... total - 1, as a fraction of the largest.

    It rises linearly to 1 over the first `warmup` steps: 1/(warmup + 1) at step 0, and 1 at step `warmup`.
    Then it follows half a cosine, from 1 at step `warmup` to 0 at step `total`, which is not reached. The
    figure of the chapter has total = 400 and warmup = 40.

    Chapter 7, "The schedule".
    """
    raise NotImplementedError("exercise 7.2")


def flipped(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the image and its mask, mirrored at random: left to right or not, and top to bottom or not.

    image is (H, W, 3), mask is (H, W). Each of the four changes has a probability of 1/4. A network that is
    trained with this code cannot learn where an outline lies. What happens to the mask?

    Chapter 7, "Augmentation".
    """
    raise NotImplementedError("exercise 7.3")  # delete this line, then mend the code below
    changed = []
    for array in (image, mask):
        horizontally, vertically = rng.random(2) < 0.5
        if horizontally:
            array = array[:, ::-1]
        if vertically:
            array = array[::-1]
        changed.append(array)
    return changed[0], changed[1]

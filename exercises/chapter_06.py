"""Exercises of chapter 6, docs/6-the-u.md.

Fill in the functions. `make exercise N=6` says which are right.
"""

import numpy as np


def indistinguishable(s: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return another skip and another up-sampled image that a decoder which adds cannot tell from s and u.

    All four arrays are (C, H, W). A decoder that adds applies its convolution to s + u, whatever its weights
    are. Choose a pair for which it computes the same, while a decoder that concatenates computes something
    else.

    Chapter 6, "Why skip connections concatenate".
    """
    raise NotImplementedError("exercise 6.1")


def dice_gradient(p: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Return dL/dp of the Dice loss of a batch.

    p are probabilities and t masks of 0 and 1, both (N, H, W), and so is the result. With I = sum p t and
    S = sum p + sum t over an image, D = (2 I + 1) / (S + 1). L is the mean of 1 - D over the images. The
    chapter gives dD/dp. A mask of the check is empty.

    Chapter 6, "The loss".
    """
    raise NotImplementedError("exercise 6.2")


def cross_entropy(x: np.ndarray, t: np.ndarray) -> np.floating:
    """Return the mean binary cross-entropy of the logits x with the masks t of 0 and 1, both of any shape.

    The code is the definition. It is right for small logits. A logit of -1000 where t = 1 must give a loss of
    1000, and a logit of 1000 there must give 0. Clipping p does not help. Simplify the formula as a function
    of x first.

    Chapter 6, "The loss".
    """
    raise NotImplementedError("exercise 6.3")  # delete this line, then mend the code below
    p = 1.0 / (1.0 + np.exp(-x))
    return (-t * np.log(p) - (1.0 - t) * np.log(1.0 - p)).mean()

"""Exercises of chapter 5, docs/5-recurrent-residual.md.

Fill in the functions. `make exercise N=5` says which are right.
"""

from collections.abc import Sequence

import numpy as np

from minidl.nn import BatchNorm2d


def through_time(w: np.ndarray, x: np.ndarray, steps: int, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients (dw, dx) of a recurrence with one weight.

    y(0) = tanh(w x) and y(s) = tanh(w (x + y(s-1))) for s = 1 ... steps. x, dx and dy, the gradient of the
    last y, are (H,), and w and dw are a single number, (). Compute the steps forward and keep what you need,
    then go back from the last step to the first. At every step w receives a part, x receives a part, and so
    does the step before. The derivative of tanh is 1 - tanh^2.

    Chapter 5, "Shared weights".
    """
    raise NotImplementedError("exercise 5.1")


def step_norms(channels: int, steps: int) -> list[BatchNorm2d]:
    """Return the batch norms of a recurrent convolution: norm s follows application s = 0 ... steps.

    With this list a network trains well, and evaluation computes something else. The running statistics of a
    norm must be those of one step. The steps still share the learned `weight` and `bias`, as they share their
    convolution: assign the same Parameter to several norms.

    Chapter 5, "One set of running statistics per step".
    """
    raise NotImplementedError("exercise 5.2")  # delete this line, then mend the code below
    return [BatchNorm2d(channels)] * (steps + 1)


def through_blocks(jacobians: Sequence[np.ndarray], dy: np.ndarray) -> np.ndarray:
    """Return dx of a chain of residual blocks.

    Block k computes y = x + f_k(x), and jacobians[k], (D, D), is the Jacobian of f_k: row i belongs to output
    i. Block 0 comes first. dy and dx are (D,). The check uses a chain of 30 blocks whose Jacobians are small,
    and compares the size of dx with that of the same chain without shortcuts.

    Chapter 5, "The residual connection".
    """
    raise NotImplementedError("exercise 5.3")

"""Solutions of the exercises of chapter 5, docs/5-recurrent-residual.md."""

from collections.abc import Sequence

import numpy as np

from minidl.nn import BatchNorm2d


def through_time(w: np.ndarray, x: np.ndarray, steps: int, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients (dw, dx) of a recurrence with one weight."""
    inputs, outputs = [x], [np.tanh(w * x)]
    for _ in range(steps):
        inputs.append(x + outputs[-1])
        outputs.append(np.tanh(w * inputs[-1]))
    dw, dx = 0.0, np.zeros_like(x)
    for a, y in zip(inputs[::-1], outputs[::-1], strict=True):
        inside = dy * (1.0 - y * y)
        dw += (inside * a).sum()
        # A = x + y(s-1), so x and the step before receive the same gradient.
        dy = w * inside
        dx += dy
    return np.asarray(dw), dx


def step_norms(channels: int, steps: int) -> list[BatchNorm2d]:
    """Return the batch norms of a recurrent convolution: norm s follows application s = 0 ... steps."""
    norms = [BatchNorm2d(channels) for _ in range(steps + 1)]
    for norm in norms[1:]:
        norm.weight, norm.bias = norms[0].weight, norms[0].bias
    return norms


def through_blocks(jacobians: Sequence[np.ndarray], dy: np.ndarray) -> np.ndarray:
    """Return dx of a chain of residual blocks."""
    for jacobian in reversed(jacobians):
        dy = dy + jacobian.T @ dy
    return dy

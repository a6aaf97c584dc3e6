"""Weight initialisation: random weights, scaled so that signals neither vanish nor explode.

A layer sums `fan_in` products. If its inputs have variance v and its weights variance s, its outputs have
variance fan_in * s * v, so s = 1 / fan_in preserves the variance from layer to layer. Glorot & Bengio (2010)
use 2 / (fan_in + fan_out), a compromise with the same condition for the backward pass. ReLU halves the mean
square of a signal, and s = 2 / fan_in compensates for this (He et al. 2015).

`shapes_only` creates a network without memory, to compare its shapes with those of a checkpoint first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

_shapes_only: ContextVar[bool] = ContextVar("shapes_only", default=False)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Give weights that are initialised in this `with` block a shape, but no memory and no random numbers.

    They are read-only arrays in which one zero represents all elements, as on PyTorch's "meta" device.
    """
    token = _shapes_only.set(True)
    try:
        yield
    finally:
        _shapes_only.reset(token)


def kaiming_normal(shape: tuple[int, ...], fan_in: int, rng: np.random.Generator) -> np.ndarray:
    """Draw float32 weights for a layer followed by ReLU, with standard deviation sqrt(2 / fan_in).

    Source: He, Zhang, Ren, Sun 2015, "Delving deep into rectifiers", equation 10.
    """
    return _normal(shape, math.sqrt(2.0 / fan_in), rng)


def xavier_normal(shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> np.ndarray:
    """Draw float32 weights for a layer without ReLU, standard deviation sqrt(2 / (fan_in + fan_out)).

    Source: Glorot, Bengio 2010, "Understanding the difficulty of training deep feedforward neural
    networks", equation 12.
    """
    return _normal(shape, math.sqrt(2.0 / (fan_in + fan_out)), rng)


def zeros(size: int) -> np.ndarray:
    """Return the initial value of `size` biases or means."""
    return _without_memory((size,)) if _shapes_only.get() else np.zeros(size, np.float32)


def ones(size: int) -> np.ndarray:
    """Return the initial value of `size` scales or variances."""
    return _without_memory((size,)) if _shapes_only.get() else np.ones(size, np.float32)


def _normal(shape: tuple[int, ...], deviation: float, rng: np.random.Generator) -> np.ndarray:
    if _shapes_only.get():
        return _without_memory(shape)
    return rng.normal(0.0, deviation, shape).astype(np.float32)


def _without_memory(shape: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(np.float32(0.0), shape)

"""Weight initialisation: random weights, scaled so that signals neither vanish nor explode.

A layer sums `fan_in` products. If its inputs have variance v and its weights variance s, its outputs have
variance fan_in * s * v, so s = 1 / fan_in preserves the variance from layer to layer. Glorot & Bengio (2010)
use 2 / (fan_in + fan_out), a compromise with the same condition for the backward pass. ReLU halves the mean
square of a signal, and s = 2 / fan_in compensates for this (He et al. 2015).
"""

from __future__ import annotations

import math

import numpy as np


def kaiming_normal(shape: tuple[int, ...], fan_in: int, rng: np.random.Generator) -> np.ndarray:
    """Draw float32 weights for a layer followed by ReLU, with standard deviation sqrt(2 / fan_in).

    Source: He, Zhang, Ren, Sun 2015, "Delving deep into rectifiers", equation 10.
    """
    return rng.normal(0.0, math.sqrt(2.0 / fan_in), shape).astype(np.float32)


def xavier_normal(shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> np.ndarray:
    """Draw float32 weights for a layer without ReLU, standard deviation sqrt(2 / (fan_in + fan_out)).

    Source: Glorot, Bengio 2010, "Understanding the difficulty of training deep feedforward neural
    networks", equation 12.
    """
    return rng.normal(0.0, math.sqrt(2.0 / (fan_in + fan_out)), shape).astype(np.float32)

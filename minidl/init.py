"""How weights begin: random enough to differ, scaled so that signals neither die nor explode.

A layer sums `fan_in` products. If its inputs have variance v and its weights variance s, its outputs have
variance fan_in * s * v, so s = 1 / fan_in keeps the variance from layer to layer (Glorot & Bengio 2010
balance this with the backward pass: 2 / (fan_in + fan_out)). ReLU then throws half of the signal away, which
s = 2 / fan_in makes up for (He et al. 2015).
"""

from __future__ import annotations

import math

import numpy as np


def kaiming_normal(shape: tuple[int, ...], fan_in: int, rng: np.random.Generator) -> np.ndarray:
    """Draw weights for a layer followed by ReLU, float32, standard deviation sqrt(2 / fan_in).

    Source: He, Zhang, Ren, Sun 2015, "Delving deep into rectifiers", equation 10.
    """
    return rng.normal(0.0, math.sqrt(2.0 / fan_in), shape).astype(np.float32)


def xavier_normal(shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> np.ndarray:
    """Draw weights for a layer with no ReLU behind it, float32, deviation sqrt(2 / (fan_in + fan_out)).

    Source: Glorot, Bengio 2010, "Understanding the difficulty of training deep feedforward neural
    networks", equation 12.
    """
    return rng.normal(0.0, math.sqrt(2.0 / (fan_in + fan_out)), shape).astype(np.float32)

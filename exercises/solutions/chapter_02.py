"""Solutions of the exercises of chapter 2, docs/2-trusting-a-derivative.md."""

from collections.abc import Callable

import numpy as np


def gradient_is_right(f: Callable, backward: Callable, x: np.ndarray, rng: np.random.Generator) -> bool:
    """Return whether backward(x, u) is J^T u for the function f at x."""
    h = 1e-5
    v = rng.normal(size=x.shape)
    # With ones, <u, J v> is the derivative of the sum of the outputs, which may be constant.
    u = rng.normal(size=f(x).shape)
    measured = np.vdot(u, f(x + h * v) - f(x - h * v)) / (2 * h)
    computed = np.vdot(backward(x, u), v)
    return bool(abs(measured - computed) <= 1e-6 * max(abs(measured), abs(computed), 1e-3))


def blur_adjoint(y: np.ndarray) -> np.ndarray:
    """Return A^T y for the linear map A x = x[:-1] + 3 x[1:], (H - 1,) -> (H,)."""
    x = np.zeros(len(y) + 1)
    x[:-1] += y
    x[1:] += 3 * y
    return x


def best_step(central: bool, rounding: float) -> float:
    """Return a good step h for a finite difference of a function whose values and derivatives are about 1."""
    # The derivative of the error is zero where both parts are of the same order.
    return rounding ** (1 / 3 if central else 1 / 2)

"""Exercises of chapter 2, docs/2-trusting-a-derivative.md.

Fill in the functions. `make exercise N=2` says which are right.
"""

from collections.abc import Callable

import numpy as np


def gradient_is_right(f: Callable, backward: Callable, x: np.ndarray, rng: np.random.Generator) -> bool:
    """Return whether backward(x, u) is J^T u for the function f at x.

    f maps an array to an array, backward(x, u) returns an array of x's shape. This checker accepts the
    gradient "always zero" for a softmax, whose outputs sum to 1. It must refuse it.

    Chapter 2, "Why the cotangent is random".
    """
    raise NotImplementedError("exercise 2.1")  # delete this line, then mend the code below
    h = 1e-5
    v = rng.normal(size=x.shape)
    u = np.ones(f(x).shape)
    measured = np.vdot(u, f(x + h * v) - f(x - h * v)) / (2 * h)
    computed = np.vdot(backward(x, u), v)
    return bool(abs(measured - computed) <= 1e-6 * max(abs(measured), abs(computed), 1e-3))


def blur_adjoint(y: np.ndarray) -> np.ndarray:
    """Return A^T y for the linear map A x = x[:-1] + 3 x[1:], (H - 1,) -> (H,).

    A maps x (H,) to (H - 1,): output i is x[i] + 3 x[i + 1]. The backward pass of A is A^T. Ask for each x[j]
    which outputs contain it, and with which factor. The two ends need care. The check compares <A x, y> with
    <x, A^T y>.

    Chapter 2, "The checks of `minidl`".
    """
    raise NotImplementedError("exercise 2.2")


def best_step(central: bool, rounding: float) -> float:
    """Return a good step h for a finite difference of a function whose values and derivatives are about 1.

    The one-sided difference (f(x + h) - f(x)) / h has an error of about h + rounding / h, the central one,
    (f(x + h) - f(x - h)) / 2h, an error of about h^2 + rounding / h. `rounding` is the rounding error of f:
    1e-16 in float64, 1e-7 in float32. Minimise each sum over h. A constant factor does not matter.

    Chapter 2, "The step size".
    """
    raise NotImplementedError("exercise 2.3")

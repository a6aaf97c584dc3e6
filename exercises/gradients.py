"""The gradient check, for a backward pass that is an ordinary function."""

from collections.abc import Callable

import numpy as np

from minidl.gradcheck import STEP, TOLERANCE, GradientError, check_vjp
from minidl.tensor import Function


class Operation(Function):
    """An operation made of two functions: y = compute(*x), and the gradients gradient(*x, dy)."""

    def __init__(self, compute: Callable, gradient: Callable) -> None:
        self.compute, self.gradient = compute, gradient

    def forward(self, *x: np.ndarray) -> np.ndarray:
        self.x = x
        return self.compute(*x)

    def backward(self, dy: np.ndarray) -> tuple[np.ndarray, ...]:
        return gradients_of(self.gradient, self.x, dy)


def gradients_of(gradient: Callable, x: tuple[np.ndarray, ...], dy: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return gradient(*x, dy) as an array for each input; raise AssertionError if the shapes do not fit.

    The gradients may be lists, and the function may write into its arguments, which are copies.
    """
    found = gradient(*(array.copy() for array in x), dy.copy())
    several = isinstance(found, tuple) or (isinstance(found, list) and len(x) > 1)
    gradients = tuple(found) if several else (found,)
    assert len(gradients) == len(x), (
        f"the number of gradients that your function returned is {len(gradients)} instead of {len(x)}"
    )
    for k, (array, dx) in enumerate(zip(x, gradients, strict=True)):
        assert dx is not None, f"{name(k, x)} that your function returned is None"
        assert np.shape(dx) == array.shape, (
            f"{name(k, x)} that your function returned has the shape {np.shape(dx)}, its input {array.shape}"
        )
    return tuple(np.asarray(dx, np.float64) for dx in gradients)


def name(k: int, x: tuple[np.ndarray, ...]) -> str:
    """Return how a message calls the gradient of input k."""
    return f"gradient {k + 1} of {len(x)}" if len(x) > 1 else "the gradient"


def check_gradient(compute: Callable, gradient: Callable, *x: np.ndarray, seed: int = 0) -> None:
    """Raise AssertionError unless gradient(*x, dy) agrees with the finite differences of compute(*x).

    The message names the first number of a gradient that is wrong, which tells a learner more than the inner
    products of `check_vjp`.
    """
    rng = np.random.default_rng(seed)
    try:
        check_vjp(lambda *t: Operation(compute, gradient)(*t), *x, rng=rng)
    except GradientError as error:
        dy = rng.normal(size=np.shape(compute(*x)))
        raise AssertionError(first_difference(compute, gradient, x, dy) or str(error)) from None


def first_difference(compute: Callable, gradient: Callable, x: tuple[np.ndarray, ...], dy: np.ndarray) -> str:
    """Describe the first number of the gradients that differs from its central difference, or return ""."""
    for k, computed in enumerate(gradients_of(gradient, x, dy)):
        for index in np.ndindex(x[k].shape):
            ends = []
            for step in (STEP, -STEP):
                moved = [np.array(array) for array in x]
                moved[k][index] += step
                ends.append(np.vdot(dy, compute(*moved)))
            measured = (ends[0] - ends[1]) / (2 * STEP)
            if not abs(computed[index] - measured) <= 1e3 * TOLERANCE * max(1.0, abs(measured)):  # or NaN
                at = f" at [{', '.join(map(str, index))}]" if index else ""
                return (
                    f"{name(k, x)}{at} is {computed[index]:.5g}, but a finite difference gives {measured:.5g}"
                )
    return ""

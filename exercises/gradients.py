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

    def backward(self, dy: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        return self.gradient(*self.x, dy)


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
    gradients = gradient(*x, dy)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    for k, computed in enumerate(gradients):
        name = f"gradient {k + 1} of {len(x)}" if len(x) > 1 else "the gradient"
        for index in np.ndindex(x[k].shape):
            ends = []
            for step in (STEP, -STEP):
                moved = [np.array(array) for array in x]
                moved[k][index] += step
                ends.append(np.vdot(dy, compute(*moved)))
            measured = (ends[0] - ends[1]) / (2 * STEP)
            if abs(computed[index] - measured) > 1e3 * TOLERANCE * max(1.0, abs(measured)):
                at = f" at [{', '.join(map(str, index))}]" if index else ""
                return f"{name}{at} is {computed[index]:.5g}, but a finite difference gives {measured:.5g}"
    return ""

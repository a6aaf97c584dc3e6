"""Checks of the exercises of chapter 2, docs/2-trusting-a-derivative.md."""

import numpy as np

from minidl.gradcheck import GradientError, check_adjoint


def softmax(x):
    e = np.exp(x)
    return e / e.sum(axis=1, keepdims=True)


def softmax_backward(x, u):
    p = softmax(x)
    return p * (u - (u * p).sum(axis=1, keepdims=True))


def check_1(answers):
    x = np.random.default_rng(1).normal(size=(3, 4))
    for seed in range(5):
        for name, change, right in (
            ("the right gradient", lambda g: g, True),
            ("a gradient that is always zero", lambda g: 0.0 * g, False),
            ("a gradient with the wrong sign", lambda g: -g, False),
            ("a gradient that is 1 % too large", lambda g: 1.01 * g, False),
        ):
            found = answers.gradient_is_right(
                softmax, lambda x, u, c=change: c(softmax_backward(x, u)), x, np.random.default_rng(seed)
            )
            assert found == right, f"for a softmax, {name} is {'accepted' if found else 'refused'}"


def blur(x):
    return x[:-1] + 3 * x[1:]


def check_2(answers):
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=6), rng.normal(size=5)
    shape = np.shape(answers.blur_adjoint(y))
    assert shape == (6,), f"A^T y has the shape {shape}; A maps (6,) to (5,), so A^T maps (5,) to (6,)"
    try:
        check_adjoint(blur, answers.blur_adjoint, x, y)
    except GradientError as error:
        unit = answers.blur_adjoint(np.array([1.0, 0.0, 0.0, 0.0, 0.0]))
        raise AssertionError(f"{error}. You map y = (1, 0, 0, 0, 0) to {unit}: what is in y[0]?") from None


def check_3(answers):
    for central in (False, True):
        for dtype, rounding in ((np.float64, 1e-16), (np.float32, 1e-7)):

            def error(h, central=central, dtype=dtype):
                x, h = np.linspace(1.0, 2.0, 50, dtype=dtype), dtype(h)
                low, width = (x - h, h + h) if central else (x, h)
                slope = (np.sin(x + h) - np.sin(low)) / width
                return np.sqrt(np.mean((slope - np.cos(x)) ** 2))

            h = answers.best_step(central, rounding)
            assert 0 < h < 1, f"a step between 0 and 1 is expected, not {h}"
            best = min(error(10.0**-k) for k in range(1, 13 if dtype is np.float64 else 7))
            name = f"{'central' if central else 'one-sided'} difference in {dtype.__name__}"
            assert error(h) < 10 * best, f"{name}, h = {h:.0e}: error {error(h):.0e}, possible {best:.0e}"

"""ReLU and the sigmoid: ordinary numbers, the kink at 0, and large numbers, where naive formulas overflow."""

import numpy as np
import pytest

from minidl import ops
from minidl.gradcheck import check_vjp
from minidl.gradcheck_cases import off_zero

BOTH_DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def test_relu_keeps_positive_numbers_and_passes_gradients_only_there(value, gradients):
    x = np.array([-2.0, -1e-30, -0.0, 0.0, 1e-30, 3.0])
    np.testing.assert_array_equal(value(ops.relu, x), [0.0, 0.0, 0.0, 0.0, 1e-30, 3.0])
    (dx,) = gradients(ops.relu, x, cotangent=np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    np.testing.assert_array_equal(dx, [0.0, 0.0, 0.0, 0.0, 5.0, 6.0])  # relu'(0) = 0


def test_relu_propagates_nan(value):
    np.testing.assert_array_equal(value(ops.relu, np.array([np.nan, np.inf, -np.inf])), [np.nan, np.inf, 0.0])


def test_sigmoid_is_one_over_one_plus_exp_minus_x(rng, value, gradients):
    x, dy = 3.0 * rng.normal(size=(2, 3, 5)), rng.normal(size=(2, 3, 5))
    y = 1.0 / (1.0 + np.exp(-x))
    np.testing.assert_allclose(value(ops.sigmoid, x), y, rtol=1e-14)
    np.testing.assert_allclose(gradients(ops.sigmoid, x, cotangent=dy)[0], dy * y * (1.0 - y), rtol=1e-12)


@BOTH_DTYPES
def test_sigmoid_of_large_numbers_is_zero_or_one_without_a_warning(dtype, device, value, gradients):
    x = np.array([-np.inf, -1000.0, -100.0, -80.0, 0.0, 100.0, 1000.0, np.inf], dtype)
    a, b = np.exp([-100.0, -80.0])  # in float32, a is below the smallest normal number and b is above it
    # CuPy compiles with -ftz=true: on a GPU a number that is not normal may be 0.
    normal = np.finfo(dtype).smallest_normal
    flushed = device == "cuda" and a < normal
    y = value(ops.sigmoid, x)
    atol = normal if flushed else 1e-44
    np.testing.assert_allclose(y, [0.0, 0.0, a, b, 0.5, 1.0, 1.0, 1.0], rtol=1e-5, atol=atol)
    assert flushed or y[2] > 0.0  # not rounded to zero: its logarithm is -100
    (dx,) = gradients(ops.sigmoid, x, cotangent=np.ones(8, dtype))
    atol = normal if flushed else 1e-43
    np.testing.assert_allclose(dx, [0.0, 0.0, a, b, 0.25, 0.0, 0.0, 0.0], rtol=1e-5, atol=atol)


def test_sigmoid_is_symmetric(rng, value):
    x = 5.0 * rng.normal(size=50)
    np.testing.assert_allclose(value(ops.sigmoid, x) + value(ops.sigmoid, -x), np.ones(50), rtol=1e-15)


@pytest.mark.parametrize("f", [ops.relu, ops.sigmoid])
@pytest.mark.parametrize("shape", [(), (1,), (2, 3, 4, 5), (0, 3)], ids=str)
def test_activations_work_on_any_shape(f, shape, rng, value):
    x = off_zero(rng, *shape)
    assert value(f, x).shape == shape
    if x.size:
        check_vjp(f, x, rng=rng)


@BOTH_DTYPES
@pytest.mark.parametrize("size", [1, 255, 256, 257, 1000])
def test_every_element_is_computed_for_any_array_size(size, dtype, rng, value, gradients):
    x, dy = (3.0 * rng.normal(size=(2, size))).astype(dtype)
    p = 1.0 / (1.0 + np.exp(-x))
    tolerance = {"rtol": 10 * np.finfo(dtype).eps, "atol": 0.0}
    for f, y, dx in ((ops.relu, x * (x > 0), dy * (x > 0)), (ops.sigmoid, p, dy * p * (1.0 - p))):
        found = [value(f, x), gradients(f, x, cotangent=dy)[0]]
        assert [a.dtype for a in found] == [dtype, dtype]
        np.testing.assert_allclose(found[0], y, **tolerance)
        np.testing.assert_allclose(found[1], dx, rtol=1e3 * np.finfo(dtype).eps)


@pytest.mark.parametrize("f", [ops.relu, ops.sigmoid])
def test_activations_support_transposed_arrays(f, rng, value, gradients):
    """x and dy are transposed views: their memory order differs from the order of their indices."""
    x, dy = rng.normal(size=(2, 5, 7))
    transposed = lambda t: ops.transpose(f(ops.transpose(t, (1, 0))), (1, 0))  # noqa: E731
    np.testing.assert_array_equal(value(transposed, x), value(f, x))
    np.testing.assert_array_equal(gradients(transposed, x, cotangent=dy), gradients(f, x, cotangent=dy))

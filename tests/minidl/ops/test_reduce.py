"""Sums, means and maxima agree with NumPy over any axes; the first of equal maxima receives the gradient."""

import numpy as np
import pytest

from minidl import ops
from minidl.gradcheck import check_vjp
from minidl.gradcheck_cases import all_different
from minidl.tensor import Tensor

AXES = [None, 0, 1, 2, -1, (0,), (0, 2), (2, 0), (-1, 1), (0, 1, 2)]
KEEPDIMS = pytest.mark.parametrize("keepdims", [False, True])


@KEEPDIMS
@pytest.mark.parametrize("axis", AXES, ids=str)
def test_sum_and_mean_agree_with_numpy(axis, keepdims, rng, value):
    x = rng.normal(size=(2, 3, 4))
    for f, expected in (
        (ops.sum, x.sum(axis, keepdims=keepdims)),
        (ops.mean, x.mean(axis, keepdims=keepdims)),
    ):
        y = value(lambda t, f=f: f(t, axis, keepdims), x)
        assert y.shape == expected.shape
        np.testing.assert_allclose(y, expected, rtol=1e-12)


@KEEPDIMS
@pytest.mark.parametrize("axis", AXES, ids=str)
def test_the_gradient_of_a_sum_is_copied_to_every_element_and_that_of_a_mean_divided(
    axis, keepdims, rng, gradients
):
    x = rng.normal(size=(2, 3, 4))
    dy = rng.normal(size=x.sum(axis, keepdims=keepdims).shape)
    expected = np.ones(x.shape) * dy.reshape(x.sum(axis, keepdims=True).shape)
    count = x.size // dy.size
    (of_sum,) = gradients(lambda t: ops.sum(t, axis, keepdims), x, cotangent=dy)
    (of_mean,) = gradients(lambda t: ops.mean(t, axis, keepdims), x, cotangent=dy)
    np.testing.assert_array_equal(of_sum, expected)
    np.testing.assert_allclose(of_mean, expected / count, rtol=1e-15)


@KEEPDIMS
@pytest.mark.parametrize("axis", [None, 0, 1, 2, -1, -2])
def test_max_agrees_with_numpy_and_its_gradient_goes_to_the_largest_element(
    axis, keepdims, rng, value, gradients
):
    x = all_different(rng, 3, 4, 5)
    expected = x.max(axis, keepdims=keepdims)
    y = value(lambda t: ops.max(t, axis, keepdims), x)
    np.testing.assert_array_equal(y, expected)
    assert y.shape == expected.shape
    dy = rng.normal(size=expected.shape)
    winners = x == x.max(axis, keepdims=True)
    (dx,) = gradients(lambda t: ops.max(t, axis, keepdims), x, cotangent=dy)
    np.testing.assert_array_equal(dx, winners * dy.reshape(x.max(axis, keepdims=True).shape))


def test_the_first_of_equal_maxima_receives_the_whole_gradient(gradients):
    x = np.array([[1.0, 5.0, 5.0], [7.0, 7.0, 7.0]])
    (by_row,) = gradients(lambda t: ops.max(t, 1), x, cotangent=np.array([2.0, 3.0]))
    np.testing.assert_array_equal(by_row, [[0.0, 2.0, 0.0], [3.0, 0.0, 0.0]])
    (of_all,) = gradients(ops.max, x, cotangent=np.array(4.0))
    np.testing.assert_array_equal(of_all, [[0.0, 0.0, 0.0], [4.0, 0.0, 0.0]])


def test_an_infinite_gradient_of_a_maximum_reaches_no_other_element(gradients):
    (dx,) = gradients(lambda t: ops.max(t, 0), np.array([1.0, 5.0, 3.0]), cotangent=np.array(np.inf))
    np.testing.assert_array_equal(dx, [0.0, np.inf, 0.0])


def test_the_maximum_of_negative_numbers_is_negative(value):
    assert value(ops.max, np.array([-3.0, -2.0, -4.0])) == -2.0


@pytest.mark.parametrize("f", [ops.sum, ops.mean, ops.max])
def test_a_reduction_of_a_single_number_is_that_number(f, value, gradients):
    assert value(f, np.array(3.5)) == 3.5
    assert gradients(f, np.array(3.5), cotangent=np.array(2.0))[0] == 2.0


def test_reductions_agree_with_a_central_difference(rng):
    x = all_different(rng, 2, 3, 4)
    for f in (ops.sum, ops.mean, ops.max):
        check_vjp(f, x, rng=rng)
        check_vjp(lambda t, f=f: f(t, -1, keepdims=True), x, rng=rng)


@pytest.mark.parametrize("f", [ops.sum, ops.mean, ops.max])
def test_the_error_for_a_missing_axis_names_the_operation_and_the_shape(f):
    with pytest.raises(ValueError, match=rf"{f.__name__.capitalize()} of \(2, 3\): axis 2"):
        f(Tensor(np.ones((2, 3))), 2)

"""Group normalisation: the arithmetic of batch norm over groups of channels of a single image."""

import numpy as np
import pytest

from minidl import ops
from minidl.gradcheck import check_vjp
from minidl.tensor import Tensor

EPS = 1e-5
# (N, C, H, W) and the number of groups: layer norm, instance norm, and cases in between
CASES = [((2, 6, 3, 4), 1), ((2, 6, 3, 4), 2), ((3, 6, 2, 5), 3), ((2, 4, 3, 3), 4), ((1, 4, 1, 1), 2)]
ALL_CASES = pytest.mark.parametrize(("shape", "groups"), CASES, ids=str)


def random_inputs(rng, shape):
    """Return images with channels of different means and deviations, weights and biases."""
    C = shape[1]
    x = rng.normal(size=shape) * rng.uniform(0.5, 3.0, (C, 1, 1)) + rng.normal(size=(C, 1, 1))
    return x, rng.uniform(0.5, 2.0, C), rng.normal(size=C)


def group_norm_of(groups):
    return lambda x, g, b: ops.group_norm(x, groups, g, b)


def naive_group_norm(x, groups, g, b):
    y, size = np.empty_like(x), x.shape[1] // groups
    for n in range(len(x)):
        for first in range(0, x.shape[1], size):
            values = x[n, first : first + size].ravel()
            mean = sum(values) / len(values)
            variance = sum((v - mean) ** 2 for v in values) / len(values)
            for c in range(first, first + size):
                y[n, c] = g[c] * (x[n, c] - mean) / np.sqrt(variance + EPS) + b[c]
    return y


@ALL_CASES
def test_it_agrees_with_naive_loops(shape, groups, rng, value):
    x, g, b = random_inputs(rng, shape)
    found = value(group_norm_of(groups), x, g, b)
    np.testing.assert_allclose(found, naive_group_norm(x, groups, g, b), rtol=1e-9, atol=1e-11)


@ALL_CASES
def test_its_gradients_agree_with_a_central_difference(shape, groups, rng):
    # With two values per group, n is 1 and -1 for any x: dx is nearly 0, so its relative error is larger.
    check_vjp(
        group_norm_of(groups), *random_inputs(rng, shape), rng=rng, tolerance=1e-4 if shape[2] == 1 else 1e-6
    )


def test_it_is_batch_norm_with_each_group_of_an_image_as_one_channel(rng, value, gradients):
    """Reshaping joins the channels of a group into one long channel for batch norm."""
    x, dy = rng.normal(size=(2, 2, 6, 3, 4))
    ones, zeros = np.ones(6), np.zeros(6)
    rows = (1, 2 * 3, 2, 12)  # images and groups as channels
    y = value(group_norm_of(3), x, ones, zeros)
    expected = value(lambda *t: ops.batch_norm(*t)[0], x.reshape(rows), ones, zeros)
    np.testing.assert_allclose(y, expected.reshape(x.shape), rtol=1e-10, atol=1e-12)
    dx, _, _ = gradients(group_norm_of(3), x, ones, zeros, cotangent=dy)
    dr, _, _ = gradients(
        lambda *t: ops.batch_norm(*t)[0], x.reshape(rows), ones, zeros, cotangent=dy.reshape(rows)
    )
    np.testing.assert_allclose(dx, dr.reshape(x.shape), rtol=1e-9, atol=1e-11)


def test_each_image_is_independent_of_the_others(rng, value):
    x, g, b = random_inputs(rng, (3, 4, 5, 6))
    alone = [value(group_norm_of(2), x[n : n + 1], g, b) for n in range(3)]
    np.testing.assert_allclose(value(group_norm_of(2), x, g, b), np.concatenate(alone), rtol=1e-12)


def test_shifting_and_scaling_the_whole_image_changes_nothing_but_scaling_channels_does(rng, value):
    x, g, b = random_inputs(rng, (2, 4, 5, 6))
    y = value(group_norm_of(2), x, g, b)
    np.testing.assert_allclose(value(group_norm_of(2), 7.0 * x - 100.0, g, b), y, rtol=1e-4, atol=1e-5)
    scaled = x * np.arange(1.0, 5.0)[:, None, None]
    assert np.abs(value(group_norm_of(2), scaled, g, b) - y).max() > 0.1


def test_a_group_of_one_value_becomes_the_bias_and_has_a_zero_gradient(rng, value, gradients):
    x, g, b = random_inputs(rng, (2, 3, 1, 1))
    np.testing.assert_array_equal(value(group_norm_of(3), x, g, b)[..., 0, 0], np.stack((b, b)))
    dx, _, _ = gradients(group_norm_of(3), x, g, b, cotangent=rng.normal(size=x.shape))
    np.testing.assert_array_equal(dx, np.zeros(x.shape))


@pytest.mark.parametrize("groups", [0, -2, 4, 12])
def test_a_number_of_groups_that_does_not_divide_the_channels_is_rejected(groups):
    x, g = Tensor(np.ones((2, 6, 3, 3))), Tensor(np.ones(6))
    with pytest.raises(ValueError, match=f"group_norm: 6 channels do not divide into {groups} groups"):
        ops.group_norm(x, groups, g, g)


@pytest.mark.parametrize("shapes", [[(2, 4, 4), (4,), (4,)], [(2, 4, 3, 3), (2,), (4,)]], ids=str)
def test_the_error_for_mismatched_shapes_names_the_operation_and_the_shapes(shapes):
    x, g, b = (Tensor(np.ones(s)) for s in shapes)
    with pytest.raises(ValueError) as error:
        ops.group_norm(x, 2, g, b)
    assert str(error.value).startswith("group_norm: ")
    assert all(str(s) in str(error.value) for s in shapes)

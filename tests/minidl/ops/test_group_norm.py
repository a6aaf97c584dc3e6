"""Group normalisation: batch norm's arithmetic over an image's groups of channels, and nothing beyond it."""

import numpy as np
import pytest

from minidl import ops
from minidl.gradcheck import check_vjp
from minidl.tensor import Tensor

EPS = 1e-5
# (N, C, H, W) and how many groups: layer norm, instance norm, and what lies between
CASES = [((2, 6, 3, 4), 1), ((2, 6, 3, 4), 2), ((3, 6, 2, 5), 3), ((2, 4, 3, 3), 4), ((1, 4, 1, 1), 2)]
ALL_CASES = pytest.mark.parametrize(("shape", "groups"), CASES, ids=str)


def drawn(rng, shape):
    """An image with channels of different means and sizes, weights and biases."""
    C = shape[1]
    x = rng.normal(size=shape) * rng.uniform(0.5, 3.0, (C, 1, 1)) + rng.normal(size=(C, 1, 1))
    return x, rng.uniform(0.5, 2.0, C), rng.normal(size=C)


def normalised(groups):
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
    x, g, b = drawn(rng, shape)
    found = value(normalised(groups), x, g, b)
    np.testing.assert_allclose(found, naive_group_norm(x, groups, g, b), rtol=1e-9, atol=1e-11)


@ALL_CASES
def test_its_gradients_agree_with_a_central_difference(shape, groups, rng):
    # With two values a group n is 1 and -1 whatever x: nearly flat, so less of the quotient is left.
    check_vjp(normalised(groups), *drawn(rng, shape), rng=rng, tolerance=1e-4 if shape[2] == 1 else 1e-6)


def test_it_is_batch_norm_of_each_image_whose_channels_lie_in_one_row(rng, value, gradients):
    """A group's channels, put end to end as one long channel, are what batch norm normalises."""
    x, dy = rng.normal(size=(2, 2, 6, 3, 4))
    ones, zeros = np.ones(6), np.zeros(6)
    rows = (1, 2 * 3, 2, 12)  # images and groups as channels
    y = value(normalised(3), x, ones, zeros)
    expected = value(lambda *t: ops.batch_norm(*t)[0], x.reshape(rows), ones, zeros)
    np.testing.assert_allclose(y, expected.reshape(x.shape), rtol=1e-10, atol=1e-12)
    dx, _, _ = gradients(normalised(3), x, ones, zeros, cotangent=dy)
    dr, _, _ = gradients(
        lambda *t: ops.batch_norm(*t)[0], x.reshape(rows), ones, zeros, cotangent=dy.reshape(rows)
    )
    np.testing.assert_allclose(dx, dr.reshape(x.shape), rtol=1e-9, atol=1e-11)


def test_no_image_depends_on_the_others(rng, value):
    x, g, b = drawn(rng, (3, 4, 5, 6))
    alone = [value(normalised(2), x[n : n + 1], g, b) for n in range(3)]
    np.testing.assert_allclose(value(normalised(2), x, g, b), np.concatenate(alone), rtol=1e-12)


def test_the_image_may_be_shifted_and_scaled_as_a_whole_but_not_channel_by_channel(rng, value):
    x, g, b = drawn(rng, (2, 4, 5, 6))
    y = value(normalised(2), x, g, b)
    np.testing.assert_allclose(value(normalised(2), 7.0 * x - 100.0, g, b), y, rtol=1e-4, atol=1e-5)
    scaled = x * np.arange(1.0, 5.0)[:, None, None]
    assert np.abs(value(normalised(2), scaled, g, b) - y).max() > 0.1


def test_a_group_of_one_value_becomes_the_bias_and_passes_nothing_back(rng, value, gradients):
    x, g, b = drawn(rng, (2, 3, 1, 1))
    np.testing.assert_array_equal(value(normalised(3), x, g, b)[..., 0, 0], np.stack((b, b)))
    dx, _, _ = gradients(normalised(3), x, g, b, cotangent=rng.normal(size=x.shape))
    np.testing.assert_array_equal(dx, np.zeros(x.shape))


@pytest.mark.parametrize("groups", [0, -2, 4, 12])
def test_groups_that_the_channels_do_not_divide_into_are_refused(groups):
    x, g = Tensor(np.ones((2, 6, 3, 3))), Tensor(np.ones(6))
    with pytest.raises(ValueError, match=f"group_norm: 6 channels do not divide into {groups} groups"):
        ops.group_norm(x, groups, g, g)


@pytest.mark.parametrize("shapes", [[(2, 4, 4), (4,), (4,)], [(2, 4, 3, 3), (2,), (4,)]], ids=str)
def test_shapes_that_do_not_fit_are_refused_by_name(shapes):
    x, g, b = (Tensor(np.ones(s)) for s in shapes)
    with pytest.raises(ValueError) as refusal:
        ops.group_norm(x, 2, g, b)
    assert str(refusal.value).startswith("group_norm: ")
    assert all(str(s) in str(refusal.value) for s in shapes)

"""Group normalisation: the arithmetic of batch norm over groups of channels of a single image."""

import numpy as np
import pytest

from minidl import ops
from minidl.backend import problem_of, to_device, to_numpy
from minidl.cuda_on_cpu import thread_order
from minidl.gradcheck import check_vjp
from minidl.tensor import Tensor

EPS = 1e-5
# (N, C, H, W) and the number of groups: layer norm, instance norm, single pixels, and cases in between
CASES = [
    *[((2, 6, 3, 4), 1), ((2, 6, 3, 4), 2), ((3, 6, 2, 5), 3), ((2, 4, 3, 3), 4)],
    *[((1, 4, 1, 1), 2), ((3, 6, 1, 1), 2)],
]
ALL_CASES = pytest.mark.parametrize(("shape", "groups"), CASES, ids=str)
PLAIN_AND_RELU = pytest.mark.parametrize("relu", [False, True], ids=["plain", "relu"])


def random_inputs(rng, shape):
    """Return images with channels of different means and deviations, weights and biases."""
    C = shape[1]
    x = rng.normal(size=shape) * rng.uniform(0.5, 3.0, (C, 1, 1)) + rng.normal(size=(C, 1, 1))
    return x, rng.uniform(0.5, 2.0, C), rng.normal(size=C)


def group_norm_of(groups, relu=False):
    return lambda x, g, b: ops.group_norm(x, groups, g, b, relu=relu)


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
@PLAIN_AND_RELU
def test_it_agrees_with_naive_loops(shape, groups, relu, rng, value):
    x, g, b = random_inputs(rng, shape)
    found = value(group_norm_of(groups, relu), x, g, b)
    z = naive_group_norm(x, groups, g, b)
    np.testing.assert_allclose(found, np.maximum(z, 0.0) if relu else z, rtol=1e-9, atol=1e-11)


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


def elementary_group_norm(x, groups, g, b, relu):
    """Group norm composed of elementary operations, differentiated by backpropagation."""
    rows = x.reshape(len(x.data), groups, -1)
    d = rows - rows.mean(2, keepdims=True)
    n = (d * ((d * d).mean(2, keepdims=True) + EPS) ** -0.5).reshape(*x.shape)
    z = n * g.reshape(1, -1, 1, 1) + b.reshape(1, -1, 1, 1)
    return z.relu() if relu else z


def value_and_gradients(f, arrays, cotangent):
    inputs = [Tensor(a, requires_grad=True) for a in arrays]
    y = f(*inputs)
    y.backward(cotangent)
    return [y.numpy(), *(to_numpy(t.grad) for t in inputs)]


def check_all(found, expected, dtype, tolerance=None):
    """Compare each array with the expected one, relative to its largest number and the dtype's precision."""
    tolerance = tolerance or (2e-5 if dtype == np.float32 else 1e-12)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


# Images that the CPU processes in several pieces, the last of which is smaller, and rows just above and below
# the threads of a block.
@PLAIN_AND_RELU
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("shape", "groups"),
    [
        ((2, 6, 1, 257), 2),
        ((3, 4, 1, 255), 2),
        ((3, 10, 1, 1), 2),
        ((2, 6, 60, 61), 3),
        ((1, 2, 181, 182), 1),
    ],
    ids=str,
)
def test_it_agrees_with_elementary_operations(shape, groups, dtype, relu, rng, put):
    arrays, dy = random_inputs(rng, shape), rng.normal(size=shape)
    expected = value_and_gradients(lambda x, g, b: elementary_group_norm(x, groups, g, b, relu), arrays, dy)
    found = value_and_gradients(
        group_norm_of(groups, relu), [put(a.astype(dtype)) for a in arrays], put(dy.astype(dtype))
    )
    check_all(found, expected, dtype)


def test_float32_is_precise_for_a_mean_far_from_zero(rng, put):
    """E[x^2] - E[x]^2 would be rounding error. The means of the channels differ: no shift removes all."""
    shape = 2, 6, 40, 40
    x = (1e4 + rng.normal(size=shape) + rng.normal(size=(2, 6, 1, 1))).astype(np.float32)
    g, b, dy = (rng.normal(size=s).astype(np.float32) for s in (6, 6, shape))
    found = value_and_gradients(group_norm_of(2), [put(a) for a in (x, g, b)], put(dy))
    exact = [a.astype(np.float64) for a in (x, g, b, dy)]
    expected = value_and_gradients(
        lambda *t: elementary_group_norm(t[0], 2, *t[1:], False), exact[:3], exact[3]
    )
    check_all(found, expected, np.float32, tolerance=2e-3)  # x itself is rounded to 5e-4
    ones, zeros = put(np.ones(6, np.float32)), put(np.zeros(6, np.float32))
    n = ops.group_norm(Tensor(put(x)), 2, Tensor(ones), Tensor(zeros)).numpy().reshape(2, 2, -1)
    np.testing.assert_allclose(n.std(2, dtype=np.float64), 1.0, rtol=1e-4)


def test_the_gradient_of_relu_is_zero_at_zero(put):
    x, zero = put(np.arange(16.0).reshape(1, 2, 2, 4)), put(np.zeros(2))
    found = value_and_gradients(group_norm_of(1, relu=True), (x, zero, zero), put(np.ones((1, 2, 2, 4))))
    assert all((a == 0).all() for a in found)


def test_a_nan_is_not_hidden_by_relu_and_stays_in_its_group(rng, value):
    x, g, b = random_inputs(rng, (2, 4, 3, 3))
    x[1, 2, 2, 2] = np.nan
    y = value(group_norm_of(2, relu=True), x, g, b)
    assert np.isnan(y[1, 2:]).all()
    assert np.isfinite(y[0]).all() and np.isfinite(y[1, :2]).all()


def test_only_x_is_kept_for_the_backward_pass(rng, put):
    x, g, b = (Tensor(put(a), requires_grad=True) for a in random_inputs(rng, (2, 4, 5, 6)))
    operation = ops.group_norm(x, 2, g, b, relu=True).creator
    values = [v for kept in vars(operation).values() for v in (kept if isinstance(kept, tuple) else (kept,))]
    large = [v for v in values if hasattr(v, "nbytes") and v.size > 4]
    assert [id(v) for v in large] == [id(x.data)]


def test_arrays_that_are_not_contiguous_give_the_same_results(rng, put):
    x, g, b = random_inputs(rng, (4, 6, 5, 7))
    dy = rng.normal(size=x.shape)

    def run(x, dy):
        return value_and_gradients(group_norm_of(2, relu=True), (x, put(g), put(b)), dy)

    def strided(a):
        """Return the same numbers as a transposed view."""
        return put(np.ascontiguousarray(a.transpose(3, 1, 2, 0))).transpose(3, 1, 2, 0)

    for a, expected in zip(run(strided(x), strided(dy)), run(put(x), put(dy)), strict=True):
        np.testing.assert_array_equal(a, expected)


@pytest.mark.parametrize("order", ["forward", "reverse", "shuffled"])
def test_the_threads_of_a_block_may_run_in_any_order(order, rng):
    if problem := problem_of("cuda-on-cpu"):
        pytest.skip(problem)
    arrays, dy = random_inputs(rng, (2, 4, 17, 19)), rng.normal(size=(2, 4, 17, 19))
    expected = value_and_gradients(lambda *t: elementary_group_norm(t[0], 2, *t[1:], True), arrays, dy)
    put = [to_device(a, "cuda-on-cpu") for a in (*arrays, dy)]
    with thread_order(order):
        found = value_and_gradients(group_norm_of(2, relu=True), put[:3], put[3])
    check_all(found, expected, np.float64)


@pytest.mark.parametrize("groups", [0, -2, 4, 12])
def test_a_number_of_groups_that_does_not_divide_the_channels_is_rejected(groups):
    x, g = Tensor(np.ones((2, 6, 3, 3))), Tensor(np.ones(6))
    with pytest.raises(ValueError, match=f"group_norm: 6 channels do not divide into {groups} groups"):
        ops.group_norm(x, groups, g, g)


@pytest.mark.parametrize("shape", [(0, 6, 3, 3), (2, 6, 0, 3)], ids=str)
def test_an_empty_input_is_rejected(shape, put):
    g = Tensor(put(np.ones(6)))
    with pytest.raises(ValueError, match=r"group_norm: x \(.*\) is empty"):
        ops.group_norm(Tensor(put(np.ones(shape))), 2, g, g)


@pytest.mark.parametrize("shapes", [[(2, 4, 4), (4,), (4,)], [(2, 4, 3, 3), (2,), (4,)]], ids=str)
def test_the_error_for_mismatched_shapes_names_the_operation_and_the_shapes(shapes):
    x, g, b = (Tensor(np.ones(s)) for s in shapes)
    with pytest.raises(ValueError) as error:
        ops.group_norm(x, 2, g, b)
    assert str(error.value).startswith("group_norm: ")
    assert all(str(s) in str(error.value) for s in shapes)

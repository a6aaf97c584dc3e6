"""Batch normalisation: results for each channel, properties of the gradient, and rejected arguments."""

import numpy as np
import pytest

from minidl import ops
from minidl.average import weighted_sum
from minidl.backend import problem_of, to_device, to_numpy
from minidl.cuda_on_cpu import thread_order
from minidl.gradcheck import check_vjp
from minidl.ops.norm import fused_cuda
from minidl.tensor import Tensor

EPS = 1e-5
SHAPES = [(4, 3, 5, 6), (2, 1, 1, 1), (1, 2, 3, 1), (5, 4, 1, 1)]
ALL_SHAPES = pytest.mark.parametrize("shape", SHAPES, ids=str)


def random_inputs(rng, shape):
    """Return images with channels of different means and deviations, weights and biases."""
    C = shape[1]
    x = rng.normal(size=shape) * rng.uniform(0.5, 3.0, (C, 1, 1)) + rng.normal(size=(C, 1, 1))
    return x, rng.uniform(0.5, 2.0, C), rng.normal(size=C)


def naive_batch_norm(x, g, b, eps=EPS):
    y = np.empty_like(x)
    for c in range(x.shape[1]):
        values = x[:, c].ravel()
        mean = sum(values) / len(values)
        variance = sum((v - mean) ** 2 for v in values) / len(values)
        y[:, c] = g[c] * (x[:, c] - mean) / np.sqrt(variance + eps) + b[c]
    return y


def naive_gradients(x, g, dy, eps=EPS):
    """The chain rule with the whole Jacobian of n = (x - mean) r, one channel at a time."""
    dx, dg, db = np.empty_like(x), np.empty_like(g), np.empty_like(g)
    for c in range(x.shape[1]):
        values, u = x[:, c].ravel(), dy[:, c].ravel()
        m, r = len(values), 1.0 / np.sqrt(values.var() + eps)
        centred = values - values.mean()
        centring = np.eye(m) - 1.0 / m  # d(x_i - mean) / dx_j
        jacobian = r * centring - r**3 / m * np.outer(centred, centring @ centred)  # dr/dx = -r^3/m centred
        dx[:, c] = (g[c] * u @ jacobian).reshape(x[:, c].shape)
        dg[c], db[c] = u @ centred * r, sum(u)
    return dx, dg, db


def batch_norm(x, g, b):
    return ops.batch_norm(x, g, b)[0]


@ALL_SHAPES
def test_in_training_it_agrees_with_naive_loops(shape, rng, value):
    x, g, b = random_inputs(rng, shape)
    np.testing.assert_allclose(value(batch_norm, x, g, b), naive_batch_norm(x, g, b), rtol=1e-9, atol=1e-11)


@ALL_SHAPES
def test_its_gradients_agree_with_the_whole_jacobian(shape, rng, gradients):
    x, g, b = random_inputs(rng, shape)
    dy = rng.normal(size=shape)
    found = gradients(batch_norm, x, g, b, cotangent=dy)
    for dx, expected in zip(found, naive_gradients(x, g, dy), strict=True):
        np.testing.assert_allclose(dx, expected, rtol=1e-8, atol=1e-10)


@ALL_SHAPES
def test_both_modes_agree_with_a_central_difference(shape, rng):
    x, g, b = random_inputs(rng, shape)
    statistics = rng.normal(size=shape[1]), rng.uniform(0.5, 2.0, shape[1])
    # With two values per channel, n is 1 and -1 for any x: dx is nearly 0, so its relative error is larger.
    tolerance = 1e-4 if shape == (2, 1, 1, 1) else 1e-6
    check_vjp(batch_norm, x, g, b, rng=rng, tolerance=tolerance)
    check_vjp(lambda *t: ops.batch_norm(*t, statistics)[0], x, g, b, rng=rng)


def test_the_bias_is_each_channel_s_mean_and_the_weight_its_standard_deviation(rng, value):
    x, g, b = random_inputs(rng, (4, 3, 5, 6))
    y = value(lambda *t: ops.batch_norm(*t, eps=0.0)[0], x, g, b)
    np.testing.assert_allclose(y.mean((0, 2, 3)), b, rtol=1e-12)
    np.testing.assert_allclose(y.std((0, 2, 3)), g, rtol=1e-12)


def test_the_statistics_are_the_mean_and_the_variance_divided_by_m_of_the_batch(rng, put):
    x, g, b = random_inputs(rng, (4, 3, 5, 6))
    _, (mean, variance) = ops.batch_norm(*(Tensor(put(a)) for a in (x, g, b)))
    np.testing.assert_allclose(to_numpy(mean), x.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(to_numpy(variance), x.var((0, 2, 3)), rtol=1e-12)


def test_the_output_does_not_change_if_the_image_is_shifted_and_scaled(rng, value):
    x, g, b = random_inputs(rng, (4, 3, 5, 6))

    def f(*t):
        return ops.batch_norm(*t, eps=1e-12)[0]

    np.testing.assert_allclose(value(f, 7.0 * x - 100.0, g, b), value(f, x, g, b), rtol=1e-8, atol=1e-9)


def test_the_gradient_has_no_component_along_a_constant_or_along_the_image(rng, gradients):
    x, g, b = random_inputs(rng, (4, 3, 5, 6))
    dy = rng.normal(size=x.shape)
    (dx, _, _) = gradients(lambda *t: ops.batch_norm(*t, eps=1e-12)[0], x, g, b, cotangent=dy)
    np.testing.assert_allclose(dx.sum((0, 2, 3)), np.zeros(3), atol=1e-12)
    np.testing.assert_allclose((dx * x).sum((0, 2, 3)), np.zeros(3), atol=1e-9)
    assert np.abs(dx).max() > 0.1


def test_a_cotangent_of_ones_gives_a_zero_gradient(rng, gradients):
    x, g, b = random_inputs(rng, (4, 3, 5, 6))
    dx, dg, db = gradients(batch_norm, x, g, b, cotangent=np.ones(x.shape))
    np.testing.assert_allclose(dx, np.zeros(x.shape), atol=1e-12)
    np.testing.assert_allclose(dg, np.zeros(3), atol=1e-12)
    np.testing.assert_array_equal(db, [120.0, 120.0, 120.0])


def test_a_constant_channel_becomes_the_bias_and_its_gradient_is_finite(rng, value, gradients):
    x, g, b = np.full((2, 1, 3, 3), 5.0), np.array([2.0]), np.array([0.5])
    np.testing.assert_array_equal(value(batch_norm, x, g, b), np.full(x.shape, 0.5))
    dx, _, _ = gradients(batch_norm, x, g, b, cotangent=rng.normal(size=x.shape))
    assert np.isfinite(dx).all()


def test_the_variance_is_precise_in_float32_for_a_mean_far_from_zero(rng, put):
    # E[x^2] - E[x]^2 would be pure rounding error.
    x = (1e4 + rng.normal(size=(8, 1, 32, 32))).astype(np.float32)
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    _, (_, variance) = ops.batch_norm(*(Tensor(put(a)) for a in (x, one, zero)))
    np.testing.assert_allclose(to_numpy(variance), x.astype(np.float64).var((0, 2, 3)), rtol=1e-3)


def test_with_given_statistics_it_is_one_multiply_add_per_channel(rng, put):
    x, g, b = random_inputs(rng, (4, 3, 5, 6))
    mean, variance, dy = rng.normal(size=3), rng.uniform(0.5, 2.0, 3), rng.normal(size=x.shape)
    inputs = [Tensor(put(a), requires_grad=True) for a in (x, g, b)]
    y, returned = ops.batch_norm(*inputs, (put(mean), put(variance)), eps=0.1)
    y.backward(put(dy))
    n = (x - mean[:, None, None]) / np.sqrt(variance + 0.1)[:, None, None]
    np.testing.assert_allclose(y.numpy(), g[:, None, None] * n + b[:, None, None], rtol=1e-10, atol=1e-12)
    dx, dg, db = (to_numpy(t.grad) for t in inputs)
    np.testing.assert_allclose(dx, dy * (g / np.sqrt(variance + 0.1))[:, None, None], rtol=1e-12)
    np.testing.assert_allclose(dg, (dy * n).sum((0, 2, 3)), rtol=1e-10)
    np.testing.assert_allclose(db, dy.sum((0, 2, 3)), rtol=1e-12)
    for found, given in zip(returned, (mean, variance), strict=True):
        np.testing.assert_array_equal(to_numpy(found), given)


def test_both_modes_agree_with_the_statistics_of_the_batch(rng):
    inputs = [Tensor(a) for a in random_inputs(rng, (4, 3, 5, 6))]
    y, statistics = ops.batch_norm(*inputs)
    np.testing.assert_allclose(ops.batch_norm(*inputs, statistics)[0].data, y.data, rtol=1e-9, atol=1e-11)


def test_with_given_statistics_each_image_is_independent_and_one_value_is_enough(rng):
    x, g, b = random_inputs(rng, (4, 3, 1, 1))
    statistics = rng.normal(size=3), rng.uniform(0.5, 2.0, 3)
    together = ops.batch_norm(Tensor(x), Tensor(g), Tensor(b), statistics)[0].data
    for n in range(4):
        alone = ops.batch_norm(Tensor(x[n : n + 1]), Tensor(g), Tensor(b), statistics)[0].data
        np.testing.assert_allclose(together[n : n + 1], alone, rtol=1e-14)


def test_the_error_for_one_value_per_channel_in_training_names_the_remedy():
    x, g, b = Tensor(np.ones((1, 3, 1, 1))), Tensor(np.ones(3)), Tensor(np.ones(3))
    with pytest.raises(ValueError, match=r"batch_norm: x \(1, 3, 1, 1\) has one value .* use a larger"):
        ops.batch_norm(x, g, b)


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 3, 0, 4)], ids=str)
def test_an_empty_batch_has_no_statistics(shape, put):
    x, g, b = Tensor(put(np.ones(shape))), Tensor(put(np.ones(3))), Tensor(put(np.ones(3)))
    with pytest.raises(ValueError, match=r"batch_norm: x \(.*\) has no value per channel"):
        ops.batch_norm(x, g, b)


@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 1)], ids=str)
def test_statistics_of_another_shape_are_rejected(shape, put):
    x, g, b = (Tensor(put(np.ones(s))) for s in ((2, 3, 4, 4), (3,), (3,)))
    for statistics in ((np.ones(shape), np.ones(3)), (np.ones(3), np.ones(shape))):
        with pytest.raises(ValueError, match=r"batch_norm: expected statistics \(3,\), got "):
            ops.batch_norm(x, g, b, tuple(map(put, statistics)))


@pytest.mark.parametrize(
    "shapes", [[(2, 3, 4), (3,), (3,)], [(2, 3, 4, 4), (4,), (3,)], [(2, 3, 4, 4), (3,), (3, 1)]], ids=str
)
def test_the_error_for_mismatched_shapes_names_the_operation_and_the_shapes(shapes):
    with pytest.raises(ValueError) as error:
        ops.batch_norm(*(Tensor(np.ones(s)) for s in shapes))
    assert str(error.value).startswith("batch_norm: ")
    assert all(str(s) in str(error.value) for s in shapes)


def test_statistics_of_another_dtype_are_rejected():
    x, g, b = (Tensor(np.ones(s, np.float32)) for s in ((2, 3, 4, 4), (3,), (3,)))
    with pytest.raises(TypeError, match="batch_norm: the statistics are float64 on cpu, x is float32 on cpu"):
        ops.batch_norm(x, g, b, (np.zeros(3), np.ones(3)))


def elementary_batch_norm(x, g, b, relu):
    """Batch norm composed of elementary operations, differentiated by backpropagation."""
    d = x - x.mean((0, 2, 3), keepdims=True)
    n = d * ((d * d).mean((0, 2, 3), keepdims=True) + EPS) ** -0.5
    z = n * g.reshape(1, -1, 1, 1) + b.reshape(1, -1, 1, 1)
    return z.relu() if relu else z


def elementary_batch_norm_inference(x, g, b, mean, var, relu):
    n = (x - mean[None, :, None, None]) * (var[None, :, None, None] + EPS) ** -0.5
    z = n * g.reshape(1, -1, 1, 1) + b.reshape(1, -1, 1, 1)
    return z.relu() if relu else z


def value_and_gradients(f, arrays, cotangent):
    inputs = [Tensor(a, requires_grad=True) for a in arrays]
    y = f(*inputs)
    y.backward(cotangent)
    return [y.numpy(), *(to_numpy(t.grad) for t in inputs)]


# A warp owns 128 pixels of an image here and a block at most 1024: sizes around these limits, and
# images that the CPU processes in several pieces, the last of which is smaller.
ALL_SIZES = pytest.mark.parametrize(
    "shape", [(2, 3, 1, 257), (3, 1, 1, 255), (7, 5, 1, 1), (5, 3, 60, 61), (1, 2, 241, 272)], ids=str
)


@pytest.mark.parametrize("relu", [False, True], ids=["plain", "relu"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@ALL_SIZES
def test_in_training_it_agrees_with_elementary_operations(shape, dtype, relu, rng, put):
    arrays, dy = random_inputs(rng, shape), rng.normal(size=shape)
    expected = value_and_gradients(lambda *t: elementary_batch_norm(*t, relu), arrays, dy)
    found = value_and_gradients(
        lambda *t: ops.batch_norm(*t, relu=relu)[0],
        [put(a.astype(dtype)) for a in arrays],
        put(dy.astype(dtype)),
    )
    check_all(found, expected, dtype)


@pytest.mark.parametrize("relu", [False, True], ids=["plain", "relu"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@ALL_SIZES
def test_in_evaluation_it_agrees_with_elementary_operations(shape, dtype, relu, rng, put):
    arrays, dy, C = random_inputs(rng, shape), rng.normal(size=shape), shape[1]
    statistics = rng.normal(size=C), rng.uniform(0.5, 2.0, C)
    expected = value_and_gradients(
        lambda *t: elementary_batch_norm_inference(*t, *statistics, relu), arrays, dy
    )
    given = tuple(put(v.astype(dtype)) for v in statistics)
    found = value_and_gradients(
        lambda *t: ops.batch_norm(*t, given, relu=relu)[0],
        [put(a.astype(dtype)) for a in arrays],
        put(dy.astype(dtype)),
    )
    check_all(found, expected, dtype)


def check_all(found, expected, dtype):
    """Compare each array with the expected one, relative to its largest number and the dtype's precision."""
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(
            a, b, rtol=0, atol=(2e-5 if dtype == np.float32 else 1e-12) * np.abs(b).max()
        )


def test_arrays_that_are_not_contiguous_give_the_same_results(rng, put):
    x, g, b = random_inputs(rng, (4, 3, 6, 10))
    dy = rng.normal(size=x.shape)

    def run(x, dy):
        return value_and_gradients(lambda *t: ops.batch_norm(*t, relu=True)[0], (x, put(g), put(b)), dy)

    def strided(a):
        """Return the same numbers as a strided, transposed view of a larger array."""
        larger = np.zeros((20, 3, 6, 4))
        larger[::2] = a.transpose(3, 1, 2, 0)
        return put(larger)[::2].transpose(3, 1, 2, 0)

    for a, b_ in zip(run(strided(x), strided(dy)), run(put(x), put(dy)), strict=True):
        np.testing.assert_array_equal(a, b_)


def test_the_gradient_of_relu_is_zero_at_zero(put):
    x, zero = put(np.arange(8.0).reshape(1, 1, 2, 4)), put(np.zeros(1))
    found = value_and_gradients(
        lambda *t: ops.batch_norm(*t, relu=True)[0], (x, zero, zero), put(np.ones((1, 1, 2, 4)))
    )
    assert all((a == 0).all() for a in found)


def test_a_nan_is_not_hidden_by_relu(rng, put):
    x, g, b = random_inputs(rng, (2, 2, 3, 3))
    x[1, 1, 2, 2] = np.nan
    y = ops.batch_norm(*(Tensor(put(a)) for a in (x, g, b)), relu=True)[0].numpy()
    assert np.isfinite(y[:, 0]).all() and np.isnan(y[:, 1]).all()


@pytest.mark.parametrize("mean", [1000.0, -30.0])
def test_float32_is_precise_for_a_mean_far_from_zero(mean, rng, put):
    """The means of the images differ as well, so that no shift from a single image removes them all."""
    x = (mean + rng.normal(size=(6, 2, 50, 50)) + rng.normal(size=(6, 1, 1, 1))).astype(np.float32)
    arrays, dy = (
        (x, np.float32([1.0, 2.0]), np.float32([0.5, 0.0])),
        rng.normal(size=x.shape).astype(np.float32),
    )
    inputs = [Tensor(put(a)) for a in arrays]
    y, (found_mean, found_var) = ops.batch_norm(*inputs)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(to_numpy(found_var), exact.var((0, 2, 3)), rtol=2e-5)
    np.testing.assert_allclose(to_numpy(found_mean), exact.mean((0, 2, 3)), rtol=2e-7)
    found = value_and_gradients(lambda *t: ops.batch_norm(*t)[0], [put(a) for a in arrays], put(dy))
    expected = value_and_gradients(
        lambda *t: elementary_batch_norm(*t, False),
        [a.astype(np.float64) for a in arrays],
        dy.astype(np.float64),
    )
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=3e-4 * np.abs(b).max())


def test_the_buffer_size_of_numpy_is_restored(rng):
    arrays, dy = random_inputs(rng, (2, 3, 4, 4)), rng.normal(size=(2, 3, 4, 4))
    default = np.setbufsize(4096)
    try:
        value_and_gradients(lambda *t: ops.batch_norm(*t, relu=True)[0], arrays, dy)
        assert np.getbufsize() == 4096
    finally:
        np.setbufsize(default)


@pytest.mark.parametrize("order", ["forward", "reverse", "shuffled"])
def test_the_threads_of_a_block_may_run_in_any_order(order, rng):
    if problem := problem_of("cuda-on-cpu"):
        pytest.skip(problem)
    arrays, dy = random_inputs(rng, (2, 3, 17, 19)), rng.normal(size=(2, 3, 17, 19))
    expected = value_and_gradients(lambda *t: elementary_batch_norm(*t, True), arrays, dy)
    put = [to_device(a, "cuda-on-cpu") for a in (*arrays, dy)]
    with thread_order(order):
        found = value_and_gradients(lambda *t: ops.batch_norm(*t, relu=True)[0], put[:3], put[3])
    check_all(found, expected, np.float64)


def test_a_weighted_sum_of_two_arrays(rng, put):
    u, v = rng.normal(size=(2, 300))
    np.testing.assert_allclose(
        to_numpy(weighted_sum(0.9, put(u), 0.2, put(v))), 0.9 * u + 0.2 * v, rtol=1e-12
    )


@pytest.mark.parametrize("shape", [(16, 8, 256, 256), (16, 12, 160, 160), (1, 1, 1024, 1024)], ids=str)
def test_the_gpu_runs_all_blocks_of_a_large_batch_at_a_time(shape):
    (rows, of_row), (block,) = fused_cuda.shares(np.broadcast_to(0.0, shape))
    assert rows == shape[0] * shape[1]
    assert block == 256
    assert fused_cuda.BLOCKS / 2 < rows * of_row <= fused_cuda.BLOCKS


def test_a_thread_has_four_pixels_if_a_row_has_few():
    assert fused_cuda.shares(np.zeros((2, 3, 16, 16))) == ((6, 1), (64,))
    assert fused_cuda.shares(np.zeros((2, 3, 40, 64))) == ((6, 3), (256,))


def test_a_row_has_a_block_even_if_there_are_more_rows_than_blocks():
    assert fused_cuda.shares(np.broadcast_to(0.0, (16, 128, 16, 16))) == ((2048, 1), (64,))
    assert fused_cuda.shares(np.zeros((0, 3, 8, 8))) == ((0, 1), (32,))

"""Max-pooling agrees with naive loops: the maximum, the pixel that receives the gradient, and the border."""

import itertools
import math

import numpy as np
import pytest

from minidl import ops
from minidl.backend import to_numpy
from minidl.gradcheck import check_vjp
from minidl.gradcheck_cases import all_different
from minidl.tensor import Tensor

# image (H, W), kernel, stride, padding
GEOMETRIES = {
    "2x2": ((4, 6), (2, 2), (2, 2), (0, 0)),
    "2x2, W a multiple of 4": ((6, 8), (2, 2), (2, 2), (0, 0)),
    "sides not divisible by the stride": ((5, 7), (2, 2), (2, 2), (0, 0)),
    "1x1": ((3, 4), (1, 1), (1, 1), (0, 0)),
    "kernel as large as the image": ((3, 4), (3, 4), (1, 1), (0, 0)),
    "overlapping": ((5, 6), (3, 3), (1, 1), (0, 0)),
    "overlapping, padded": ((5, 6), (3, 3), (2, 2), (1, 1)),
    "rectangular": ((7, 6), (3, 2), (2, 1), (1, 0)),
    "stride larger than the kernel": ((7, 8), (2, 2), (3, 4), (0, 0)),
    "stride larger than the kernel, padded": ((6, 5), (2, 2), (3, 3), (1, 1)),
    "half the window is padding": ((4, 4), (4, 2), (1, 1), (2, 1)),
    "one pixel": ((1, 1), (3, 3), (1, 1), (1, 1)),
}
ALL_GEOMETRIES = pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
BOTH_DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
TRANSPOSE = (0, 1, 3, 2)
BATCHES = pytest.mark.parametrize("batch", [(1, 1), (2, 3)], ids="N, C = {}".format)


def naive_max_pool2d(x, kernel, stride, padding):
    """Return y and, for each output pixel, the (row, column) in x of the first largest pixel under it."""
    (N, C, H, W), (KH, KW), (SH, SW), (PH, PW) = x.shape, kernel, stride, padding
    y = np.empty((N, C, (H + 2 * PH - KH) // SH + 1, (W + 2 * PW - KW) // SW + 1))
    winners = {}
    for n, c, i, j in np.ndindex(y.shape):
        rows = range(max(0, SH * i - PH), min(H, SH * i - PH + KH))
        columns = range(max(0, SW * j - PW), min(W, SW * j - PW + KW))
        winners[n, c, i, j] = max(itertools.product(rows, columns), key=lambda at: x[n, c, *at])
        y[n, c, i, j] = x[n, c, *winners[n, c, i, j]]
    return y, winners


@BATCHES
@ALL_GEOMETRIES
def test_value_and_gradient_agree_with_naive_loops(geometry, batch, rng, value, gradients):
    size, *settings = geometry
    x = all_different(rng, *batch, *size) - 10.0  # all negative: zeros in the padding would be the maximum
    expected, winners = naive_max_pool2d(x, *settings)
    y = value(lambda t: ops.max_pool2d(t, *settings), x)
    assert y.shape == expected.shape
    np.testing.assert_array_equal(y, expected)
    dy, dx = rng.normal(size=y.shape), np.zeros(x.shape)
    for (n, c, i, j), (row, column) in winners.items():
        dx[n, c, row, column] += dy[n, c, i, j]
    found = gradients(lambda t: ops.max_pool2d(t, *settings), x, cotangent=dy)[0]
    np.testing.assert_allclose(found, dx, rtol=1e-12, atol=1e-14)


@ALL_GEOMETRIES
def test_the_first_of_equal_pixels_in_reading_order_receives_the_gradient(geometry, rng, gradients):
    size, *settings = geometry
    for x in (np.zeros((1, 2, *size)), rng.integers(-2, 0, (1, 2, *size)).astype(float)):
        y, winners = naive_max_pool2d(x, *settings)
        dy, dx = rng.normal(size=y.shape), np.zeros(x.shape)
        for (n, c, i, j), (row, column) in winners.items():
            dx[n, c, row, column] += dy[n, c, i, j]
        found = gradients(lambda t: ops.max_pool2d(t, *settings), x, cotangent=dy)[0]
        np.testing.assert_allclose(found, dx, rtol=1e-12, atol=1e-14)


def test_two_windows(value, gradients):
    x = np.array([[[[1.0, 3.0, 5.0, 5.0, 9.0], [4.0, 2.0, 5.0, 5.0, 9.0]]]])
    np.testing.assert_array_equal(value(ops.max_pool2d, x), [[[[4.0, 5.0]]]])
    (dx,) = gradients(ops.max_pool2d, x, cotangent=np.array([[[[10.0, 20.0]]]]))
    np.testing.assert_array_equal(dx, [[[[0, 0, 20.0, 0, 0], [10.0, 0, 0, 0, 0]]]])


def test_a_pixel_that_is_the_maximum_of_several_windows_sums_their_gradients(gradients):
    x = np.zeros((1, 1, 3, 3))
    x[0, 0, 1, 1] = 1.0
    dy = np.array([[[[1.0, 10.0], [100.0, 1000.0]]]])
    (dx,) = gradients(lambda t: ops.max_pool2d(t, 2, stride=1), x, cotangent=dy)
    np.testing.assert_array_equal(dx, 1111.0 * x)


def test_padding_is_never_the_maximum_even_of_very_negative_pixels(value, gradients):
    x = np.full((1, 1, 2, 2), -1e30)
    y = value(lambda t: ops.max_pool2d(t, 3, stride=1, padding=1), x)
    np.testing.assert_array_equal(y, x)
    (dx,) = gradients(lambda t: ops.max_pool2d(t, 3, 1, 1), x, cotangent=np.ones((1, 1, 2, 2)))
    assert dx.sum() == 4.0  # no gradient is lost to the border


@BOTH_DTYPES
@pytest.mark.parametrize("name", ["2x2", "overlapping, padded", "rectangular"])
@pytest.mark.parametrize("shape", [(1, 1, 9, 33), (2, 3, 21, 70), (2, 3, 22, 72)], ids=str)
def test_images_of_several_tiles_are_pooled_completely(name, shape, dtype, rng, value, gradients):
    _, *settings = GEOMETRIES[name]
    x = all_different(rng, *shape).astype(dtype) - 10.0
    expected, winners = naive_max_pool2d(x, *settings)
    y = value(lambda t: ops.max_pool2d(t, *settings), x)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, expected)
    dy, dx = rng.integers(1, 9, y.shape).astype(dtype), np.zeros(x.shape, dtype)
    for (n, c, i, j), (row, column) in winners.items():
        dx[n, c, row, column] += dy[n, c, i, j]
    (found,) = gradients(lambda t: ops.max_pool2d(t, *settings), x, cotangent=dy)
    np.testing.assert_array_equal(found, dx)


def test_arrays_that_begin_at_any_number_of_another_array_are_supported(rng, put):
    """Kernels that read 16 bytes at once need an array that begins at a multiple of 16 bytes."""
    x, dy = all_different(rng, 2, 3, 6, 8), rng.normal(size=(2, 3, 3, 4))

    def inside(a, skipped):
        return put(np.concatenate([np.zeros(skipped), a.ravel()]))[skipped:].reshape(a.shape)

    found = []
    for skipped in (0, 1):
        t = Tensor(inside(x, skipped), requires_grad=True)
        y = ops.max_pool2d(t)
        y.backward(inside(dy, skipped))
        np.testing.assert_array_equal(y.numpy(), x.reshape(2, 3, 3, 2, 4, 2).max((3, 5)))
        found.append(to_numpy(t.grad))
    np.testing.assert_array_equal(*found)


def test_transposed_arrays_are_supported(rng, value, gradients):
    """x and dy are transposed views: their memory order differs from the order of their indices."""
    x, dy = all_different(rng, 2, 3, 6, 8), rng.normal(size=(2, 3, 3, 4))
    transposed = lambda t: ops.transpose(ops.max_pool2d(ops.transpose(t, TRANSPOSE)), TRANSPOSE)  # noqa: E731
    np.testing.assert_array_equal(value(transposed, x), value(ops.max_pool2d, x))
    found = gradients(transposed, x, cotangent=dy)
    np.testing.assert_array_equal(found, gradients(ops.max_pool2d, x, cotangent=dy))


@pytest.mark.parametrize("kernel, dtype", [((2, 2), np.uint8), ((17, 15), np.uint8), ((17, 17), np.uint16)])
def test_the_index_of_the_maximum_is_stored_in_the_smallest_sufficient_dtype(kernel, dtype):
    x = np.zeros((1, 1, *kernel))
    x[0, 0, -1, -1] = 1.0
    leaf = Tensor(x, requires_grad=True)
    y = ops.max_pool2d(leaf, kernel)
    assert y.creator.winner.dtype == dtype
    y.backward(np.ones((1, 1, 1, 1)))
    np.testing.assert_array_equal(leaf.grad, x)


@pytest.mark.parametrize("kernel", [(17, 15), (16, 16)])
def test_kernels_compute_windows_of_up_to_255_pixels_and_the_definition_larger_ones(kernel, put, device):
    x = np.zeros((1, 1, *kernel))
    x[0, 0, -1, -1] = 1.0
    leaf = Tensor(put(x), requires_grad=True)
    y = ops.max_pool2d(leaf, kernel)
    if device != "cpu":
        assert y.creator.implementation == ("kernels" if math.prod(kernel) == 255 else "definition")
    y.backward(np.ones((1, 1, 1, 1)))
    np.testing.assert_array_equal(to_numpy(leaf.grad), x)


def test_the_image_is_not_stored_for_the_backward_pass(rng):
    y = ops.max_pool2d(Tensor(rng.normal(size=(2, 3, 8, 8)), requires_grad=True))
    saved = [a.nbytes for a in vars(y.creator).values() if isinstance(a, np.ndarray)]
    assert saved == [y.size]


def test_nan_is_not_hidden(value):
    x = np.zeros((1, 1, 2, 4))
    x[0, 0, 1, 0] = np.nan
    np.testing.assert_array_equal(value(ops.max_pool2d, x), [[[[np.nan, 0.0]]]])


def test_the_stride_is_the_size_of_the_window_by_default(rng, value):
    x = rng.normal(size=(2, 3, 7, 8))
    np.testing.assert_array_equal(
        value(lambda t: ops.max_pool2d(t, (3, 2)), x), value(lambda t: ops.max_pool2d(t, (3, 2), (3, 2)), x)
    )


@ALL_GEOMETRIES
def test_it_agrees_with_a_central_difference(geometry, rng):
    size, *settings = geometry
    check_vjp(lambda t: ops.max_pool2d(t, *settings), all_different(rng, 2, 3, *size), rng=rng)


@pytest.mark.parametrize(
    "shape, settings, mentioned",
    [
        ((3, 4, 4), (2,), [(3, 4, 4)]),
        ((1, 1, 4, 1), (2,), [(1, 1, 4, 1), (2, 2)]),
        ((1, 1, 4, 4), (5,), [(1, 1, 4, 4), (5, 5)]),
        ((1, 1, 4, 4), (2, 0), [(2, 2), (0, 0)]),
        ((1, 1, 4, 4), (2, 2, -1), [(2, 2), (-1, -1)]),
        ((1, 1, 4, 4), ((3, 4), 1, (2, 2)), [(3, 4), (2, 2)]),
        ((1, 1, 4, 4), (0, 1), [(0, 0), (1, 1)]),
    ],
    ids=str,
)
def test_the_error_for_invalid_arguments_names_the_operation_and_the_arguments(shape, settings, mentioned):
    with pytest.raises(ValueError) as error:
        ops.max_pool2d(Tensor(np.ones(shape)), *settings)
    assert str(error.value).startswith("max_pool2d: ")
    assert all(str(pair) in str(error.value) for pair in mentioned)

"""Nearest-neighbour upsampling repeats pixels; its gradient sums over the copies of each pixel."""

import numpy as np
import pytest

from minidl import ops
from minidl.gradcheck import check_adjoint, check_vjp
from minidl.tensor import Tensor

SHAPES = [(2, 3, 4, 5), (1, 1, 1, 1), (1, 2, 1, 3), (2, 1, 9, 33), (0, 1, 2, 2)]
TRANSPOSE = (0, 1, 3, 2)


def test_two_pixels(value, gradients):
    x = np.array([[[[1.0, 2.0]]]])
    np.testing.assert_array_equal(value(ops.upsample_nearest, x), [[[[1, 1, 2, 2], [1, 1, 2, 2]]]])
    dy = np.array([[[[1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0]]]])
    np.testing.assert_array_equal(gradients(ops.upsample_nearest, x, cotangent=dy)[0], [[[[33.0, 77.0]]]])


@pytest.mark.parametrize("s", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_pixel_becomes_a_square(shape, s, rng, value):
    x = rng.normal(size=shape)
    y = value(lambda t: ops.upsample_nearest(t, s), x)
    assert y.shape == (*shape[:2], s * shape[2], s * shape[3])
    for n, c, i, j in np.ndindex(y.shape):
        assert y[n, c, i, j] == x[n, c, i // s, j // s]


@pytest.mark.parametrize("s", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_gradient_sums_over_each_square(shape, s, rng, gradients):
    N, C, H, W = shape
    dy, expected = rng.normal(size=(N, C, s * H, s * W)), np.zeros(shape)
    for n, c, i, j in np.ndindex(dy.shape):
        expected[n, c, i // s, j // s] += dy[n, c, i, j]
    (dx,) = gradients(lambda t: ops.upsample_nearest(t, s), np.zeros(shape), cotangent=dy)
    np.testing.assert_allclose(dx, expected, rtol=1e-12, atol=1e-14)


def test_transposed_arrays_are_supported(rng, value, gradients):
    """x and dy are transposed views: their memory order differs from the order of their indices."""
    x, dy = rng.normal(size=(2, 3, 3, 4)), rng.normal(size=(2, 3, 6, 8))
    transposed = lambda t: ops.transpose(ops.upsample_nearest(ops.transpose(t, TRANSPOSE)), TRANSPOSE)  # noqa: E731
    np.testing.assert_array_equal(value(transposed, x), value(ops.upsample_nearest, x))
    found = gradients(transposed, x, cotangent=dy)
    np.testing.assert_allclose(found, gradients(ops.upsample_nearest, x, cotangent=dy), rtol=1e-14)


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_its_backward_is_its_adjoint(dtype, tolerance, rng, put):
    x = put(rng.random((2, 3, 4, 5)).astype(dtype))
    y = put(rng.random((2, 3, 12, 15)).astype(dtype))

    def back(u):
        t = Tensor(x, requires_grad=True)
        ops.upsample_nearest(t, 3).backward(u)
        return t.grad

    check_adjoint(lambda a: ops.upsample_nearest(Tensor(a), 3).data, back, x, y, tolerance)


def test_it_agrees_with_a_central_difference(rng):
    check_vjp(ops.upsample_nearest, rng.normal(size=(1, 2, 3, 1)), rng=rng)


def test_the_error_for_invalid_arguments_names_the_operation():
    with pytest.raises(ValueError, match="upsample_nearest: scale_factor must be at least 1, got 0"):
        ops.upsample_nearest(Tensor(np.ones((1, 1, 2, 2))), 0)
    with pytest.raises(TypeError, match="upsample_nearest: scale_factor must be a whole number, got 1.5"):
        ops.upsample_nearest(Tensor(np.ones((1, 1, 2, 2))), 1.5)
    for shape in ((2, 2), (1, 1, 1, 2, 2)):
        with pytest.raises(ValueError, match=r"upsample_nearest: expected x \(N, C, H, W\), got "):
            ops.upsample_nearest(Tensor(np.ones(shape)))

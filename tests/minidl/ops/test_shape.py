"""Operations that move elements: no element changes, and the gradient moves each element back."""

import numpy as np
import pytest

from minidl import ops
from minidl.backend import to_numpy
from minidl.gradcheck import check_adjoint, check_vjp
from minidl.tensor import Tensor

BOTH_DTYPES = pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-5), (np.float64, 1e-12)])

INDICES = {
    "row": 1,
    "row from the end": -1,
    "element": (1, 2, 0),
    "slice": slice(0, 2),
    "step": (slice(None), slice(0, 4, 2)),
    "negative steps": (slice(None, None, -1), ..., slice(3, None, -2)),
    "ellipsis": (..., 1),
    "new axis": (slice(None), None, 0),
    "list": ([0, 1, 0, 0],),
    "list with both indices of one row": [2, -1],
    "list between slices": (slice(None), [3, 3, 0], slice(1, 3)),
    "two lists": ([0, 2, 0], [1, 1, 1]),
    "NumPy number": np.int64(1),
    "mask": np.arange(60).reshape(3, 4, 5) % 7 == 0,
    "empty slice": slice(0, 0),
}


def occurrences(shape, index):
    """Return how often x[index] contains each element of x."""
    positions = np.arange(np.prod(shape)).reshape(shape)[index]
    return np.bincount(np.ravel(positions), minlength=np.prod(shape)).reshape(shape)


@pytest.mark.parametrize("name", INDICES)
def test_indexing_agrees_with_numpy_and_each_element_receives_the_sum_of_its_gradients(
    name, rng, value, gradients
):
    index, x = INDICES[name], rng.normal(size=(3, 4, 5))
    y = value(lambda t: ops.getitem(t, index), x)
    np.testing.assert_array_equal(y, x[index])
    assert y.shape == x[index].shape
    (dx,) = gradients(lambda t: t[index], x, cotangent=np.full(y.shape, 3.0))
    np.testing.assert_array_equal(dx, 3.0 * occurrences(x.shape, index))


@pytest.mark.parametrize("name", INDICES)
def test_the_backward_of_indexing_is_its_adjoint(name, rng, gradients, put):
    index, x = INDICES[name], rng.random((3, 4, 5))
    y = rng.random(x[index].shape)

    def back(u):
        return put(gradients(lambda t: t[index], x, cotangent=to_numpy(u))[0])

    check_adjoint(lambda a: Tensor(a)[index].data, back, put(x), put(y))


def test_an_element_taken_twice_receives_the_sum_of_both_gradients(gradients):
    (dx,) = gradients(lambda t: t[[2, 0, 2]], np.zeros(4), cotangent=np.array([1.0, 10.0, 100.0]))
    np.testing.assert_array_equal(dx, [10.0, 0.0, 101.0, 0.0])


@pytest.mark.parametrize("shape", [(24,), (4, 6), (-1, 2), (2, 3, 4), (1, 24, 1)], ids=str)
def test_reshape_keeps_the_order_of_the_elements_forward_and_backward(shape, value, gradients):
    x = np.arange(24.0).reshape(2, 3, 4)
    y = value(lambda t: ops.reshape(t, shape), x)
    np.testing.assert_array_equal(y, x.reshape(shape))
    (dx,) = gradients(lambda t: ops.reshape(t, shape), x, cotangent=100.0 + y)
    np.testing.assert_array_equal(dx, 100.0 + x)


@pytest.mark.parametrize("axes", [None, (0, 1, 2), (2, 0, 1), (1, 2, 0), (-1, 0, 1), (1, -1, -3)], ids=str)
def test_transpose_moves_each_element_back_by_the_inverse_permutation(axes, value, gradients):
    x = np.arange(24.0).reshape(2, 3, 4)
    y = value(lambda t: ops.transpose(t, axes), x)
    np.testing.assert_array_equal(y, x.transpose(axes))
    (dx,) = gradients(lambda t: ops.transpose(t, axes), x, cotangent=100.0 + y)
    np.testing.assert_array_equal(dx, 100.0 + x)


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -3])
def test_concat_joins_along_an_axis_and_each_part_receives_its_own_gradient(axis, rng, value, gradients):
    shapes = [[2, 3, 4, 5] for _ in range(3)]
    for shape, length in zip(shapes, (1, 4, 2), strict=True):
        shape[axis] = length
    parts = [rng.normal(size=shape) for shape in shapes]
    y = value(lambda *t: ops.concat(t, axis), *parts)
    np.testing.assert_array_equal(y, np.concatenate(parts, axis))
    found = gradients(lambda *t: ops.concat(t, axis), *parts, cotangent=100.0 + y)
    for dx, part in zip(found, parts, strict=True):
        np.testing.assert_array_equal(dx, 100.0 + part)


def test_concat_joins_channels_by_default(rng, value):
    a, b = rng.normal(size=(2, 3, 4, 4)), rng.normal(size=(2, 1, 4, 4))
    assert value(lambda *t: ops.concat(t), a, b).shape == (2, 4, 4, 4)


def test_a_tensor_joined_to_itself_receives_the_sum_of_both_gradients(gradients):
    dy = np.array([[1.0, 2.0, 10.0, 20.0]])
    (dx,) = gradients(lambda t: ops.concat((t, t)), np.zeros((1, 2)), cotangent=dy)
    np.testing.assert_array_equal(dx, [[11.0, 22.0]])


@pytest.mark.parametrize("shapes", [[(2, 3, 4), (2, 3, 5)], [(2, 3), (3, 3)], [(2, 3), (2, 3, 4)]], ids=str)
def test_the_error_for_shapes_that_differ_in_another_axis_names_concat_and_the_shapes(shapes):
    with pytest.raises(ValueError) as error:
        ops.concat([Tensor(np.ones(s)) for s in shapes], axis=1)
    assert str(error.value).startswith("concat: ")
    assert all(str(s) in str(error.value) for s in shapes)


@pytest.mark.parametrize("height, width", [((1, 2), (0, 3)), ((0, 0), (0, 0)), ((2, 0), (1, 1))], ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 1), (3, 0, 2)], ids=str)
def test_pad_adds_zeros_around_the_last_two_axes_and_its_gradient_is_the_crop(
    shape, height, width, rng, value, gradients
):
    x = rng.normal(size=shape)
    expected = np.pad(x, [(0, 0)] * (x.ndim - 2) + [height, width])
    np.testing.assert_array_equal(value(lambda t: ops.pad(t, height, width), x), expected)
    dy = rng.normal(size=expected.shape)
    (dx,) = gradients(lambda t: ops.pad(t, height, width), x, cotangent=dy)
    (H, W), (top, left) = shape[-2:], (height[0], width[0])
    np.testing.assert_array_equal(dx, dy[..., top : top + H, left : left + W])


@BOTH_DTYPES
def test_pad_and_crop_are_adjoint_on_the_device(dtype, tolerance, rng, put):
    x, y = (put(rng.random(shape).astype(dtype)) for shape in ((2, 3, 4, 5), (2, 3, 7, 6)))
    check_adjoint(
        lambda a: ops.pad(Tensor(a), (1, 2), (0, 1)).data,
        lambda b: Tensor(b)[:, :, 1:5, 0:5].data,
        x,
        y,
        tolerance,
    )


@BOTH_DTYPES
def test_concat_and_split_are_adjoint_on_the_device(dtype, tolerance, rng, put):
    x, y = (put(rng.random(shape).astype(dtype)) for shape in ((2, 3, 4), (2, 6, 4)))

    def join(a):
        return ops.concat((Tensor(a), Tensor(a) * 2.0)).data

    check_adjoint(join, lambda b: b[:, :3] + 2.0 * b[:, 3:], x, y, tolerance)


def test_compositions_agree_with_a_central_difference(rng):
    a, b = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 1, 4))
    check_vjp(lambda x, y: ops.concat((x, y)).transpose(2, 0, 1).reshape(8, 4)[1:7:2], a, b, rng=rng)
    check_vjp(lambda x: ops.pad(x, (1, 0), (2, 3))[..., [0, 2, 2, 5]], a, rng=rng)


@pytest.mark.parametrize(
    "f, message",
    [
        (lambda x: ops.reshape(x, (5,)), r"Reshape of \(2, 3\): .*\(5,\)"),
        (lambda x: ops.transpose(x, (0,)), r"Transpose of \(2, 3\): "),
        (lambda x: ops.pad(x, (-1, 0), (0, 0)), r"Pad of \(2, 3\): "),
    ],
)
def test_the_error_for_invalid_arguments_names_the_operation_and_the_shape(f, message):
    with pytest.raises(ValueError, match=message):
        f(Tensor(np.ones((2, 3))))

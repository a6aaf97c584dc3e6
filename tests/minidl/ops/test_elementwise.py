"""Arithmetic agrees with NumPy, and its gradients with the textbook formulas."""

import numpy as np
import pytest

from minidl import ops
from minidl.backend import to_numpy
from minidl.gradcheck import check_adjoint, check_vjp
from minidl.ops.elementwise import unbroadcast
from minidl.tensor import Tensor

# Shapes of a and b: equal, new leading axes, stretched axes, both at once, single numbers, empty arrays.
SHAPES = [
    ((2, 3), (2, 3)),
    ((2, 3), (3,)),
    ((3,), (4, 2, 3)),
    ((2, 1), (2, 3)),
    ((4, 1, 3), (5, 1)),
    ((1, 1), (2, 3)),
    ((), (2, 3)),
    ((2, 3), ()),
    ((), ()),
    ((0, 3), (1, 3)),
]

# y = f(a, b), and dy/da and dy/db as functions of a and b.
BINARY = {
    "add": (ops.add, np.add, lambda a, b: 1 + 0 * a * b, lambda a, b: 1 + 0 * a * b),
    "subtract": (ops.subtract, np.subtract, lambda a, b: 1 + 0 * a * b, lambda a, b: -1 + 0 * a * b),
    "multiply": (ops.multiply, np.multiply, lambda a, b: b + 0 * a, lambda a, b: a + 0 * b),
    "divide": (ops.divide, np.divide, lambda a, b: 1 / b + 0 * a, lambda a, b: -a / b**2),
}

# y = f(a), and dy/da.
UNARY = {
    "negative": (ops.negative, np.negative, lambda a: -np.ones_like(a)),
    "exp": (ops.exp, np.exp, np.exp),
    "log": (ops.log, np.log, lambda a: 1 / a),
    "cube": (lambda a: ops.power(a, 3), lambda a: a**3, lambda a: 3 * a**2),
    "root": (lambda a: ops.power(a, 0.5), np.sqrt, lambda a: 0.5 / np.sqrt(a)),
    "reciprocal": (lambda a: ops.power(a, -1), lambda a: 1 / a, lambda a: -1 / a**2),
}


def summed_like(gradient, shape):
    """The sum over every index of `gradient` that broadcasting maps to the same index of `shape`."""
    total = np.zeros(shape)
    for index in np.ndindex(gradient.shape):
        kept = index[len(index) - len(shape) :]
        total[tuple(0 if n == 1 else i for i, n in zip(kept, shape, strict=True))] += gradient[index]
    return total


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("name", BINARY)
def test_two_operands_broadcast_like_numpy_and_their_gradients_are_summed(
    name, shapes, rng, value, gradients
):
    f, numpy_f, da, db = BINARY[name]
    a, b = (rng.uniform(0.5, 2.0, shape) for shape in shapes)
    expected = numpy_f(a, b)
    assert value(f, a, b).shape == expected.shape
    np.testing.assert_allclose(value(f, a, b), expected, rtol=1e-14)
    dy = rng.normal(size=expected.shape)
    found = gradients(f, a, b, cotangent=dy)
    np.testing.assert_allclose(found[0], summed_like(dy * da(a, b), a.shape), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found[1], summed_like(dy * db(a, b), b.shape), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0, 2)], ids=str)
@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_operand_and_their_derivatives(name, shape, rng, value, gradients):
    f, numpy_f, derivative = UNARY[name]
    a, dy = rng.uniform(0.5, 2.0, shape), rng.normal(size=shape)
    np.testing.assert_allclose(value(f, a), numpy_f(a), rtol=1e-14)
    np.testing.assert_allclose(gradients(f, a, cotangent=dy)[0], dy * derivative(a), rtol=1e-12)


@pytest.mark.parametrize("exponent, derivative", [(0, 0.0), (1, 1.0), (2, 0.0), (3, 0.0)])
def test_a_power_at_zero_has_the_polynomials_derivative(exponent, derivative, gradients):
    (dx,) = gradients(lambda x: ops.power(x, exponent), np.zeros(2), cotangent=np.ones(2))
    np.testing.assert_array_equal(dx, [derivative, derivative])


def test_an_integer_power_of_a_negative_number_is_real(value, gradients):
    assert value(lambda x: x**3, np.array(-2.0)) == -8.0
    assert gradients(lambda x: x**3, np.array(-2.0), cotangent=np.array(1.0))[0] == 12.0


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_unbroadcast_is_the_adjoint_of_broadcast(shapes, rng, put):
    small = shapes[0]
    large = np.broadcast_shapes(*shapes)
    x, y = put(rng.random(small)), put(rng.random(large))
    ones = put(np.ones(large))
    check_adjoint(lambda a: a * ones, lambda b: unbroadcast(b, small), x, y)


def test_unbroadcast_returns_the_requested_shape(put):
    dy = put(np.ones((4, 2, 3)))
    for shape, count in [((4, 2, 3), 1), ((2, 3), 4), ((3,), 8), ((1, 3), 8), ((4, 1, 1), 6), ((), 24)]:
        dx = to_numpy(unbroadcast(dy, shape))
        assert dx.shape == shape
        np.testing.assert_array_equal(dx, np.full(shape, count))


def test_a_tensor_divided_or_multiplied_by_itself(gradients):
    a, dy = np.array([2.0, 5.0]), np.array([1.0, 10.0])
    np.testing.assert_allclose(gradients(lambda x: x / x, a, cotangent=dy)[0], [0.0, 0.0], atol=1e-15)
    np.testing.assert_array_equal(gradients(lambda x: x * x, a, cotangent=dy)[0], [4.0, 100.0])


def test_a_composition_agrees_with_a_central_difference(rng):
    a, b = rng.uniform(0.5, 2.0, (4, 1, 3)), rng.uniform(0.5, 2.0, (5, 1))
    check_vjp(lambda x, y: ops.log(ops.exp(-x / y) + (x - y) ** 2 * x), a, b, rng=rng)


@pytest.mark.parametrize("f", [ops.add, ops.subtract, ops.multiply, ops.divide])
def test_the_error_for_shapes_that_do_not_broadcast_names_the_operation_and_the_shapes(f):
    name = f.__name__.capitalize()
    with pytest.raises(ValueError, match=rf"{name} of \(2, 3\) and \(2,\): "):
        f(Tensor(np.ones((2, 3))), Tensor(np.ones(2)))

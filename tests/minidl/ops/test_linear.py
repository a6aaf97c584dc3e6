"""Matrix products, single and batched, and the fully connected layer."""

import numpy as np
import pytest

from minidl import ops
from minidl.gradcheck import check_vjp
from minidl.tensor import Tensor

SHAPES = [
    ((2, 3), (3, 4)),
    ((1, 1), (1, 1)),
    ((1, 5), (5, 1)),
    ((6, 2, 3), (6, 3, 4)),
    ((6, 2, 3), (3, 4)),
    ((2, 3), (6, 3, 4)),
    ((5, 1, 2, 3), (6, 3, 4)),
    ((1, 2, 3), (7, 3, 4)),
    ((0, 3), (3, 4)),
]


def naive_matmul(a, b):
    """The sum over k, one output element at a time; axes before the last two are broadcast."""
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = np.broadcast_to(a, batch + a.shape[-2:]), np.broadcast_to(b, batch + b.shape[-2:])
    y = np.zeros((*batch, a.shape[-2], b.shape[-1]))
    for *at, i, j in np.ndindex(y.shape):
        y[(*at, i, j)] = sum(a[(*at, i, k)] * b[(*at, k, j)] for k in range(a.shape[-1]))
    return y


def naive_gradients(a, b, dy):
    """Every product a_ik b_kj adds dy_ij b_kj to da_ik and dy_ij a_ik to db_kj."""
    da, db = np.zeros_like(a), np.zeros_like(b)
    for *at, i, j in np.ndindex(dy.shape):
        in_a = [0 if n == 1 else p for p, n in zip(at[len(at) - a.ndim + 2 :], a.shape[:-2], strict=True)]
        in_b = [0 if n == 1 else p for p, n in zip(at[len(at) - b.ndim + 2 :], b.shape[:-2], strict=True)]
        da[(*in_a, i)] += dy[(*at, i, j)] * b[(*in_b, slice(None), j)]
        db[(*in_b, slice(None), j)] += dy[(*at, i, j)] * a[(*in_a, i)]
    return da, db


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_matmul_and_its_gradients_agree_with_naive_loops(shapes, rng, value, gradients):
    a, b = (rng.normal(size=shape) for shape in shapes)
    expected = naive_matmul(a, b)
    y = value(ops.matmul, a, b)
    assert y.shape == expected.shape
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-13)
    dy = rng.normal(size=expected.shape)
    for dx, naive in zip(gradients(ops.matmul, a, b, cotangent=dy), naive_gradients(a, b, dy), strict=True):
        np.testing.assert_allclose(dx, naive, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("shapes", SHAPES[:-1], ids=str)
def test_matmul_agrees_with_a_central_difference(shapes, rng):
    check_vjp(ops.matmul, *(rng.normal(size=shape) for shape in shapes), rng=rng)


def test_matmul_computes_only_required_gradients():
    a, b = Tensor(np.ones((2, 3))), Tensor(np.ones((3, 4)), requires_grad=True)
    assert ops.matmul(a, b).creator.backward(np.ones((2, 4)))[0] is None


def test_linear_is_x_times_the_transposed_weight_plus_the_bias(rng, value, gradients):
    x, w, b, dy = (rng.normal(size=shape) for shape in ((5, 3), (4, 3), (4,), (5, 4)))
    expected = np.array([[sum(w[o] * x[n]) + b[o] for o in range(4)] for n in range(5)])
    np.testing.assert_allclose(value(ops.linear, x, w, b), expected, rtol=1e-12)
    np.testing.assert_allclose(value(ops.linear, x, w), expected - b, rtol=1e-12, atol=1e-13)
    dx, dw, db = gradients(ops.linear, x, w, b, cotangent=dy)
    np.testing.assert_allclose(dx, dy @ w, rtol=1e-12)
    np.testing.assert_allclose(dw, sum(np.outer(dy[n], x[n]) for n in range(5)), rtol=1e-12)
    np.testing.assert_allclose(db, sum(dy), rtol=1e-12)


def test_linear_works_on_one_row_and_one_column(rng):
    check_vjp(ops.linear, rng.normal(size=(1, 1)), rng.normal(size=(1, 1)), rng.normal(size=1), rng=rng)


@pytest.mark.parametrize("shapes", [((2, 3), (4, 3)), ((3,), (3, 2)), ((2, 3), (3,)), ((), (3, 2))], ids=str)
def test_the_error_for_mismatched_shapes_names_matmul_and_the_shapes(shapes):
    with pytest.raises(ValueError) as error:
        ops.matmul(*(Tensor(np.ones(s)) for s in shapes))
    assert str(error.value).startswith("matmul: ")
    assert all(str(s) in str(error.value) for s in shapes)


def test_the_error_for_mismatched_batches_or_biases_names_the_operation():
    with pytest.raises(ValueError, match=r"MatMul of \(2, 3, 4\) and \(5, 4, 3\): "):
        ops.matmul(Tensor(np.ones((2, 3, 4))), Tensor(np.ones((5, 4, 3))))
    with pytest.raises(ValueError, match=r"matmul: cannot multiply \(2, 5\) by \(3, 4\)"):
        ops.linear(Tensor(np.ones((2, 5))), Tensor(np.ones((4, 3))))
    with pytest.raises(ValueError, match=r"Add of \(2, 4\) and \(3,\): "):
        ops.linear(Tensor(np.ones((2, 3))), Tensor(np.ones((4, 3))), Tensor(np.ones(3)))

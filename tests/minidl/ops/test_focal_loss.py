"""Focal loss agrees with its definition, down-weights easy pixels, and is exact for large logits."""

import numpy as np
import pytest

from minidl import ops
from minidl.gradcheck import check_vjp
from minidl.tensor import Tensor

SHAPE = (3, 1, 4, 5)


def random_inputs(rng, shape=SHAPE):
    return 2.0 * rng.normal(size=shape), (rng.random(shape) < 0.4).astype(float)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_it_agrees_with_its_definition(gamma, rng, loss_and_gradient):
    x, t = random_inputs(rng)
    losses = []
    for logit, truth in zip(x.ravel(), t.ravel(), strict=True):
        p = 1.0 / (1.0 + np.exp(-logit))
        probability = p if truth == 1.0 else 1.0 - p
        losses.append(-((1.0 - probability) ** gamma) * np.log(probability))
    assert loss_and_gradient(ops.focal_loss, x, t, gamma=gamma)[0] == pytest.approx(
        np.mean(losses), rel=1e-12
    )


def test_gamma_is_two_by_default(rng, loss_and_gradient):
    x, t = random_inputs(rng)
    assert loss_and_gradient(ops.focal_loss, x, t)[0] == loss_and_gradient(ops.focal_loss, x, t, gamma=2.0)[0]


def test_with_gamma_zero_it_is_cross_entropy(rng, loss_and_gradient):
    x, t = random_inputs(rng)
    value, dx = loss_and_gradient(ops.focal_loss, x, t, gamma=0.0)
    expected, dexpected = loss_and_gradient(ops.binary_cross_entropy_with_logits, x, t)
    assert value == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(dx, dexpected, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize(("p", "share"), [(0.5, 0.25), (0.9, 0.01), (0.1, 0.81)])
def test_a_pixel_is_weighted_by_the_square_of_its_error(p, share, loss_and_gradient):
    logit = np.array([[np.log(p / (1.0 - p))]])
    for x, t in ((logit, [[1.0]]), (-logit, [[0.0]])):
        cross_entropy = loss_and_gradient(ops.binary_cross_entropy_with_logits, x, t)[0]
        assert loss_and_gradient(ops.focal_loss, x, t)[0] == pytest.approx(share * cross_entropy, rel=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_logits_give_cross_entropy_or_zero_without_a_warning(dtype, loss_and_gradient):
    x = np.array([[1000.0, -1000.0, 1000.0, -1000.0]], dtype)
    t = np.array([[0.0, 1.0, 1.0, 0.0]], dtype)  # two confident mistakes, two confident correct predictions
    value, dx = loss_and_gradient(ops.focal_loss, x, t)
    assert value == 500.0
    np.testing.assert_array_equal(dx, [[0.25, -0.25, 0.0, 0.0]])


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 3.5])
@pytest.mark.parametrize("shape", [SHAPE, (2, 6), (3,)], ids=str)
def test_it_agrees_with_a_central_difference(gamma, shape, rng):
    x, t = random_inputs(rng, shape)
    for target in (t, 0.1 + 0.8 * t):
        check_vjp(lambda a, t=target: ops.focal_loss(a, Tensor(t), gamma) * 3.0, x, rng=rng)


def test_a_negative_gamma_is_rejected():
    x = Tensor(np.ones((2, 3)))
    with pytest.raises(ValueError, match="focal_loss: gamma must be at least 0, got -1"):
        ops.focal_loss(x, x, gamma=-1.0)


def test_the_error_for_a_target_unlike_the_logits_names_the_operation():
    with pytest.raises(ValueError, match="focal_loss: logits are"):
        ops.focal_loss(Tensor(np.ones((2, 3))), Tensor(np.ones((3, 2))))

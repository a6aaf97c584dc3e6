"""Focal loss against its definition: what it weighs down, and what far out it neither overflows nor loses."""

import numpy as np
import pytest

from minidl import ops
from minidl.gradcheck import check_vjp
from minidl.tensor import Tensor

SHAPE = (3, 1, 4, 5)


def drawn(rng, shape=SHAPE):
    return 2.0 * rng.normal(size=shape), (rng.random(shape) < 0.4).astype(float)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_it_agrees_with_its_definition(gamma, rng, lost):
    x, t = drawn(rng)
    losses = []
    for logit, truth in zip(x.ravel(), t.ravel(), strict=True):
        p = 1.0 / (1.0 + np.exp(-logit))
        given_to_truth = p if truth == 1.0 else 1.0 - p
        losses.append(-((1.0 - given_to_truth) ** gamma) * np.log(given_to_truth))
    assert lost(ops.focal_loss, x, t, gamma=gamma)[0] == pytest.approx(np.mean(losses), rel=1e-12)


def test_gamma_is_two_unless_told_otherwise(rng, lost):
    x, t = drawn(rng)
    assert lost(ops.focal_loss, x, t)[0] == lost(ops.focal_loss, x, t, gamma=2.0)[0]


def test_with_gamma_zero_it_is_cross_entropy(rng, lost):
    x, t = drawn(rng)
    value, dx = lost(ops.focal_loss, x, t, gamma=0.0)
    expected, dexpected = lost(ops.binary_cross_entropy_with_logits, x, t)
    assert value == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(dx, dexpected, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize(("p", "share"), [(0.5, 0.25), (0.9, 0.01), (0.1, 0.81)])
def test_a_pixel_counts_by_the_square_of_how_wrong_it_is(p, share, lost):
    logit = np.array([[np.log(p / (1.0 - p))]])
    for x, t in ((logit, [[1.0]]), (-logit, [[0.0]])):
        whole = lost(ops.binary_cross_entropy_with_logits, x, t)[0]
        assert lost(ops.focal_loss, x, t)[0] == pytest.approx(share * whole, rel=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_out_it_is_cross_entropy_or_nothing_and_warns_of_nothing(dtype, lost):
    x = np.array([[1000.0, -1000.0, 1000.0, -1000.0]], dtype)
    t = np.array([[0.0, 1.0, 1.0, 0.0]], dtype)  # two confident mistakes, two confident truths
    value, dx = lost(ops.focal_loss, x, t)
    assert value == 500.0
    np.testing.assert_array_equal(dx, [[0.25, -0.25, 0.0, 0.0]])


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 3.5])
@pytest.mark.parametrize("shape", [SHAPE, (2, 6), (3,)], ids=str)
def test_it_agrees_with_a_central_difference(gamma, shape, rng):
    x, t = drawn(rng, shape)
    for target in (t, 0.1 + 0.8 * t):
        check_vjp(lambda a, t=target: ops.focal_loss(a, Tensor(t), gamma) * 3.0, x, rng=rng)


def test_a_negative_gamma_is_refused():
    x = Tensor(np.ones((2, 3)))
    with pytest.raises(ValueError, match="focal_loss: gamma must be at least 0, got -1"):
        ops.focal_loss(x, x, gamma=-1.0)


def test_a_target_that_is_not_like_the_logits_is_refused_by_name():
    with pytest.raises(ValueError, match="focal_loss: logits are"):
        ops.focal_loss(Tensor(np.ones((2, 3))), Tensor(np.ones((3, 2))))

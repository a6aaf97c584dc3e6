"""Tversky loss agrees with its definition; soft Dice is a special case, and each error has its weight."""

import numpy as np
import pytest

from minidl import ops
from minidl.gradcheck import check_vjp
from minidl.tensor import Tensor

SHAPE = (3, 1, 4, 5)


def random_inputs(rng, shape=SHAPE):
    return 2.0 * rng.normal(size=shape), (rng.random(shape) < 0.4).astype(float)


def as_logits(mask):
    """Logits whose probabilities are the mask itself."""
    return 1000.0 * (2.0 * np.asarray(mask, float) - 1.0)


def naive_tversky_loss(x, t, alpha, beta, smooth):
    losses = []
    for image, mask in zip(x, t, strict=True):
        p = 1.0 / (1.0 + np.exp(-image))
        found, false, missed = (p * mask).sum(), (p * (1 - mask)).sum(), ((1 - p) * mask).sum()
        losses.append(1.0 - (found + smooth) / (found + alpha * false + beta * missed + smooth))
    return sum(losses) / len(losses)


@pytest.mark.parametrize(("alpha", "beta", "smooth"), [(0.3, 0.7, 1.0), (0.9, 0.1, 0.2), (0.0, 2.0, 5.0)])
def test_it_agrees_with_its_definition(alpha, beta, smooth, rng, loss_and_gradient):
    x, t = random_inputs(rng)
    value, _ = loss_and_gradient(ops.tversky_loss, x, t, alpha=alpha, beta=beta, smooth=smooth)
    assert value == pytest.approx(naive_tversky_loss(x, t, alpha, beta, smooth), rel=1e-12)


def test_the_defaults_are_the_weights_of_the_paper(rng, loss_and_gradient):
    x, t = random_inputs(rng)
    expected = loss_and_gradient(ops.tversky_loss, x, t, alpha=0.3, beta=0.7, smooth=1.0)[0]
    assert loss_and_gradient(ops.tversky_loss, x, t)[0] == expected


def test_with_both_weights_one_half_it_is_soft_dice(rng, loss_and_gradient):
    x, t = random_inputs(rng)
    value, dx = loss_and_gradient(ops.tversky_loss, x, t, alpha=0.5, beta=0.5, smooth=0.5)
    expected, dexpected = loss_and_gradient(ops.soft_dice_loss, x, t, smooth=1.0)
    assert value == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(dx, dexpected, rtol=1e-10, atol=1e-15)


def test_false_positives_have_weight_alpha_and_false_negatives_beta(loss_and_gradient):
    mask = np.array([[1.0, 1.0, 1.0, 0.0, 0.0, 0.0]])
    too_many, too_few = [[1, 1, 1, 1, 0, 0]], [[1, 1, 0, 0, 0, 0]]
    settings = {"alpha": 0.3, "beta": 0.7, "smooth": 0.0}
    assert loss_and_gradient(ops.tversky_loss, as_logits(mask), mask, **settings)[0] == 0.0
    assert loss_and_gradient(ops.tversky_loss, as_logits(too_many), mask, **settings)[0] == pytest.approx(
        1 - 3 / 3.3
    )
    assert loss_and_gradient(ops.tversky_loss, as_logits(too_few), mask, **settings)[0] == pytest.approx(
        1 - 2 / 2.7
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_loss_of_an_empty_mask_predicted_empty_is_zero_without_a_warning(dtype, loss_and_gradient):
    value, dx = loss_and_gradient(ops.tversky_loss, np.full(SHAPE, -1000.0, dtype), np.zeros(SHAPE, dtype))
    assert value == 0.0
    np.testing.assert_array_equal(dx, np.zeros(SHAPE))


@pytest.mark.parametrize("shape", [SHAPE, (1, 1, 1, 1), (2, 6), (3,)], ids=str)
def test_it_agrees_with_a_central_difference(shape, rng):
    x, t = random_inputs(rng, shape)
    for target in (t, 0.1 + 0.8 * t):
        check_vjp(lambda a, t=target: ops.tversky_loss(a, Tensor(t), 0.2, 0.9) * 3.0, x, rng=rng)


@pytest.mark.parametrize("weights", [{"alpha": -0.1}, {"beta": -1.0}])
def test_a_negative_weight_is_rejected(weights):
    x = Tensor(np.ones((2, 3)))
    with pytest.raises(ValueError, match="tversky_loss: alpha and beta must be at least 0"):
        ops.tversky_loss(x, x, **weights)


def test_the_error_for_a_target_unlike_the_logits_names_the_operation():
    with pytest.raises(ValueError, match="tversky_loss: logits are"):
        ops.tversky_loss(Tensor(np.ones((2, 3))), Tensor(np.ones((3, 2))))

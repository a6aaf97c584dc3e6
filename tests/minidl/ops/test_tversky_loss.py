"""Tversky loss: soft Dice and soft Jaccard are two of its cases, and each mistake costs what was asked."""

import numpy as np
import pytest

from minidl import ops
from minidl.gradcheck import check_vjp
from minidl.tensor import Tensor

SHAPE = (3, 1, 4, 5)


def drawn(rng, shape=SHAPE):
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
def test_it_agrees_with_its_definition(alpha, beta, smooth, rng, lost):
    x, t = drawn(rng)
    value, _ = lost(ops.tversky_loss, x, t, alpha=alpha, beta=beta, smooth=smooth)
    assert value == pytest.approx(naive_tversky_loss(x, t, alpha, beta, smooth), rel=1e-12)


def test_the_papers_prices_are_the_default(rng, lost):
    x, t = drawn(rng)
    expected = lost(ops.tversky_loss, x, t, alpha=0.3, beta=0.7, smooth=1.0)[0]
    assert lost(ops.tversky_loss, x, t)[0] == expected


def test_at_equal_halves_it_is_soft_dice(rng, lost):
    x, t = drawn(rng)
    value, dx = lost(ops.tversky_loss, x, t, alpha=0.5, beta=0.5, smooth=0.5)
    expected, dexpected = lost(ops.soft_dice_loss, x, t, smooth=1.0)
    assert value == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(dx, dexpected, rtol=1e-10, atol=1e-15)


def test_a_false_pixel_costs_alpha_and_a_missed_one_beta(lost):
    mask = np.array([[1.0, 1.0, 1.0, 0.0, 0.0, 0.0]])
    too_many, too_few = [[1, 1, 1, 1, 0, 0]], [[1, 1, 0, 0, 0, 0]]
    settings = {"alpha": 0.3, "beta": 0.7, "smooth": 0.0}
    assert lost(ops.tversky_loss, as_logits(mask), mask, **settings)[0] == 0.0
    assert lost(ops.tversky_loss, as_logits(too_many), mask, **settings)[0] == pytest.approx(1 - 3 / 3.3)
    assert lost(ops.tversky_loss, as_logits(too_few), mask, **settings)[0] == pytest.approx(1 - 2 / 2.7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_empty_mask_predicted_empty_loses_nothing_without_a_warning(dtype, lost):
    value, dx = lost(ops.tversky_loss, np.full(SHAPE, -1000.0, dtype), np.zeros(SHAPE, dtype))
    assert value == 0.0
    np.testing.assert_array_equal(dx, np.zeros(SHAPE))


@pytest.mark.parametrize("shape", [SHAPE, (1, 1, 1, 1), (2, 6), (3,)], ids=str)
def test_it_agrees_with_a_central_difference(shape, rng):
    x, t = drawn(rng, shape)
    for target in (t, 0.1 + 0.8 * t):
        check_vjp(lambda a, t=target: ops.tversky_loss(a, Tensor(t), 0.2, 0.9) * 3.0, x, rng=rng)


@pytest.mark.parametrize("prices", [{"alpha": -0.1}, {"beta": -1.0}])
def test_a_negative_price_is_refused(prices):
    x = Tensor(np.ones((2, 3)))
    with pytest.raises(ValueError, match="tversky_loss: alpha and beta must be at least 0"):
        ops.tversky_loss(x, x, **prices)


def test_a_target_that_is_not_like_the_logits_is_refused_by_name():
    with pytest.raises(ValueError, match="tversky_loss: logits are"):
        ops.tversky_loss(Tensor(np.ones((2, 3))), Tensor(np.ones((3, 2))))

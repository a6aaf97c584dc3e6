"""The losses agree with their definitions, also where naive formulas divide by zero or overflow."""

import math

import numpy as np
import pytest

from minidl import ops
from minidl.backend import to_numpy
from minidl.gradcheck import check_vjp
from minidl.tensor import Tensor

BCE, DICE = ops.binary_cross_entropy_with_logits, ops.soft_dice_loss
BOTH_LOSSES = pytest.mark.parametrize("loss", [BCE, DICE])
BOTH_DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SHAPE = (3, 1, 4, 5)


def random_inputs(rng, shape=SHAPE):
    return 2.0 * rng.normal(size=shape), (rng.random(shape) < 0.4).astype(float)


def naive_cross_entropy(x, t):
    p = 1.0 / (1.0 + np.exp(-x))
    return np.mean(-t * np.log(p) - (1.0 - t) * np.log(1.0 - p))


def naive_dice_loss(x, t, smooth=1.0):
    losses = []
    for image, mask in zip(x, t, strict=True):
        p = 1.0 / (1.0 + np.exp(-image))
        losses.append(1.0 - (2.0 * (p * mask).sum() + smooth) / (p.sum() + mask.sum() + smooth))
    return sum(losses) / len(losses)


def test_cross_entropy_is_minus_the_mean_logarithm_of_the_probability_of_the_true_class(
    rng, loss_and_gradient
):
    x, t = random_inputs(rng)
    p = 1.0 / (1.0 + np.exp(-x))
    value, dx = loss_and_gradient(BCE, x, t)
    np.testing.assert_allclose(value, np.mean(-np.log(np.where(t == 1.0, p, 1.0 - p))), rtol=1e-12)
    np.testing.assert_allclose(dx, (p - t) / t.size, rtol=1e-12, atol=1e-16)


def test_cross_entropy_of_a_soft_target_is_smallest_where_the_probabilities_agree(loss_and_gradient):
    p = 0.3
    logit = math.log(p / (1.0 - p))
    value, dx = loss_and_gradient(BCE, [[logit]], [[p]])
    np.testing.assert_allclose(value, -p * math.log(p) - (1.0 - p) * math.log(1.0 - p), rtol=1e-12)
    np.testing.assert_allclose(dx, [[0.0]], atol=1e-15)


@BOTH_DTYPES
def test_cross_entropy_of_large_logits_is_exact_without_a_warning(dtype, loss_and_gradient):
    x = np.array([[1000.0, -1000.0, 1000.0, -1000.0]], dtype)
    t = np.array([[0.0, 1.0, 1.0, 0.0]], dtype)  # two confident mistakes, two confident correct predictions
    value, dx = loss_and_gradient(BCE, x, t)
    assert value == 500.0
    np.testing.assert_array_equal(dx, [[0.25, -0.25, 0.0, 0.0]])


def test_cross_entropy_of_a_confident_correct_prediction_is_not_rounded_to_zero(loss_and_gradient):
    value, _ = loss_and_gradient(BCE, [[40.0]], [[1.0]])
    np.testing.assert_allclose(value, math.exp(-40.0), rtol=1e-12)


def test_cross_entropy_of_zero_logits_is_log_two(loss_and_gradient):
    value, dx = loss_and_gradient(BCE, np.zeros((2, 3)), np.ones((2, 3)))
    np.testing.assert_allclose(value, math.log(2.0), rtol=1e-15)
    np.testing.assert_allclose(dx, np.full((2, 3), -0.5 / 6), rtol=1e-15)


@pytest.mark.parametrize("smooth", [1.0, 0.1, 20.0])
def test_dice_agrees_with_its_definition(smooth, rng, loss_and_gradient):
    x, t = random_inputs(rng)
    value, _ = loss_and_gradient(DICE, x, t, smooth=smooth)
    np.testing.assert_allclose(value, naive_dice_loss(x, t, smooth), rtol=1e-12)


def test_dice_smooths_by_one_by_default(rng, loss_and_gradient):
    x, t = random_inputs(rng)
    assert loss_and_gradient(DICE, x, t)[0] == loss_and_gradient(DICE, x, t, smooth=1.0)[0]


def test_dice_of_probabilities_zero_and_one_compares_two_masks(loss_and_gradient):
    mask = np.array([[1.0, 1.0, 1.0, 0.0, 0.0, 0.0]])
    other = np.array([[0.0, 1.0, 1.0, 1.0, 0.0, 0.0]])
    assert loss_and_gradient(DICE, 1000.0 * (2.0 * mask - 1.0), mask)[0] == 0.0
    np.testing.assert_allclose(
        loss_and_gradient(DICE, 1000.0 * (2.0 * other - 1.0), mask)[0], 1 - 5 / 7, rtol=1e-12
    )
    np.testing.assert_allclose(
        loss_and_gradient(DICE, 1000.0 * (1.0 - 2.0 * mask), mask)[0], 1 - 1 / 7, rtol=1e-12
    )


@BOTH_DTYPES
def test_dice_of_an_empty_mask_predicted_empty_is_zero_without_a_warning(dtype, loss_and_gradient):
    value, dx = loss_and_gradient(DICE, np.full(SHAPE, -1000.0, dtype), np.zeros(SHAPE, dtype))
    assert value == 0.0
    np.testing.assert_array_equal(dx, np.zeros(SHAPE))


def test_dice_loss_of_an_empty_mask_rises_with_the_predicted_area(rng, loss_and_gradient):
    x = rng.normal(size=(1, 1, 4, 5))
    value, dx = loss_and_gradient(DICE, x, np.zeros(x.shape))
    p = 1.0 / (1.0 + np.exp(-x))
    np.testing.assert_allclose(value, 1.0 - 1.0 / (p.sum() + 1.0), rtol=1e-12)
    np.testing.assert_allclose(dx, p * (1.0 - p) / (p.sum() + 1.0) ** 2, rtol=1e-12)
    assert (dx > 0.0).all()


def test_dice_is_the_mean_over_images_so_a_small_lesion_counts_as_much_as_a_large_one(rng, loss_and_gradient):
    x, t = random_inputs(rng, (2, 1, 4, 5))
    t[0] = 0.0
    t[0, 0, 0, 0] = 1.0
    alone = [loss_and_gradient(DICE, x[n : n + 1], t[n : n + 1])[0] for n in range(2)]
    np.testing.assert_allclose(loss_and_gradient(DICE, x, t)[0], sum(alone) / 2.0, rtol=1e-12)


@BOTH_DTYPES
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (1, 255), (3, 257), (300, 1, 2, 3), (2, 1, 70, 75), (1, 263_000)], ids=str
)
def test_every_pixel_of_images_of_any_size_counts_once(shape, dtype, rng, loss_and_gradient):
    x, t = random_inputs(rng, shape)
    p, N = 1.0 / (1.0 + np.exp(-x)), shape[0]
    sums = [a.reshape(N, -1).sum(axis=1).reshape(N, *[1] * (x.ndim - 1)) for a in (p * t, p + t)]
    dice = (2.0 * sums[0] + 1.0) / (sums[1] + 1.0)
    gradients = {BCE: (p - t) / x.size, DICE: (dice - 2.0 * t) / (sums[1] + 1.0) * p * (1.0 - p) / N}
    for loss, naive in ((BCE, naive_cross_entropy), (DICE, naive_dice_loss)):
        value, dx = loss_and_gradient(loss, x.astype(dtype), t.astype(dtype))
        tolerance = 20 * np.finfo(dtype).eps
        np.testing.assert_allclose(value, naive(x, t), rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(dx, gradients[loss], rtol=10 * tolerance, atol=tolerance / x.size)


@BOTH_LOSSES
def test_a_factor_of_the_loss_scales_its_gradient(loss, rng, loss_and_gradient):
    x, t = random_inputs(rng)
    value, dx = loss_and_gradient(lambda *arrays: loss(*arrays) * -3.0, x, t)
    np.testing.assert_allclose(value, -3.0 * loss_and_gradient(loss, x, t)[0], rtol=1e-14)
    np.testing.assert_allclose(dx, -3.0 * loss_and_gradient(loss, x, t)[1], rtol=1e-14)


@BOTH_LOSSES
def test_transposed_arrays_are_supported(loss, rng, put):
    """The logits and the target are transposed views: their memory order differs from the index order."""
    x, t = (put(a) for a in random_inputs(rng, (2, 1, 4, 5)))
    plain, transposed = (Tensor(a, requires_grad=True) for a in (x, x))
    expected = loss(plain, Tensor(t))
    value = loss(ops.transpose(transposed, (0, 1, 3, 2)), Tensor(t.transpose(0, 1, 3, 2)))
    np.testing.assert_allclose(value.item(), expected.item(), rtol=1e-14)
    expected.backward()
    value.backward()
    np.testing.assert_allclose(to_numpy(transposed.grad), to_numpy(plain.grad), rtol=1e-13)


@BOTH_LOSSES
def test_a_nan_is_not_hidden(loss, rng, loss_and_gradient):
    x, t = random_inputs(rng)
    x[1, 0, 2, 3] = np.nan
    assert math.isnan(loss_and_gradient(loss, x, t)[0])


@BOTH_LOSSES
@pytest.mark.parametrize("shape", [SHAPE, (1, 1, 1, 1), (2, 6), (3,)], ids=str)
def test_losses_agree_with_a_central_difference(loss, shape, rng):
    x, t = random_inputs(rng, shape)
    check_vjp(lambda a: loss(a, Tensor(t)), x, rng=rng)
    soft = 0.1 + 0.8 * t
    check_vjp(lambda a: loss(a, Tensor(soft)) * 3.0, x, rng=rng)


@BOTH_LOSSES
@BOTH_DTYPES
def test_a_loss_is_one_number_of_the_logits_dtype_and_does_not_modify_the_target(loss, dtype, rng):
    x, t = (a.astype(dtype) for a in random_inputs(rng))
    t.setflags(write=False)
    logits = Tensor(x, requires_grad=True)
    value = loss(logits, Tensor(t))
    value.backward()
    assert (value.shape, value.dtype, logits.grad.dtype) == ((), dtype, dtype)
    assert 0.0 < value.item() < 10.0


@BOTH_LOSSES
def test_the_error_for_a_target_unlike_the_logits_names_the_operation_and_both(loss):
    logits = Tensor(np.ones((2, 1, 4, 4), np.float32))
    for target in (np.ones((2, 4, 4), np.float32), np.ones((2, 1, 4, 4))):
        with pytest.raises(ValueError) as error:
            loss(logits, Tensor(target))
        message = str(error.value)
        assert message.startswith(f"{loss.__name__}: ")
        assert f"float32 {logits.shape}" in message and f"{target.dtype} {target.shape}" in message


@BOTH_LOSSES
def test_an_empty_batch_has_no_loss(loss, put):
    empty = Tensor(put(np.ones((0, 3))))
    with pytest.raises(ValueError, match=rf"{loss.__name__}: the logits \(0, 3\) are empty"):
        loss(empty, empty)


@BOTH_LOSSES
def test_the_error_for_an_array_instead_of_a_tensor_names_the_remedy(loss):
    x = np.ones((2, 3))
    for arguments in ((Tensor(x), x), (x, Tensor(x))):
        with pytest.raises(TypeError, match=rf"{loss.__name__}: expected Tensors, got ndarray; use Tensor"):
            loss(*arguments)


@BOTH_LOSSES
def test_the_error_for_a_target_that_requires_a_gradient_names_the_remedy(loss):
    target = Tensor(np.ones((2, 3)), requires_grad=True)
    with pytest.raises(ValueError, match=rf"{loss.__name__}: the target requires a gradient.*detach\(\)"):
        loss(Tensor(np.ones((2, 3))), target)
    assert loss(Tensor(np.ones((2, 3))), target.detach()).shape == ()

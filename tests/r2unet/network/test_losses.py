"""The losses by name; the setting `loss` determines which one training and validation use."""

import numpy as np
import pytest

from minidl import Tensor
from minidl.ops import binary_cross_entropy_with_logits, focal_loss, soft_dice_loss, tversky_loss
from r2unet.data.sample import collate
from r2unet.network.losses import LOSSES, bce_and_dice
from r2unet.training.settings import Settings


@pytest.fixture
def pair(rng):
    """Logits and masks of three images."""
    masks = (rng.random((3, 1, 4, 5)) < 0.4).astype(np.float32)
    return Tensor(rng.normal(size=masks.shape).astype(np.float32)), Tensor(masks)


def test_the_default_is_cross_entropy_plus_dice(pair):
    assert LOSSES[Settings.loss] is bce_and_dice
    terms = binary_cross_entropy_with_logits(*pair), soft_dice_loss(*pair)
    assert bce_and_dice(*pair).item() == (terms[0] + terms[1]).item()


def test_cross_entropy_plus_dice_of_known_logits():
    masks = Tensor(np.array([[[[1, 0], [0, 0]]]], np.float32))
    undecided = bce_and_dice(Tensor(np.zeros((1, 1, 2, 2), np.float32)), masks).item()
    dice = (2 * 0.5 + 1) / (4 * 0.5 + 1 + 1)  # 1 is added to numerator and denominator
    assert undecided == pytest.approx(np.log(2) + 1 - dice)
    sure = bce_and_dice(Tensor(np.array([[[[20, -20], [-20, -20]]]], np.float32)), masks).item()
    assert sure == pytest.approx(0, abs=1e-6)


def test_every_name_is_the_operation_of_that_name(pair):
    expected = {
        "bce": binary_cross_entropy_with_logits,
        "dice": soft_dice_loss,
        "bce+dice": bce_and_dice,
        "focal": focal_loss,
        "tversky": tversky_loss,
    }
    assert {name: f(*pair).item() for name, f in LOSSES.items()} == {
        name: f(*pair).item() for name, f in expected.items()
    }


@pytest.mark.parametrize("name", LOSSES)
def test_a_correct_prediction_has_a_small_loss_and_a_wrong_one_a_large_loss(name, pair):
    masks = pair[1]
    correct = Tensor(12.0 * (2.0 * masks.data - 1.0))
    assert 0.0 <= LOSSES[name](correct, masks).item() < 0.001
    assert LOSSES[name](-1.0 * correct, masks).item() > 0.5


@pytest.mark.parametrize("name", LOSSES)
def test_training_uses_the_gradient_of_the_chosen_loss(name, new_trainer, tmp_path):
    run, other = (new_trainer(tmp_path, loss=name, clip=1e12) for _ in range(2))
    batch = next(iter(run.feed.batches(start=0)))
    LOSSES[name](other.state.model(Tensor(batch.images)), Tensor(batch.masks)).backward()
    run.train_step(batch)
    np.testing.assert_array_equal(run.state.model.head.weight.grad, other.state.model.head.weight.grad)


@pytest.mark.parametrize("name", LOSSES)
def test_validation_uses_the_chosen_loss(name, new_trainer, tmp_path):
    run = new_trainer(tmp_path, loss=name)
    batch = collate(list(run.validation))  # all in one batch
    run.state.model.eval()
    expected = LOSSES[name](run.state.model(Tensor(batch.images)), Tensor(batch.masks)).item()
    assert run.validate()["validation_loss"] == pytest.approx(expected, rel=1e-6)

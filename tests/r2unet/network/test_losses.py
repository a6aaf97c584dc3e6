"""The losses by name: each of them judges, and which one a training takes is a setting."""

import numpy as np
import pytest

from minidl import Tensor
from minidl.ops import binary_cross_entropy_with_logits, focal_loss, soft_dice_loss, tversky_loss
from r2unet.data.sample import collate
from r2unet.network.losses import LOSSES, bce_and_dice
from r2unet.training import trainer as train
from r2unet.training.settings import Settings


@pytest.fixture
def pair(rng):
    """Logits and masks of three images."""
    masks = (rng.random((3, 1, 4, 5)) < 0.4).astype(np.float32)
    return Tensor(rng.normal(size=masks.shape).astype(np.float32)), Tensor(masks)


def test_the_default_is_cross_entropy_plus_dice(pair):
    assert LOSSES[Settings.loss] is bce_and_dice is train.loss_of
    terms = binary_cross_entropy_with_logits(*pair), soft_dice_loss(*pair)
    assert bce_and_dice(*pair).item() == (terms[0] + terms[1]).item()


def test_each_name_is_the_operation_it_says(pair):
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
def test_each_is_small_where_the_network_is_right_and_large_where_it_is_wrong(name, pair):
    masks = pair[1]
    right = Tensor(12.0 * (2.0 * masks.data - 1.0))
    assert 0.0 <= LOSSES[name](right, masks).item() < 0.001
    assert LOSSES[name](-1.0 * right, masks).item() > 0.5


@pytest.mark.parametrize("name", LOSSES)
def test_a_training_follows_the_gradient_of_the_one_that_is_asked_for(name, new_trainer, tmp_path):
    run, other = (new_trainer(tmp_path, loss=name, clip=1e12) for _ in range(2))
    batch = next(iter(run.loader.batches(start=0)))
    LOSSES[name](*other._forward(batch)).backward()
    run._step(batch)
    np.testing.assert_array_equal(run.model.head.weight.grad, other.model.head.weight.grad)


@pytest.mark.parametrize("name", LOSSES)
def test_and_is_validated_with_it(name, new_trainer, tmp_path):
    run = new_trainer(tmp_path, loss=name)
    batch = collate(list(run.validation))  # one batch holds them all
    run.model.eval()
    expected = LOSSES[name](*run._forward(batch)).item()
    assert run._validate()["validation_loss"] == pytest.approx(expected, rel=1e-6)

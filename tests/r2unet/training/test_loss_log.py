"""Losses stay on the device until they are read; the first that is not finite is reported."""

import math

import numpy as np
import pytest

from r2unet.errors import InputError
from r2unet.training.loss_log import LossLog, Step


def filled(*steps: tuple[float, float]) -> LossLog:
    """Return a log with steps of the given losses and gradient norms."""
    log = LossLog()
    for number, (loss, gradient_norm) in enumerate(steps):
        log.append(Step(np.float32(loss), gradient_norm, [f"image {number}"], 1))
    return log


def test_the_images_of_all_processes_are_reported():
    log = LossLog(lambda names: ["image of process 0", *names])
    log.append(Step(math.nan, 1.0, ["mine"], 2))
    with pytest.raises(InputError, match="the loss is nan in epoch 1, step 1, on image of process 0, mine;"):
        log.read(epoch=1, last_step=1)


def test_reading_returns_the_steps_in_order_and_empties_the_log():
    log = filled((0.5, 2.0), (0.25, 1.0))
    assert log.read(epoch=1, last_step=2) == [(0.5, 2.0, ["image 0"], 1), (0.25, 1.0, ["image 1"], 1)]
    assert log.unread == [] == log.read(epoch=1, last_step=2)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([(1, 1), (math.nan, 1), (math.nan, 1)], "the loss is nan in epoch 3, step 9, on image 1; check"),
        ([(1, 1), (1, 1), (1, math.inf)], "the gradient norm is inf in epoch 3, step 10, on image 2; check"),
    ],
)
def test_the_first_value_that_is_not_finite_is_reported_every_time(steps, message):
    log = filled(*steps)
    for _ in range(2):  # so no later save replaces a good checkpoint either
        with pytest.raises(InputError) as caught:
            log.read(epoch=3, last_step=10)
        assert str(caught.value).startswith(message)

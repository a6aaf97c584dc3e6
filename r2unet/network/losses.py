"""The loss functions for training, by name.

    bce         binary cross-entropy: averages over pixels; large lesions count more than small ones
    dice        soft Dice: averages over images; a small lesion counts as much as a large one
    bce+dice    their sum, the default
    focal       cross-entropy that gives less weight to pixels that are already classified correctly
    tversky     soft Dice in which a false negative costs more than a false positive

Each is a function of logits and masks, (N, 1, H, W) each, and returns one number to minimise.

The loss of the diagnosis is softmax cross-entropy on class logits (N, K), or its focal variant. A network
with both tasks minimises the sum of the two losses, that of the diagnosis multiplied by a weight.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from minidl import Tensor
from minidl.ops import (
    binary_cross_entropy_with_logits,
    focal_loss,
    soft_dice_loss,
    softmax_cross_entropy,
    tversky_loss,
)
from r2unet.network.model import Answer


class Shares(NamedTuple):
    """How much of what a loss averages over is in one part of a batch.

    The losses of outlines are means over images of one size. That of the diagnosis is a weighted mean, and an
    image's weight is the sum of its row of the targets.
    """

    outline: float  # images / images of the batch
    diagnosis: float  # weights / weights of the batch; 0 if all are 0


def bce_and_dice(logits: Tensor, masks: Tensor) -> Tensor:
    """Return binary cross-entropy + soft Dice, logits and masks (N, 1, H, W) -> one number."""
    return binary_cross_entropy_with_logits(logits, masks) + soft_dice_loss(logits, masks)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bce": binary_cross_entropy_with_logits,
    "dice": soft_dice_loss,
    "bce+dice": bce_and_dice,
    "focal": focal_loss,
    "tversky": tversky_loss,
}

# The losses of the diagnosis, and their gamma: 0 is cross-entropy, 2 the focal loss of Lin et al. 2017.
DIAGNOSIS_GAMMAS = {"cross-entropy": 0.0, "focal": 2.0}


def answer_loss(
    answer: Answer,
    masks: Tensor,
    targets: Tensor | None,
    outline_loss: Callable[[Tensor, Tensor], Tensor],
    gamma: float = 0.0,
    weight: float = 1.0,
    shares: Shares | None = None,
) -> Tensor:
    """Return the loss of everything that a network answers: outline + weight * diagnosis.

    masks (N, 1, H, W), targets (N, K) of `softmax_cross_entropy`. With `shares`, these images are a part of
    a batch, and each of the two losses is multiplied by its share: the sum over the parts is the loss of the
    whole batch.
    """
    terms = []
    if answer.outline is not None:
        loss = outline_loss(answer.outline, masks)
        terms.append(loss * shares.outline if shares else loss)
    if answer.diagnosis is not None:
        loss = softmax_cross_entropy(answer.diagnosis, targets, gamma)
        loss = loss * shares.diagnosis if shares else loss
        terms.append(loss * weight if terms else loss)
    return sum(terms[1:], start=terms[0])

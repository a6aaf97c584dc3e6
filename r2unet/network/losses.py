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

from minidl import Tensor
from minidl.ops import (
    binary_cross_entropy_with_logits,
    focal_loss,
    soft_dice_loss,
    softmax_cross_entropy,
    tversky_loss,
)
from r2unet.network.model import Answer


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
) -> Tensor:
    """Return the loss of everything that a network answers: outline + weight * diagnosis.

    masks (N, 1, H, W), targets (N, K) of `softmax_cross_entropy`.
    """
    if answer.diagnosis is None:
        return outline_loss(answer.outline, masks)
    diagnosis_loss = softmax_cross_entropy(answer.diagnosis, targets, gamma)
    if answer.outline is None:
        return diagnosis_loss
    return outline_loss(answer.outline, masks) + diagnosis_loss * weight

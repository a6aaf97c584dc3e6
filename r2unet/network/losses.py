"""The loss functions for training, by name.

    bce         binary cross-entropy: averages over pixels; large lesions count more than small ones
    dice        soft Dice: averages over images; a small lesion counts as much as a large one
    bce+dice    their sum, the default
    focal       cross-entropy that gives less weight to pixels that are already classified correctly
    tversky     soft Dice in which a false negative costs more than a false positive

Each is a function of logits and masks, (N, 1, H, W) each, and returns one number to minimise.
"""

from __future__ import annotations

from collections.abc import Callable

from minidl import Tensor
from minidl.ops import binary_cross_entropy_with_logits, focal_loss, soft_dice_loss, tversky_loss


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

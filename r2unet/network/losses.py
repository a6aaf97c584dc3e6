"""The losses that a network can be trained with, by name.

    bce         binary cross-entropy: judges every pixel; large lesions count more than small ones
    dice        soft Dice: judges the region; a small lesion counts as much as a large one
    bce+dice    their sum, the default: a pull on every pixel and a vote for every lesion
    focal       cross-entropy that loses interest in pixels that are already right
    tversky     soft Dice in which a missed pixel costs more than a false one

Each is a function of logits and masks, (N, 1, H, W) each, that returns one number to be made small.
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

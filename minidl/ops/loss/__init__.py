"""The losses, on logits against a target: in each file a definition, then its kernels."""

from minidl.ops.loss.cross_entropy import binary_cross_entropy_with_logits
from minidl.ops.loss.dice import soft_dice_loss
from minidl.ops.loss.focal import focal_loss
from minidl.ops.loss.softmax import softmax_cross_entropy
from minidl.ops.loss.tversky import tversky_loss

__all__ = [
    "binary_cross_entropy_with_logits",
    "focal_loss",
    "soft_dice_loss",
    "softmax_cross_entropy",
    "tversky_loss",
]

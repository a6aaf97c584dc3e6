"""Soft Dice loss (Milletari et al. 2016, without the squares) on logits x, against a mask t of 0 and 1.

Dice = 2 |A and B| / (|A| + |B|) compares regions instead of pixels, so that a small lesion counts as much as
a large one. With probabilities instead of a mask it is differentiable. For each image, over its pixels, with
p = sigmoid(x) and a small number e (1 by default) for empty masks:

    I = sum p t,   S = sum p + sum t,   D = (2 I + e) / (S + e),   L = mean over images of 1 - D
    dD/dp = (2 t - D) / (S + e),        dp/dx = p (1 - p)
"""

from __future__ import annotations

import math

from minidl.backend import GPU, Array, Kernels, array_module, contiguous, cover
from minidl.implementation import choose, implements
from minidl.ops.activation import stable_sigmoid
from minidl.ops.loss.target import target_array
from minidl.tensor import Function, Tensor

kernels = Kernels(__file__)
BLOCK = 256  # threads of a block that sums
IMAGE_BLOCKS = 16  # the maximum number of blocks in the sum over one image


class SoftDiceLoss(Function):
    """1 - D, the mean over the images."""

    def __init__(self, target: Array, smooth: float) -> None:
        self.target, self.smooth = target.reshape(len(target), -1), smooth  # (N, pixels)

    def forward(self, x: Array) -> Array:
        self.shape, t = x.shape, self.target
        self.p = stable_sigmoid(x).reshape(t.shape)  # (N, pixels)
        intersection = (self.p * t).sum(axis=1, keepdims=True)  # (N, 1)
        self.total = self.p.sum(axis=1, keepdims=True) + t.sum(axis=1, keepdims=True) + self.smooth
        self.dice = (2.0 * intersection + self.smooth) / self.total  # (N, 1)
        return 1.0 - self.dice.mean()

    def backward(self, dy: Array) -> Array:
        dp = (self.dice - 2.0 * self.target) / self.total * (dy / len(self.p))  # (N, pixels)
        return (dp * self.p * (1.0 - self.p)).reshape(self.shape)


@implements(SoftDiceLoss, "kernels", devices=GPU)
class SoftDiceLossKernels(SoftDiceLoss):
    """Soft Dice loss with two launches forward and one backward."""

    def forward(self, x: Array) -> Array:
        self.shape, self.x, self.target = x.shape, contiguous(x), contiguous(self.target)
        N, pixels = self.target.shape
        blocks = min(IMAGE_BLOCKS, math.ceil(pixels / BLOCK))
        shapes = (N, blocks, 2), N, N, ()
        partial, self.dice, self.total, loss = (array_module(x).empty(shape, x.dtype) for shape in shapes)
        kernels.launch("soft_dice_sums", (blocks, N), (BLOCK,), self.x, self.target, partial, pixels)
        outputs = self.dice, self.total, loss
        kernels.launch("soft_dice", (1,), (BLOCK,), partial, *outputs, N, blocks, float(self.smooth))
        return loss

    def backward(self, dy: Array) -> Array:
        dx = array_module(dy).empty(self.shape, dy.dtype)
        inputs = dy, self.x, self.target, self.dice, self.total
        kernels.launch("soft_dice_backward", *cover(dx.size), *inputs, dx, *self.target.shape)
        return dx


def soft_dice_loss(logits: Tensor, target: Tensor, smooth: float = 1.0) -> Tensor:
    """Return 1 - Dice between sigmoid(logits) and target, (N, ...) each: the mean over the N images.

    `smooth` is added to the numerator and the denominator, so that the loss of an empty mask that is
    predicted empty is 0 and not 0/0.
    """
    t = target_array(logits, target, "soft_dice_loss")
    return choose(SoftDiceLoss, logits.device)(t, smooth)(logits)

"""The two losses of segmentation, on logits x, against a mask t of zeros and ones.

**Binary cross-entropy.** With p = sigmoid(x), the mean over all elements of -t log p - (1 - t) log(1 -
p). Put p = 1 / (1 + exp(-x)) in and simplify:

    L_i = max(x, 0) - x t + log(1 + exp(-|x|))          dL_i/dx = p - t

The left form never takes the logarithm of zero, whatever x; the right one is why the sigmoid and the
logarithm are one operation: their derivatives cancel, and a confident mistake keeps a gradient of one
instead of none.

**Soft Dice** (Milletari et al. 2016, without the squares). Dice = 2 |A and B| / (|A| + |B|) compares
regions instead of pixels, so that a small lesion counts as much as a large one. With probabilities in
place of the prediction it has a derivative. For each image, over its pixels, with e a small number (1 by
default) for empty masks:

    I = sum p t,   S = sum p + sum t,   D = (2 I + e) / (S + e),   L = mean over images of 1 - D
    dD/dp = (2 t - D) / (S + e),        dp/dx = p (1 - p)
"""

from __future__ import annotations

import math

from minidl.backend import Array, Kernels, array_module, contiguous, cover, runs_kernels
from minidl.ops.activation import stable_sigmoid
from minidl.tensor import Function, Tensor

kernels = Kernels(__file__)
BLOCK = 256  # threads of a block that sums
BLOCKS = 1024  # at most, in a sum over everything: enough to keep a whole GPU busy
IMAGE_BLOCKS = 16  # at most, in the sum over one image


class BinaryCrossEntropyWithLogits(Function):
    """The mean of max(x, 0) - x t + log(1 + exp(-|x|))."""

    def __init__(self, target: Array) -> None:
        self.target = target

    def forward(self, x: Array) -> Array:
        if runs_kernels(x):
            return self._forward_kernels(x)
        xp = array_module(x)
        e = xp.exp(-xp.abs(x))  # in (0, 1]
        self.difference = xp.maximum(e, x >= 0) / (1.0 + e) - self.target  # p - t, as in stable_sigmoid
        return (xp.maximum(x, 0.0) - x * self.target + xp.log1p(e)).mean()

    def _forward_kernels(self, x: Array) -> Array:
        self.x, self.target = contiguous(x), contiguous(self.target)
        blocks = min(BLOCKS, math.ceil(x.size / BLOCK))
        partial, loss = (array_module(x).empty(shape, x.dtype) for shape in (blocks, ()))
        kernels.launch("cross_entropy_sums", (blocks,), (BLOCK,), self.x, self.target, partial, x.size)
        kernels.launch("cross_entropy", (1,), (BLOCK,), partial, loss, blocks, x.size)
        return loss

    def backward(self, dy: Array) -> Array:
        if runs_kernels(dy):
            dx = array_module(dy).empty_like(self.x)
            kernels.launch("cross_entropy_backward", *cover(dx.size), dy, self.x, self.target, dx, dx.size)
            return dx
        return self.difference * (dy / self.difference.size)


class SoftDiceLoss(Function):
    """1 - D, the mean over the images."""

    def __init__(self, target: Array, smooth: float) -> None:
        self.target, self.smooth = target.reshape(len(target), -1), smooth  # (N, pixels)

    def forward(self, x: Array) -> Array:
        self.shape = x.shape
        if runs_kernels(x):
            return self._forward_kernels(x)
        self.p = stable_sigmoid(x).reshape(self.target.shape)  # (N, pixels)
        intersection = (self.p * self.target).sum(axis=1, keepdims=True)  # (N, 1)
        self.total = self.p.sum(axis=1, keepdims=True) + self.target.sum(axis=1, keepdims=True) + self.smooth
        self.dice = (2.0 * intersection + self.smooth) / self.total  # (N, 1)
        return 1.0 - self.dice.mean()

    def _forward_kernels(self, x: Array) -> Array:
        self.x, self.target = contiguous(x), contiguous(self.target)
        N, pixels = self.target.shape
        blocks = min(IMAGE_BLOCKS, math.ceil(pixels / BLOCK))
        shapes = (N, blocks, 2), N, N, ()
        partial, self.dice, self.total, loss = (array_module(x).empty(shape, x.dtype) for shape in shapes)
        kernels.launch("soft_dice_sums", (blocks, N), (BLOCK,), self.x, self.target, partial, pixels)
        outputs = self.dice, self.total, loss
        kernels.launch("soft_dice", (1,), (BLOCK,), partial, *outputs, N, blocks, float(self.smooth))
        return loss

    def backward(self, dy: Array) -> Array:
        if runs_kernels(dy):
            dx = array_module(dy).empty(self.shape, dy.dtype)
            inputs = dy, self.x, self.target, self.dice, self.total
            kernels.launch("soft_dice_backward", *cover(dx.size), *inputs, dx, *self.target.shape)
            return dx
        dp = (self.dice - 2.0 * self.target) / self.total * (dy / len(self.p))  # (N, pixels)
        return (dp * self.p * (1.0 - self.p)).reshape(self.shape)


def binary_cross_entropy_with_logits(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean cross-entropy between sigmoid(logits) and a target in [0, 1] of the same shape."""
    return BinaryCrossEntropyWithLogits(_target(logits, target, "binary_cross_entropy_with_logits"))(logits)


def soft_dice_loss(logits: Tensor, target: Tensor, smooth: float = 1.0) -> Tensor:
    """Return 1 - Dice between sigmoid(logits) and target, (N, ...) each: the mean over the N images.

    `smooth` is added above and below the fraction: an empty mask that is predicted empty then loses
    nothing, instead of 0/0.
    """
    return SoftDiceLoss(_target(logits, target, "soft_dice_loss"), smooth)(logits)


def _target(logits: Tensor, target: Tensor, name: str) -> Array:
    """Return the target's array, if it fits and nobody expects its gradient: it is data, not graph."""
    if (logits.shape, logits.dtype, logits.device) != (target.shape, target.dtype, target.device):
        raise ValueError(
            f"{name}: logits are {logits.dtype} {logits.shape} on {logits.device}, the target "
            f"{target.dtype} {target.shape} on {target.device}; they must be alike"
        )
    if target.requires_grad:
        raise ValueError(f"{name}: the target requires a gradient, which it cannot receive; detach() it")
    return target.data

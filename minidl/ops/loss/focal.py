"""Focal loss (Lin et al. 2017, equation 4): cross-entropy with less weight on pixels already correct.

Most pixels of a mask are skin, and the network soon classifies most of these with high confidence. Each adds
little to the cross-entropy, but together they outweigh the few pixels of the border. The loss of each
pixel is therefore weighted by its error. With P the probability that the network assigns to the true class,

    L = -(1 - P)^gamma log P,       gamma = 2 in the paper; gamma = 0 is cross-entropy

The weight of a pixel with P = 0.9 is then a hundredth, and that of a pixel with P = 0.5 a quarter.

On logits x, with p = sigmoid(x) and q = 1 - p = sigmoid(-x), a pixel of the lesion has P = p and a pixel of
the skin P = q. Since -log p = log(1 + exp(-x)) =: s(x) never overflows, and dp/dx = p q, ds/dx = -q,

    f(x) = q^gamma s(x)                 df/dx = -q^gamma (gamma p s(x) + q)
    L(x, t) = t f(x) + (1 - t) f(-x)    dL/dx = t f'(x) - (1 - t) f'(-x)

and the loss is the mean over all elements. The power gamma - 1 has cancelled, so no gamma leads to a
division.
"""

from __future__ import annotations

from minidl.backend import Array, array_module
from minidl.ops.activation import stable_sigmoid
from minidl.ops.loss.target import target_array
from minidl.tensor import Function, Tensor


def softplus(x: Array) -> Array:
    """Return log(1 + exp(x)) without overflow, on a raw array."""
    xp = array_module(x)
    return xp.maximum(x, 0.0) + xp.log1p(xp.exp(-xp.abs(x)))


class FocalLoss(Function):
    """The mean of t f(x) + (1 - t) f(-x)."""

    def __init__(self, target: Array, gamma: float) -> None:
        self.target, self.gamma = target, gamma

    def forward(self, x: Array) -> Array:
        self.x = x
        return (self.target * self._f(x) + (1.0 - self.target) * self._f(-x)).mean()

    def backward(self, dy: Array) -> Array:
        t = self.target
        return (t * self._slope(self.x) - (1.0 - t) * self._slope(-self.x)) * (dy / self.x.size)

    def _f(self, x: Array) -> Array:
        return stable_sigmoid(-x) ** self.gamma * softplus(-x)

    def _slope(self, x: Array) -> Array:
        p, q = stable_sigmoid(x), stable_sigmoid(-x)
        return -(q**self.gamma) * (self.gamma * p * softplus(-x) + q)


def focal_loss(logits: Tensor, target: Tensor, gamma: float = 2.0) -> Tensor:
    """Return the mean focal loss between sigmoid(logits) and a target in [0, 1] of the same shape.

    Raises ValueError for a negative gamma, which would give correct pixels more weight than wrong ones.
    """
    if not gamma >= 0.0:  # also for NaN
        raise ValueError(f"focal_loss: gamma must be at least 0, got {gamma}")
    return FocalLoss(target_array(logits, target, "focal_loss"), float(gamma))(logits)

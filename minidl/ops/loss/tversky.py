"""Tversky loss (Salehi et al. 2017, equation 3): soft Dice with a weight for each kind of error.

Dice weights false positives and false negatives equally, although one may matter more than the other. With
probabilities p, a mask t, and the sums over an image's pixels

    I = sum p t                true positives
    F = sum p (1 - t)          false positives
    M = sum (1 - p) t          false negatives (missed pixels),

the Tversky index, with a small number e for empty masks, is

    U = I + alpha F + beta M + e,    T = (I + e) / U,    L = mean over images of 1 - T

alpha = beta = 1/2 is soft Dice, alpha = beta = 1 is the soft Jaccard. The paper recommends alpha = 0.3 and
beta = 0.7, which penalises false negatives more than false positives. The p of one pixel changes I by t and U
by t + alpha (1 - t) - beta t, so by the quotient rule

    dT/dp = ( t - T (t + alpha (1 - t) - beta t) ) / U,        dp/dx = p (1 - p)
"""

from __future__ import annotations

from minidl.backend import Array
from minidl.ops.activation import stable_sigmoid
from minidl.ops.loss.target import target_array
from minidl.tensor import Function, Tensor


class TverskyLoss(Function):
    """1 - T, the mean over the images."""

    def __init__(self, target: Array, alpha: float, beta: float, smooth: float) -> None:
        self.target = target.reshape(len(target), -1)  # (N, pixels)
        self.alpha, self.beta, self.smooth = alpha, beta, smooth

    def forward(self, x: Array) -> Array:
        self.shape, t = x.shape, self.target
        self.p = p = stable_sigmoid(x).reshape(t.shape)  # (N, pixels)
        found, false, missed = (a.sum(axis=1, keepdims=True) for a in (p * t, p * (1.0 - t), (1.0 - p) * t))
        self.union = found + self.alpha * false + self.beta * missed + self.smooth  # (N, 1)
        self.index = (found + self.smooth) / self.union  # (N, 1)
        return 1.0 - self.index.mean()

    def backward(self, dy: Array) -> Array:
        t = self.target
        dunion = t + self.alpha * (1.0 - t) - self.beta * t  # (N, pixels)
        dp = (self.index * dunion - t) / self.union * (dy / len(t))
        return (dp * self.p * (1.0 - self.p)).reshape(self.shape)


def tversky_loss(
    logits: Tensor, target: Tensor, alpha: float = 0.3, beta: float = 0.7, smooth: float = 1.0
) -> Tensor:
    """Return 1 - Tversky index between sigmoid(logits) and target, (N, ...) each: the mean over N images.

    False positives have the weight `alpha`, false negatives `beta`. `smooth` is added to the numerator and
    the denominator, so that the loss of an empty mask that is predicted empty is 0. Raises ValueError for a
    negative weight.
    """
    if min(alpha, beta) < 0.0:
        raise ValueError(f"tversky_loss: alpha and beta must be at least 0, got {alpha} and {beta}")
    t = target_array(logits, target, "tversky_loss")
    return TverskyLoss(t, float(alpha), float(beta), smooth)(logits)

"""Softmax cross-entropy, and its focal variant, on logits x (N, K): one of K classes for each image.

Softmax turns the K logits of an image into probabilities: p_k = exp(x_k) / sum_j exp(x_j). The target t
(N, K) has a row for each image, a distribution over the classes times the weight of the image. With
l_k = log p_k, the loss is the weighted mean over the images of the cross-entropy between the two
distributions,

    L = 1/T  sum_n sum_k  -t_nk l_nk,        T = sum_n sum_k t_nk

So one array says which class an image has (1 at its place), label smoothing (a little at all places), the
weight of the image or its class (the sum of the row), and that the class is unknown (a row of zeros). If all
rows are zero, L = 0.

The focal loss (Lin et al. 2017, equation 4) multiplies every term by (1 - p_k)^gamma, so that an image that
is already classified with confidence counts less. With gamma = 0 it is the cross-entropy.

**Gradient.** The logit x_j changes every probability of its image: dl_k/dx_j = [k = j] - p_j. For one image,
let a_k be the derivative of T L with respect to l_k. With q_k = 1 - p_k, and dq_k/dl_k = -p_k,

    a_k = -t_k q_k^gamma (1 - gamma p_k l_k / q_k)
    dL/dx_j = 1/T sum_k a_k ([k = j] - p_j) = 1/T (a_j - p_j sum_k a_k)

With gamma = 0, a_k = -t_k, and an image of weight 1 has the gradient (p_j - t_j) / T: prediction minus truth,
as with a sigmoid. As p_k tends to 1, l_k / q_k tends to -1, so a_k is finite for every gamma >= 0.

**Overflow.** l_k is computed as x_k - m - log sum_j exp(x_j - m), where m is the largest logit of the image:
no exponential is above 1, and the sum is at least 1. q_k is computed as -expm1(l_k), which loses no digits
where p_k is nearly 1 and is never negative; a power of a negative number would be NaN.
"""

from __future__ import annotations

from minidl.backend import GPU, Array, Kernels, array_module, contiguous, cover
from minidl.implementation import choose, implements
from minidl.ops.loss.target import target_array
from minidl.tensor import Function, Tensor

kernels = Kernels(__file__)
BLOCK = 256  # threads of a block; a thread owns an image, and few batches have more images
TINY = 1e-30  # where q = 0, l / q is evaluated as 0 / TINY: the factor q^gamma, or gamma, is 0


def log_softmax(x: Array) -> Array:
    """Return log softmax(x) over the last axis, (..., K) -> (..., K), on a raw array."""
    xp = array_module(x)
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - xp.log(xp.exp(shifted).sum(axis=-1, keepdims=True))


class SoftmaxCrossEntropy(Function):
    """The sum of -t (1 - p)^gamma log p, divided by the sum of t."""

    def __init__(self, target: Array, gamma: float) -> None:
        self.target, self.gamma = target, gamma

    def forward(self, x: Array) -> Array:
        xp, t = array_module(x), self.target
        self.log_p = log_softmax(x)  # (N, K)
        total = t.sum()
        self.total = total + (total == 0.0)  # without any class, L = 0 / 1
        return -(t * (-xp.expm1(self.log_p)) ** self.gamma * self.log_p).sum() / self.total

    def backward(self, dy: Array) -> Array:
        xp = array_module(dy)
        p, q = xp.exp(self.log_p), -xp.expm1(self.log_p)
        a = -self.target * q**self.gamma * (1.0 - self.gamma * p * self.log_p / xp.maximum(q, TINY))
        return (a - p * a.sum(axis=-1, keepdims=True)) * (dy / self.total)


@implements(SoftmaxCrossEntropy, "kernels", devices=GPU)
class SoftmaxCrossEntropyKernels(SoftmaxCrossEntropy):
    """Softmax cross-entropy with one launch forward and one backward."""

    def forward(self, x: Array) -> Array:
        x, self.target = contiguous(x), contiguous(self.target)
        self.log_p, self.total, loss = (array_module(x).empty(s, x.dtype) for s in (x.shape, (), ()))
        arguments = x, self.target, self.log_p, self.total, loss, self.gamma, *x.shape
        kernels.launch("softmax_cross_entropy", (1,), (BLOCK,), *arguments)
        return loss

    def backward(self, dy: Array) -> Array:
        dx = array_module(dy).empty_like(self.log_p)
        arguments = dy, self.log_p, self.target, self.total, dx, self.gamma, *dx.shape
        kernels.launch("softmax_cross_entropy_backward", *cover(len(dx), BLOCK), *arguments)
        return dx


def softmax_cross_entropy(logits: Tensor, target: Tensor, gamma: float = 0.0) -> Tensor:
    """Return the weighted mean of the (focal) cross-entropy between softmax(logits) and target, (N, K) each.

    A row of the target is a distribution over the classes times the weight of its image; zeros mean that the
    image has no class. Raises ValueError for other shapes, and for a negative gamma, which would give correct
    images more weight than wrong ones.
    """
    if logits.ndim != 2:
        raise ValueError(f"softmax_cross_entropy: expected logits (N, K), got {logits.shape}")
    if not gamma >= 0.0:
        raise ValueError(f"softmax_cross_entropy: gamma must be at least 0, got {gamma}")
    t = target_array(logits, target, "softmax_cross_entropy")
    return choose(SoftmaxCrossEntropy, logits.device)(t, float(gamma))(logits)

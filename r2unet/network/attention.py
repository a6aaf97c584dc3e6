"""The attention gate (Oktay et al. 2018): weights every pixel of a skip connection.

A skip connection carries the edges of everything: of the lesion, of hairs, of the ruler. The features from
the level below have a larger receptive field and already locate the lesion roughly. So the skip x is
multiplied by an attention coefficient psi between 0 and 1 for every pixel, computed from x and from the
gating signal g, the upsampled features from below, both (N, C, H, W):

    a   = relu( norm(W_g g) + norm(W_x x) )         C/2 channels; W_g, W_x are 1x1 convolutions
    psi = sigmoid( norm(w a) )                      one channel; w is a 1x1 convolution, too
    y   = psi x

Adding before the ReLU lets a channel of `a` act as a logical "and": it is active only where both terms
support it. The gradient of y reaches x on two paths: directly, as psi dy, and through psi. Where the gate is
closed (psi near 0) both gradients vanish, so the layers before the skip do not learn from that pixel.

The paper computes psi at the lower resolution and interpolates it. Here g is upsampled first, as in
LeeJunHyun's PyTorch code, whose weights `interop.py` reads.
"""

from __future__ import annotations

import numpy as np

from minidl.nn import Conv2d, Module
from minidl.ops import relu, sigmoid
from minidl.tensor import Tensor
from r2unet.network.blocks import new_norm


class AttentionGate(Module):
    """Weight every pixel of a skip connection x by g, both (N, C, H, W) -> psi x (N, C, H, W)."""

    def __init__(self, channels: int, norm: str = "per-step", *, rng: np.random.Generator) -> None:
        inner = max(1, channels // 2)
        self.from_below = Conv2d(channels, inner, 1, rng=rng)
        self.from_below_norm = new_norm(norm, inner)
        self.from_skip = Conv2d(channels, inner, 1, rng=rng)
        self.from_skip_norm = new_norm(norm, inner)
        self.psi = Conv2d(inner, 1, 1, rng=rng)
        self.psi_norm = new_norm(norm, 1)

    def forward(self, g: Tensor, x: Tensor) -> Tensor:
        return x * self.weights(g, x)  # (N, C, H, W) * (N, 1, H, W)

    def weights(self, g: Tensor, x: Tensor) -> Tensor:
        """Return the attention coefficients psi, (N, 1, H, W), between 0 and 1."""
        a = relu(self.from_below_norm(self.from_below(g)) + self.from_skip_norm(self.from_skip(x)))
        return sigmoid(self.psi_norm(self.psi(a)))  # (N, C/2, H, W) -> (N, 1, H, W)


def no_gate(g: Tensor, x: Tensor) -> Tensor:
    """Return the skip x unchanged: the networks without attention."""
    return x

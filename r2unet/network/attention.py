"""The attention gate (Oktay et al. 2018): let what is known below decide where a skip is worth listening to.

A skip brings edges of everything: of the lesion, of hairs, of the ruler. The level below, which sees
further, already knows roughly where the lesion is. So the skip x is multiplied by a number a pixel between
0 and 1, computed from x and the gating signal g that comes from below, both (N, C, H, W):

    a   = relu( norm(W_g g) + norm(W_x x) )         C/2 channels; W_g, W_x are 1x1 convolutions
    psi = sigmoid( norm(w a) )                      one channel: w is a 1x1 convolution too
    y   = psi x

Adding before the ReLU lets a channel of `a` be an "and", on only where both sides speak for it. The
gradient of y reaches x on two paths, psi dy and through psi itself; where the gate is shut, what it shuts
out learns nothing.

The paper computes psi at the resolution below and interpolates it. Here g is already up-sampled, as in the
PyTorch version that most people use, whose weights we want to be able to read.
"""

from __future__ import annotations

import numpy as np

from minidl.nn import Conv2d, Module
from minidl.ops import relu, sigmoid
from minidl.tensor import Tensor
from r2unet.network.blocks import new_norm


class AttentionGate(Module):
    """Weigh every pixel of a skip, g and x (N, C, H, W) -> psi x (N, C, H, W)."""

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
        """Return psi, how much of each pixel passes: (N, 1, H, W), between 0 and 1."""
        a = relu(self.from_below_norm(self.from_below(g)) + self.from_skip_norm(self.from_skip(x)))
        return sigmoid(self.psi_norm(self.psi(a)))  # (N, C/2, H, W) -> (N, 1, H, W)

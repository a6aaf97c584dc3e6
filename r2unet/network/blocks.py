"""The blocks of the U-Nets, from the inside out: those of R2U-Net (Alom et al. 2018) and of its relatives.

**Recurrent convolution.** At every step t the paper adds two convolutions and a bias (its equation 1): one
of the block's input x, with the feed-forward weights w_f, and one of the previous output, with the recurrent
weights w_r:

    O(t) = w_f * x_f(t) + w_r * x_r(t-1) + b

This network ties the two, w_f = w_r, as LeeJunHyun's PyTorch code does. Convolution is linear, so a single
convolution of the sum remains, applied t + 1 times:

    y(0) = relu(norm(conv(x))),     y(s) = relu(norm(conv(x + y(s-1)))),   s = 1 ... t

The weights carry no index s: every step uses the same ones. Each step extends the receptive field by one
pixel in every direction. At t = 2 it is 7x7 pixels, as for three stacked 3x3 convolutions, with the weights
of one. The gradient of the shared weights is the sum over the t + 1 applications; `_backpropagate` in
`minidl/tensor.py` accumulates it, as for any leaf that is used more than once.

Two options change this. `tie_weights=False` separates w_f from w_r, as in the paper: twice the weights.
`share_weights=False` gives every step its own convolution, as many Keras versions do by mistake: t + 1 times
the weights.

**Batch norm keeps running statistics for every step.** Each step's inputs have their own distribution
(x, then x + y(0), ...). In training every application uses the statistics of its batch. A single set of
running averages would mix all steps and fit none of them, and the network in evaluation would differ from
the network in training. So every step has its own running statistics; the learned weight and bias are
shared, like the convolution. `NORMS` lists the alternatives.

**Four blocks** combine two choices: recurrence or not, and a shortcut (residual connection) or not. A
shortcut adds the block's input to its output, and recurrence adds it to the previous output. Both need equal
numbers of channels: x' = conv1x1(x).

                         convolutions                       recurrent convolutions
    without a shortcut   y = conv(conv(x))                  y = recurrent(recurrent(x'))
    with a shortcut      y = x' + conv(conv(x'))            y = x' + recurrent(recurrent(x'))

A convolution is a recurrent convolution with t = 0. Apart from the 1x1 convolution, which U-Net's block does
not need, neighbours in the table differ in one thing. No ReLU follows the sum: the shortcut stays an identity
(He et al. 2016).

**Up-convolution** doubles the image's height and width, then applies norm and ReLU. `UPSAMPLING` lists two
kinds: a transposed 3x3 convolution of stride 2, which learns to interpolate, or nearest-neighbour upsampling
followed by a 3x3 convolution. Both have the same number of weights.

The `fold` methods prepare a block for prediction; `fold.py` explains them.
"""

from __future__ import annotations

import numpy as np

from minidl.nn import BatchNorm2d, Conv2d, ConvTranspose2d, GroupNorm, Module
from minidl.ops import upsample_nearest
from minidl.tensor import Tensor
from r2unet.network.fold import fold

# per-step: a batch norm for every step of the recurrence, with its own running statistics and common weights
# shared:   one batch norm for all steps, whose running statistics mix them, as in LeeJunHyun's code
# group:    group norm, which needs no running statistics
NORMS = ("per-step", "shared", "group")


def new_norms(kind: str, channels: int, count: int) -> list[Module]:
    """Return the norms for `count` applications of a convolution; they share weight and bias."""
    if kind == "group":
        return [GroupNorm(group_count(channels), channels)] * count
    if kind == "shared":
        return [BatchNorm2d(channels)] * count
    norms = [BatchNorm2d(channels) for _ in range(count)]
    for norm in norms[1:]:
        norm.weight, norm.bias = norms[0].weight, norms[0].bias
    return norms


def new_norm(kind: str, channels: int) -> Module:
    """Return the norm of a convolution that is applied once; "per-step" and "shared" are then the same."""
    return new_norms(kind, channels, 1)[0]


def group_count(channels: int) -> int:
    """Return the number of groups for group norm: 4 or 2, with at least two channels in each, otherwise 1.

    Wu & He 2018 use 32 groups for 256 channels and more. Here 8 channels are common: 8 groups of one channel
    would be instance norm, which they find far worse because it discards the channels' relative strength.
    """
    return max((g for g in (2, 4) if channels % g == 0 and g < channels), default=1)


class ConvNormReLU(Module):
    """relu(norm(conv3x3(x))), x (N, C, H, W) -> y (N, OC, H, W)."""

    def __init__(
        self, in_channels: int, out_channels: int, norm: str = "per-step", *, rng: np.random.Generator
    ) -> None:
        self.conv = Conv2d(in_channels, out_channels, 3, padding=1, rng=rng)
        self.norm = new_norm(norm, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x), relu=True)

    def fold(self) -> None:
        """Fold the batch norm into the convolution, for prediction."""
        self.conv, self.norm = fold(self.conv, self.norm)


class RecurrentConv(Module):
    """One 3x3 convolution applied `steps` + 1 times, x (N, C, H, W) -> y (N, C, H, W)."""

    def __init__(
        self,
        channels: int,
        steps: int,
        share_weights: bool = True,
        norm: str = "per-step",
        *,
        rng: np.random.Generator,
    ) -> None:
        self.steps = steps
        self.conv = Conv2d(channels, channels, 3, padding=1, rng=rng)
        own = 0 if share_weights else steps  # how many steps after the first have their own convolution
        self.further = [Conv2d(channels, channels, 3, padding=1, rng=rng) for _ in range(own)]
        self.norm = new_norms(norm, channels, steps + 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm[0](self.conv(x), relu=True)
        for s in range(1, self.steps + 1):
            conv = self.further[s - 1] if self.further else self.conv
            y = self.norm[s](conv(x + y), relu=True)
        return y

    def fold(self) -> None:
        """Fold every step's batch norm into a convolution for that step, for prediction."""
        convs = [self.conv, *(self.further or [self.conv] * self.steps)]
        pairs = [fold(conv, norm) for conv, norm in zip(convs, self.norm, strict=True)]
        self.conv, *self.further = [conv for conv, _ in pairs]
        self.norm = [norm for _, norm in pairs]


class UntiedRecurrentConv(RecurrentConv):
    """A recurrent convolution with separate weights w_f and w_r, x (N, C, H, W) -> y (N, C, H, W).

        y(0) = relu(norm(w_f * x + b)),     y(s) = relu(norm(w_f * x + b + w_r * y(s-1)))

    `conv` is w_f and b, `recurrent` is w_r. w_f * x is the same at every step, so it is computed once.
    """

    def __init__(
        self, channels: int, steps: int, norm: str = "per-step", *, rng: np.random.Generator
    ) -> None:
        super().__init__(channels, steps, norm=norm, rng=rng)
        self.recurrent = Conv2d(channels, channels, 3, padding=1, bias=False, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        from_input = self.conv(x)  # w_f * x + b
        y = self.norm[0](from_input, relu=True)
        for norm in self.norm[1:]:
            y = norm(from_input + self.recurrent(y), relu=True)
        return y

    def fold(self) -> None:
        """Keep the norms: each step scales w_f * x differently, so folding would repeat that convolution."""


class ConvBlock(Module):
    """U-Net's block: two convolutions, x (N, C, H, W) -> y (N, OC, H, W)."""

    def __init__(
        self, in_channels: int, out_channels: int, norm: str = "per-step", *, rng: np.random.Generator
    ) -> None:
        self.first = ConvNormReLU(in_channels, out_channels, norm, rng=rng)
        self.second = ConvNormReLU(out_channels, out_channels, norm, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))  # (N, C, H, W) -> (N, OC, H, W)


class ResidualBlock(Module):
    """ResU-Net's block: two convolutions with a shortcut, x (N, C, H, W) -> y (N, OC, H, W)."""

    def __init__(
        self, in_channels: int, out_channels: int, norm: str = "per-step", *, rng: np.random.Generator
    ) -> None:
        self.project = Conv2d(in_channels, out_channels, 1, rng=rng)
        self.first = ConvNormReLU(out_channels, out_channels, norm, rng=rng)
        self.second = ConvNormReLU(out_channels, out_channels, norm, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x)  # (N, C, H, W) -> (N, OC, H, W)
        return x + self.second(self.first(x))


class RecurrentBlock(Module):
    """RU-Net's block: two recurrent convolutions, no shortcut, x (N, C, H, W) -> y (N, OC, H, W)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        steps: int,
        share_weights: bool = True,
        norm: str = "per-step",
        tie_weights: bool = True,
        *,
        rng: np.random.Generator,
    ) -> None:
        def recurrent_conv() -> RecurrentConv:
            if tie_weights:
                return RecurrentConv(out_channels, steps, share_weights, norm, rng=rng)
            return UntiedRecurrentConv(out_channels, steps, norm, rng=rng)

        self.project = Conv2d(in_channels, out_channels, 1, rng=rng)
        self.first = recurrent_conv()
        self.second = recurrent_conv()

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x)  # (N, C, H, W) -> (N, OC, H, W)
        return self.second(self.first(x))


class RecurrentResidualBlock(RecurrentBlock):
    """R2U-Net's block: two recurrent convolutions with a shortcut, x (N, C, H, W) -> y (N, OC, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x)  # (N, C, H, W) -> (N, OC, H, W)
        return x + self.second(self.first(x))


class UpConv(Module):
    """A transposed convolution of stride 2, norm and ReLU, x (N, C, H, W) -> y (N, OC, 2 H, 2 W)."""

    def __init__(
        self, in_channels: int, out_channels: int, norm: str = "per-step", *, rng: np.random.Generator
    ) -> None:
        self.up = ConvTranspose2d(
            in_channels, out_channels, 3, stride=2, padding=1, output_padding=1, rng=rng
        )
        self.norm = new_norm(norm, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.up(x), relu=True)

    def fold(self) -> None:
        """Fold the batch norm into the transposed convolution, for prediction."""
        self.up, self.norm = fold(self.up, self.norm)


class NearestUpConv(ConvNormReLU):
    """Nearest-neighbour upsampling, then a convolution, x (N, C, H, W) -> y (N, OC, 2 H, 2 W)."""

    def forward(self, x: Tensor) -> Tensor:
        x = upsample_nearest(x, 2)  # (N, C, H, W) -> (N, C, 2 H, 2 W)
        return super().forward(x)  # -> (N, OC, 2 H, 2 W)


UPSAMPLING = {"transposed": UpConv, "nearest": NearestUpConv}

"""The blocks of the U-Nets, from the inside out: R2U-Net's (Alom et al. 2018) and those it is compared with.

**Recurrent convolution.** One convolution is applied t + 1 times, each time to the block's input plus
what the last application gave:

    y(0) = relu(norm(conv(x))),     y(s) = relu(norm(conv(x + y(s-1)))),   s = 1 ... t

The weights carry no index s: they are the same at every step. Each step lets a pixel see one ring of
neighbours further, so t = 2 sees what three stacked 3x3 convolutions see, 7x7 pixels, with the weights of
one. The gradient of the shared weights is the sum over the t + 1 applications; the engine adds it up, as
for any tensor that is used more than once. (`share_weights=False` gives every step a convolution of its
own, as many a Keras version does by mistake: t + 1 times the weights.)

**Batch norm keeps running statistics for every step.** Each step's inputs have a distribution of their
own (x, then x + y(0), ...). In training each application uses its own batch's statistics, but one shared
set of running averages would be a mixture that fits none of the steps, and the network in evaluation
would differ from the one that was trained. The learned weight and bias are shared, as the paper's
recurrence has it; only the statistics are kept apart. `NORMS` lists the other ways.

**Four blocks** are the four ways to have or not to have recurrence and the way around it. All begin with
x' = conv1x1(x), which brings the input to the block's number of channels so that it can be added, except
U-Net's, which adds nothing and lets its first convolution do that:

                            convolutions                       recurrent convolutions
    without a way around    y = conv(conv(x))                  y = recurrent(recurrent(x'))
    with one                y = x' + conv(conv(x'))            y = x' + recurrent(recurrent(x'))

A convolution is a recurrent one at t = 0, so what differs between two blocks of the table is one thing.
There is no ReLU after the sum: it would hinder what the way around is for (He et al. 2016).

**Up-convolution.** The image is doubled, then norm and ReLU. `UPS` lists two ways: a transposed 3x3
convolution of stride 2, whose weights learn what to put between the pixels; or every pixel repeated to a
square of four, and a 3x3 convolution to smooth what that left. Both have the same number of weights.
"""

from __future__ import annotations

import numpy as np

from minidl.nn import BatchNorm2d, Conv2d, ConvTranspose2d, GroupNorm, Module
from minidl.ops import upsample_nearest
from minidl.tensor import Tensor

# per-step: batch norm with running statistics for every step of a recurrence, weight and bias in common
# shared:   one batch norm, whose running statistics mix the steps, as in the best known PyTorch version
# group:    group norm, which needs no running statistics
NORMS = ("per-step", "shared", "group")


def new_norms(kind: str, channels: int, count: int) -> list[Module]:
    """Return the norms of a convolution's `count` applications; they share weight and bias."""
    if kind == "group":
        return [GroupNorm(groups_of(channels), channels)] * count
    norms = [BatchNorm2d(channels) for _ in range(1 if kind == "shared" else count)]
    for norm in norms[1:]:
        norm.weight, norm.bias = norms[0].weight, norms[0].bias
    return norms * count if kind == "shared" else norms


def new_norm(kind: str, channels: int) -> Module:
    """Return the norm of a convolution that is applied once, where per-step and shared are the same."""
    return new_norms(kind, channels, 1)[0]


def groups_of(channels: int) -> int:
    """Return how many groups a group norm cuts channels into: 4 or 2, of two channels at least, or 1.

    Wu & He 2018 take 32 of 256 channels and more; of 8 that would be instance norm, which they find far
    worse, for it forgets how strong one channel is beside another.
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
        for t in range(1, self.steps + 1):
            conv = self.further[t - 1] if self.further else self.conv
            y = self.norm[t](conv(x + y), relu=True)
        return y


class ConvBlock(Module):
    """U-Net's: two convolutions, x (N, C, H, W) -> y (N, OC, H, W)."""

    def __init__(
        self, in_channels: int, out_channels: int, norm: str = "per-step", *, rng: np.random.Generator
    ) -> None:
        self.first = ConvNormReLU(in_channels, out_channels, norm, rng=rng)
        self.second = ConvNormReLU(out_channels, out_channels, norm, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))  # (N, C, H, W) -> (N, OC, H, W)


class ResidualBlock(Module):
    """ResU-Net's: two convolutions and a way around them, x (N, C, H, W) -> y (N, OC, H, W)."""

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
    """RU-Net's: two recurrent convolutions and no way around, x (N, C, H, W) -> y (N, OC, H, W)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        steps: int,
        share_weights: bool = True,
        norm: str = "per-step",
        *,
        rng: np.random.Generator,
    ) -> None:
        self.project = Conv2d(in_channels, out_channels, 1, rng=rng)
        self.first = RecurrentConv(out_channels, steps, share_weights, norm, rng=rng)
        self.second = RecurrentConv(out_channels, steps, share_weights, norm, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x)  # (N, C, H, W) -> (N, OC, H, W)
        return self.second(self.first(x))


class RecurrentResidualBlock(RecurrentBlock):
    """R2U-Net's: two recurrent convolutions and a way around them, x (N, C, H, W) -> y (N, OC, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x)  # (N, C, H, W) -> (N, OC, H, W)
        return x + self.second(self.first(x))


class UpConv(Module):
    """Double the image and change its channels, x (N, C, H, W) -> y (N, OC, 2 H, 2 W)."""

    def __init__(
        self, in_channels: int, out_channels: int, norm: str = "per-step", *, rng: np.random.Generator
    ) -> None:
        self.up = ConvTranspose2d(
            in_channels, out_channels, 3, stride=2, padding=1, output_padding=1, rng=rng
        )
        self.norm = new_norm(norm, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.up(x), relu=True)


class NearestUpConv(ConvNormReLU):
    """Repeat every pixel, then convolve, x (N, C, H, W) -> y (N, OC, 2 H, 2 W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(
            upsample_nearest(x, 2)
        )  # (N, C, H, W) -> (N, C, 2 H, 2 W) -> (N, OC, 2 H, 2 W)


UPS = {"transposed": UpConv, "nearest": NearestUpConv}

"""R2U-Net and its family: one U-shape (Ronneberger et al. 2015), six networks.

    image (3)                                                  logits (1)
      |                                                           ^ 1x1 convolution
    [ 8 ] ------------------ skip ----------------> concat 8+8 -> [ 8 ]       H    x W
      | max-pool                                        ^ up-convolution
    [ 16 ] ----------------- skip --------> concat 16+16 -> [ 16 ]            H/2  x W/2
      |                                           ^
    [ 32 ] ----------------- skip -> concat 32+32 -> [ 32 ]                   H/4  x W/4
      |                                 ^
      +----------> [ 64 ] --------------+                                     H/8  x W/8

On the way down, every block sees twice as far as the one before and says less precisely where. On the way
up, the skips bring the precise positions back. They are concatenated, so that the block after can weigh
the two sources as it likes: adding them would fix that choice before training. Each [ ] is a block with
that many channels, and which block makes the network:

    UNet            two convolutions                                        Ronneberger et al. 2015
    ResUNet         ... and a way around them                               Alom et al. 2018, ResU-Net
    RecurrentUNet   two recurrent convolutions                              Alom et al. 2018, RU-Net
    R2UNet          ... and a way around them                               Alom et al. 2018, R2U-Net
    AttentionUNet, R2AttentionUNet    UNet and R2UNet with a gate on every skip    Oktay et al. 2018

The output is a logit a pixel: sigmoid(logit) is the probability that the pixel is lesion.

All have the norms, the padding and the up-convolution of R2UNet, so that two of them differ in the block
alone. Every option below changes one thing more; the defaults are R2U-Net as the paper draws it, with batch
norms. What a choice costs can be counted: nearest up-sampling and a shared norm give the best known PyTorch
version of U-Net and R2U-Net, and its numbers of parameters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minidl.init import xavier_normal
from minidl.nn import Conv2d, Module
from minidl.ops import add, concat, max_pool2d
from minidl.recompute import recomputed
from minidl.tensor import Parameter, Tensor
from r2unet.network.attention import AttentionGate
from r2unet.network.blocks import (
    NORMS,
    UPS,
    ConvBlock,
    RecurrentBlock,
    RecurrentResidualBlock,
    ResidualBlock,
)

# How a skip meets what comes from below, (N, C, H, W) each.
JOINTS = {
    "concat": lambda skip, x: concat((skip, x), axis=1),  # -> (N, 2C, H, W)
    "add": add,  # -> (N, C, H, W)
    "none": lambda skip, x: x,  # -> (N, C, H, W)
}
CHOICES = {
    "share_weights": (True, False),
    "skips": tuple(JOINTS),
    "up": tuple(UPS),
    "norm": NORMS,
    "checkpoint_blocks": (False, True),
}


class UShape(Module):
    """x (N, in_channels, H, W) -> logits (N, out_channels, H, W); H and W divide by 2^(levels - 1).

    `widths` are the channels of each level, from the image's size down; any number of levels. `steps` is
    the paper's t, and `share_weights` whether the steps have one convolution or one each; both are for the
    recurrent networks only. `skips`, `up` and `norm` are among `CHOICES`. With `checkpoint_blocks` training
    keeps the blocks' inputs alone and computes what is inside them twice (`minidl.recompute`): half the
    memory and the same numbers. Weights are drawn from `rng`, He et al. 2015. Raises ValueError for options
    that make no network, naming the choices.
    """

    recurrent, attention = False, False

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        widths: Sequence[int] = (8, 16, 32, 64),
        steps: int = 2,
        *,
        share_weights: bool = True,
        skips: str = "concat",
        up: str = "transposed",
        norm: str = "per-step",
        checkpoint_blocks: bool = False,
        rng: np.random.Generator,
    ) -> None:
        name = type(self).__name__
        if not widths or min(widths) < 1 or steps < 0 or min(in_channels, out_channels) < 1:
            raise ValueError(f"{name}: want positive widths and steps >= 0, got {tuple(widths)} and {steps}")
        options = {"share_weights": share_weights, "skips": skips, "up": up, "norm": norm}
        self.check_options(steps, **options, checkpoint_blocks=checkpoint_blocks)
        self.widths, self.steps, self.share_weights = tuple(widths), steps, share_weights
        self.skips, self.norm, self.checkpoint_blocks = skips, norm, checkpoint_blocks

        self.encoder = [
            self.block(before, after, rng)
            for before, after in zip((in_channels, *widths), widths, strict=False)
        ]
        upwards = list(zip(widths[:0:-1], widths[-2::-1], strict=True))  # (64, 32), (32, 16), (16, 8)
        self.up = [UPS[up](below, here, norm, rng=rng) for below, here in upwards]
        sources = 2 if skips == "concat" else 1
        self.decoder = [self.block(sources * here, here, rng) for _, here in upwards]
        self.gates = [AttentionGate(here, norm, rng=rng) for _, here in upwards] if self.attention else []
        self.head = Conv2d(widths[0], out_channels, 1, rng=rng)
        self.head.weight = Parameter(xavier_normal(self.head.weight.shape, widths[0], out_channels, rng))

    def block(self, in_channels: int, out_channels: int, rng: np.random.Generator) -> Module:
        """Return a new block, (N, in_channels, H, W) -> (N, out_channels, H, W); it makes the network."""
        raise NotImplementedError(f"{type(self).__name__} does not define block")

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        skips = []
        for block in self.encoder[:-1]:
            x = self.run(block, x)
            skips.append(x)
            x = max_pool2d(x, 2)  # (N, C, H, W) -> (N, C, H/2, W/2)
        x = self.run(self.encoder[-1], x)
        for level, (up, block) in enumerate(zip(self.up, self.decoder, strict=True)):
            x = up(x)  # (N, 2C, H/2, W/2) -> (N, C, H, W)
            x = self.join(skips.pop(), x, level)  # -> (N, 2C, H, W)
            x = self.run(block, x)  # -> (N, C, H, W)
        return self.head(x)

    def run(self, block: Module, x: Tensor) -> Tensor:
        """Return block(x); for its backward pass all inside the block is kept, or x alone."""
        return recomputed(block, x) if self.checkpoint_blocks else block(x)

    def join(self, skip: Tensor, x: Tensor, level: int) -> Tensor:
        """Put the skip beside what comes from below, (N, C, H, W) each, or join them as `skips` says."""
        if self.attention:
            skip = self.gates[level](x, skip)
        return JOINTS[self.skips](skip, x)

    @property
    def multiple(self) -> int:
        """What the image's sides must divide by, since every level below the first halves them."""
        return 2 ** (len(self.widths) - 1)

    def check(self, x: Tensor) -> None:
        """Raise ValueError unless x is a batch of images whose sides can be halved often enough."""
        name = type(self).__name__
        if x.ndim != 4:
            raise ValueError(f"{name}: want images (N, C, H, W), got {x.shape}")
        if x.shape[2] % self.multiple or x.shape[3] % self.multiple:
            raise ValueError(
                f"{name}: {len(self.widths)} levels halve the image {len(self.widths) - 1} times, so its "
                f"sides must divide by {self.multiple}; got {x.shape[2]} x {x.shape[3]}; pad or resize it"
            )

    @classmethod
    def check_options(cls, steps: int, **options: str | bool) -> None:
        """Raise ValueError, in one line, for a choice that is none, or that would change nothing here."""
        for name, value in options.items():
            if value not in CHOICES[name]:
                choices = ", ".join(map(str, CHOICES[name]))
                raise ValueError(f"{cls.__name__}: {name} {value!r}: want one of {choices}")
        if not cls.recurrent and (steps, options["share_weights"]) != (2, True):
            raise ValueError(
                f"{cls.__name__}: has no recurrence, so steps and share_weights would change nothing; "
                "leave them out"
            )
        if cls.attention and options["skips"] == "none":
            raise ValueError(f"{cls.__name__}: its gates are on the skips; want skips concat or add")


class UNet(UShape):
    """U-Net: two convolutions a block (Ronneberger et al. 2015, here padded and with norms)."""

    def block(self, in_channels: int, out_channels: int, rng: np.random.Generator) -> Module:
        return ConvBlock(in_channels, out_channels, self.norm, rng=rng)


class ResUNet(UShape):
    """ResU-Net: a way around every block's convolutions (as Alom et al. 2018 compare it)."""

    def block(self, in_channels: int, out_channels: int, rng: np.random.Generator) -> Module:
        return ResidualBlock(in_channels, out_channels, self.norm, rng=rng)


class RecurrentUNet(UShape):
    """RU-Net: recurrent convolutions (Alom et al. 2018)."""

    recurrent = True

    def block(self, in_channels: int, out_channels: int, rng: np.random.Generator) -> Module:
        return RecurrentBlock(in_channels, out_channels, self.steps, self.share_weights, self.norm, rng=rng)


class R2UNet(UShape):
    """R2U-Net: recurrent convolutions and a way around them (Alom et al. 2018)."""

    recurrent = True

    def block(self, in_channels: int, out_channels: int, rng: np.random.Generator) -> Module:
        return RecurrentResidualBlock(
            in_channels, out_channels, self.steps, self.share_weights, self.norm, rng=rng
        )


class AttentionUNet(UNet):
    """U-Net with a gate on every skip (Oktay et al. 2018)."""

    attention = True


class R2AttentionUNet(R2UNet):
    """R2U-Net with a gate on every skip."""

    attention = True


NETWORKS = {
    "unet": UNet,
    "resunet": ResUNet,
    "recurrent-unet": RecurrentUNet,
    "r2unet": R2UNet,
    "attention-unet": AttentionUNet,
    "r2-attention-unet": R2AttentionUNet,
}

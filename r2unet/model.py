"""R2U-Net: the U-shape of Ronneberger et al. 2015 with the recurrent residual blocks of Alom et al. 2018.

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
the two sources as it likes: adding them would fix that choice before training. Each [ ] is a
RecurrentResidualBlock with that many channels.

The output is a logit a pixel: sigmoid(logit) is the probability that the pixel is lesion.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minidl.init import xavier_normal
from minidl.nn import Conv2d, Module
from minidl.ops import concat, max_pool2d
from minidl.tensor import Parameter, Tensor
from r2unet.blocks import RecurrentResidualBlock, UpConv


class R2UNet(Module):
    """x (N, in_channels, H, W) -> logits (N, out_channels, H, W); H and W divide by 2^(levels - 1).

    `widths` are the channels of each level, from the image's size down; any number of levels. `steps` is
    the paper's t. Weights are drawn from `rng`, He et al. 2015. Raises ValueError for widths or steps
    that make no network.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        widths: Sequence[int] = (8, 16, 32, 64),
        steps: int = 2,
        *,
        rng: np.random.Generator,
    ) -> None:
        if not widths or min(widths) < 1 or steps < 0 or min(in_channels, out_channels) < 1:
            raise ValueError(f"R2UNet: want positive widths and steps >= 0, got {tuple(widths)} and {steps}")
        self.widths, self.steps = tuple(widths), steps

        self.encoder = [
            RecurrentResidualBlock(before, after, steps, rng=rng)
            for before, after in zip((in_channels, *widths), widths, strict=False)
        ]
        upwards = list(zip(widths[:0:-1], widths[-2::-1], strict=True))  # (64, 32), (32, 16), (16, 8)
        self.up = [UpConv(below, here, rng=rng) for below, here in upwards]
        self.decoder = [RecurrentResidualBlock(2 * here, here, steps, rng=rng) for _, here in upwards]
        self.head = Conv2d(widths[0], out_channels, 1, rng=rng)
        self.head.weight = Parameter(xavier_normal(self.head.weight.shape, widths[0], out_channels, rng))

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        skips = []
        for block in self.encoder[:-1]:
            x = block(x)
            skips.append(x)
            x = max_pool2d(x, 2)  # (N, C, H, W) -> (N, C, H/2, W/2)
        x = self.encoder[-1](x)
        for up, block in zip(self.up, self.decoder, strict=True):
            x = up(x)  # (N, 2C, H/2, W/2) -> (N, C, H, W)
            x = concat((skips.pop(), x), axis=1)  # -> (N, 2C, H, W)
            x = block(x)  # -> (N, C, H, W)
        return self.head(x)

    @property
    def multiple(self) -> int:
        """What the image's sides must divide by, since every level below the first halves them."""
        return 2 ** (len(self.widths) - 1)

    def check(self, x: Tensor) -> None:
        """Raise ValueError unless x is a batch of images whose sides can be halved often enough."""
        if x.ndim != 4:
            raise ValueError(f"R2UNet: want images (N, C, H, W), got {x.shape}")
        if x.shape[2] % self.multiple or x.shape[3] % self.multiple:
            raise ValueError(
                f"R2UNet: {len(self.widths)} levels halve the image {len(self.widths) - 1} times, so its "
                f"sides must divide by {self.multiple}; got {x.shape[2]} x {x.shape[3]}; pad or resize it"
            )

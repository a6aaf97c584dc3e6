"""The blocks of R2U-Net (Alom et al. 2018), from the inside out.

**Recurrent convolution.** One convolution is applied t + 1 times, each time to the block's input plus
what the last application gave:

    y(0) = relu(norm(conv(x))),     y(s) = relu(norm(conv(x + y(s-1)))),   s = 1 ... t

The weights carry no index s: they are the same at every step. Each step lets a pixel see one ring of
neighbours further, so t = 2 sees what three stacked 3x3 convolutions see, 7x7 pixels, with the weights of
one. The gradient of the shared weights is the sum over the t + 1 applications; the engine adds it up, as
for any tensor that is used more than once.

**Batch norm keeps running statistics for every step.** Each step's inputs have a distribution of their
own (x, then x + y(0), ...). In training each application uses its own batch's statistics, but one shared
set of running averages would be a mixture that fits none of the steps, and the network in evaluation
would differ from the one that was trained. The learned weight and bias are shared, as the paper's
recurrence has it; only the statistics are kept apart.

**Recurrent residual block.** Two recurrent convolutions, around which the input is added. A 1x1
convolution first brings the input to the block's number of channels, so that it can be:

    x' = conv1x1(x),     y = x' + recurrent(recurrent(x'))

**Up-convolution.** A transposed 3x3 convolution of stride 2 doubles the image; then norm and ReLU.
"""

from __future__ import annotations

import numpy as np

from minidl.nn import BatchNorm2d, Conv2d, ConvTranspose2d, Module
from minidl.tensor import Tensor


class RecurrentConv(Module):
    """One 3x3 convolution applied `steps` + 1 times, x (N, C, H, W) -> y (N, C, H, W)."""

    def __init__(self, channels: int, steps: int, *, rng: np.random.Generator) -> None:
        self.steps = steps
        self.conv = Conv2d(channels, channels, 3, padding=1, rng=rng)
        self.norm = [BatchNorm2d(channels) for _ in range(steps + 1)]
        for norm in self.norm[1:]:
            norm.weight, norm.bias = self.norm[0].weight, self.norm[0].bias

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm[0](self.conv(x), relu=True)
        for t in range(1, self.steps + 1):
            y = self.norm[t](self.conv(x + y), relu=True)
        return y


class RecurrentResidualBlock(Module):
    """Two recurrent convolutions and a way around them, x (N, C, H, W) -> y (N, OC, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, steps: int, *, rng: np.random.Generator) -> None:
        self.project = Conv2d(in_channels, out_channels, 1, rng=rng)
        self.first = RecurrentConv(out_channels, steps, rng=rng)
        self.second = RecurrentConv(out_channels, steps, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x)  # (N, C, H, W) -> (N, OC, H, W)
        return x + self.second(self.first(x))


class UpConv(Module):
    """Double the image and change its channels, x (N, C, H, W) -> y (N, OC, 2 H, 2 W)."""

    def __init__(self, in_channels: int, out_channels: int, *, rng: np.random.Generator) -> None:
        self.up = ConvTranspose2d(
            in_channels, out_channels, 3, stride=2, padding=1, output_padding=1, rng=rng
        )
        self.norm = BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.up(x), relu=True)

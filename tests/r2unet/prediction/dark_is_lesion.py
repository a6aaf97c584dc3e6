"""A network whose prediction is known, and an image for it."""

import numpy as np

from minidl import Tensor
from minidl.nn import Conv2d, Module
from r2unet.network.model import Answer

DARK, LIGHT = 40, 215


class DarkIsLesion(Module):
    """A network with a known prediction: a pixel is lesion where red is below the middle of its range."""

    multiple = 8
    task = "outline"

    def __init__(self) -> None:
        self.head = Conv2d(3, 1, 1, rng=np.random.default_rng(0))
        self.head.weight.data[...] = 0.0
        self.head.weight.data[0, 0] = -4.0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[2] % self.multiple == x.shape[3] % self.multiple == 0
        return self.head(x)

    def answer(self, x: Tensor) -> Answer:
        return Answer(self.forward(x), None)


def dark_quarter(height: int, width: int) -> np.ndarray:
    """Return a light image (height, width, 3) whose upper left quarter is dark."""
    image = np.full((height, width, 3), LIGHT, np.uint8)
    image[: (height + 1) // 2, : (width + 1) // 2] = DARK
    return image

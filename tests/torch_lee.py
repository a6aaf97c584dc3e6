"""LeeJunHyun's four networks in PyTorch: the reference for reading their weights.

Modelled on github.com/LeeJunHyun/Image_Segmentation, with the attribute names of its state_dicts, but with
any widths. It shares no code with the library. Run as a program it writes `lee_reference.npz`, with which the
tests compare where PyTorch is not installed:

    python tests/torch_lee.py
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

REFERENCE = Path(__file__).parent / "lee_reference.npz"
WIDTHS = (3, 4, 6)


def conv3x3(before: int, after: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]


class ConvBlock(nn.Module):
    def __init__(self, before: int, after: int, t: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(*conv3x3(before, after), *conv3x3(after, after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class Recurrent(nn.Module):
    def __init__(self, channels: int, t: int) -> None:
        super().__init__()
        self.t = t
        self.conv = nn.Sequential(*conv3x3(channels, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        for _ in range(self.t):
            y = self.conv(x + y)
        return y


class RecurrentResidual(nn.Module):
    def __init__(self, before: int, after: int, t: int) -> None:
        super().__init__()
        self.RCNN = nn.Sequential(Recurrent(after, t), Recurrent(after, t))
        self.Conv_1x1 = nn.Conv2d(before, after, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.Conv_1x1(x)
        return x + self.RCNN(x)


class Up(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.up = nn.Sequential(nn.Upsample(scale_factor=2), *conv3x3(before, after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(x)


class Gate(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 2
        self.W_g = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.BatchNorm2d(inner))
        self.W_x = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.BatchNorm2d(inner))
        self.psi = nn.Sequential(nn.Conv2d(inner, 1, 1), nn.BatchNorm2d(1), nn.Sigmoid())

    def forward(self, g: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return x * self.psi(torch.relu(self.W_g(g) + self.W_x(x)))


class Lee(nn.Module):
    """U_Net, or with recurrent blocks R2U_Net, with gates AttU_Net, with both R2AttU_Net."""

    def __init__(
        self, recurrent: bool, gated: bool, widths: tuple[int, ...], t: int = 2, channels: int = 3
    ) -> None:
        super().__init__()
        block, self.block, self.up_block = (
            (RecurrentResidual, "RRCNN", "Up_RRCNN") if recurrent else (ConvBlock, "Conv", "Up_conv")
        )
        self.levels, self.gated = len(widths), gated
        for n, (before, after) in enumerate(zip((channels, *widths), widths, strict=False), start=1):
            setattr(self, f"{self.block}{n}", block(before, after, t))
        for n in range(self.levels, 1, -1):
            below, here = widths[n - 1], widths[n - 2]
            setattr(self, f"Up{n}", Up(below, here))
            if gated:
                setattr(self, f"Att{n}", Gate(here))
            setattr(self, f"{self.up_block}{n}", block(2 * here, here, t))
        self.Conv_1x1 = nn.Conv2d(widths[0], 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for n in range(1, self.levels + 1):
            x = getattr(self, f"{self.block}{n}")(x)
            if n < self.levels:
                skips.append(x)
                x = nn.functional.max_pool2d(x, 2)
        for n in range(self.levels, 1, -1):
            x, skip = getattr(self, f"Up{n}")(x), skips.pop()
            if self.gated:
                skip = getattr(self, f"Att{n}")(g=x, x=skip)
            x = getattr(self, f"{self.up_block}{n}")(torch.cat((skip, x), dim=1))
        return self.Conv_1x1(x)


# name -> (recurrent, gated)
NETWORKS = {
    "U_Net": (False, False),
    "R2U_Net": (True, False),
    "AttU_Net": (False, True),
    "R2AttU_Net": (True, True),
}


def randomised(network: Lee, seed: int) -> Lee:
    """Change every number of the state at random, so that exchanged roles show; switch to evaluation."""
    noise = torch.Generator().manual_seed(seed)
    for name, a in network.state_dict().items():
        drawn = torch.randn(a.shape, generator=noise) if a.is_floating_point() else torch.tensor(7)
        if name.endswith("running_var"):
            a.copy_(torch.exp(0.3 * drawn))
        else:
            a.copy_(a + 0.2 * drawn if a.is_floating_point() else drawn)
    return network.eval()


def outputs(network: Lee, x: np.ndarray) -> np.ndarray:
    """Return the network's logits, (N, 3, H, W) -> (N, 1, H, W)."""
    with torch.no_grad():
        return network(torch.tensor(x)).numpy()


def main() -> None:
    """Write an image and every network's state and logits to the reference file."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 32, 16).numpy()
    arrays = {"x": x, "torch_version": np.array(torch.__version__)}
    for name, kind in NETWORKS.items():
        network = randomised(Lee(*kind, WIDTHS), seed=1)
        arrays |= {f"{name}/state/{entry}": a.numpy() for entry, a in network.state_dict().items()}
        arrays[f"{name}/logits"] = outputs(network, x)
    np.savez_compressed(REFERENCE, **arrays)


if __name__ == "__main__":
    main()

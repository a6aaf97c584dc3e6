"""An independent PyTorch implementation of all networks and options: the reference for the tests.

It shares no code with the library. The names in the state_dict determine the layers; the shortcut and the use
of the skip connections are arguments. Run as a program it writes `family_reference.npz`, with which the tests
compare where PyTorch is not installed:

    python tests/torch_family.py
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

REFERENCE = Path(__file__).parent / "family_reference.npz"
WIDTHS, STEPS = (3, 4, 8), 2
GROUPS = {1: 1, 2: 1, 3: 1, 4: 2, 8: 4}  # channels -> groups of a group norm

# label -> options of the library's network, arguments of `Network` below
VARIANTS = {
    "UNet": ({"model": "unet"}, {"residual": False}),
    "ResUNet": ({"model": "resunet"}, {}),
    "RecurrentUNet": ({"model": "recurrent-unet"}, {"residual": False}),
    "AttentionUNet": ({"model": "attention-unet"}, {"residual": False}),
    "R2AttentionUNet": ({"model": "r2-attention-unet"}, {}),
    "own weights": ({"share_weights": False}, {}),
    "skips added": ({"skips": "add"}, {"skips": "add"}),
    "no skips": ({"skips": "none"}, {"skips": "none"}),
    "nearest": ({"up": "nearest"}, {}),
    "shared norm": ({"norm": "shared"}, {}),
    "group norm": ({"norm": "group"}, {}),
    "untied weights": ({"tie_weights": False}, {}),
}


class Network:
    """The network with the weights `w`, named as in `state_dict()`, in training or evaluation."""

    def __init__(self, w: dict, training: bool, residual: bool = True, skips: str = "concat") -> None:
        self.w, self.training, self.residual, self.skips = w, training, residual, skips

    def conv(self, name: str, x: torch.Tensor) -> torch.Tensor:
        weight = self.w[f"{name}.weight"]
        return F.conv2d(x, weight, self.w.get(f"{name}.bias"), padding=weight.shape[-1] // 2)

    def norm(self, name: str, x: torch.Tensor, step: str = "") -> torch.Tensor:
        """Weight and bias are at `name`, the running statistics at `step` if every step has its own."""
        weight, bias = self.w[f"{name}.weight"], self.w[f"{name}.bias"]
        if f"{name}.running_mean" not in self.w:
            return F.group_norm(x, GROUPS[x.shape[1]], weight, bias)
        at = step if f"{step}.running_mean" in self.w else name
        mean, var = self.w[f"{at}.running_mean"].clone(), self.w[f"{at}.running_var"].clone()
        return F.batch_norm(x, mean, var, weight, bias, self.training)

    def layer(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """A convolution or a recurrent convolution, with norm and ReLU."""
        if f"{name}.norm.weight" in self.w:
            return self.norm(f"{name}.norm", self.conv(f"{name}.conv", x)).relu()
        y = self.norm(f"{name}.norm.0", self.conv(f"{name}.conv", x)).relu()
        for t in range(1, STEPS + 1):
            own = f"{name}.further.{t - 1}"
            if f"{name}.recurrent.weight" in self.w:
                y = self.conv(f"{name}.conv", x) + self.conv(f"{name}.recurrent", y)
            else:
                y = self.conv(own if f"{own}.weight" in self.w else f"{name}.conv", x + y)
            y = self.norm(f"{name}.norm.0", y, f"{name}.norm.{t}").relu()
        return y

    def block(self, name: str, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(f"{name}.project", x) if f"{name}.project.weight" in self.w else x
        y = self.layer(f"{name}.second", self.layer(f"{name}.first", x))
        return x + y if self.residual else y

    def up(self, name: str, x: torch.Tensor) -> torch.Tensor:
        if f"{name}.up.weight" in self.w:
            weight, bias = self.w[f"{name}.up.weight"], self.w[f"{name}.up.bias"]
            x = F.conv_transpose2d(x, weight, bias, stride=2, padding=1, output_padding=1)
        else:
            x = self.conv(f"{name}.conv", F.interpolate(x, scale_factor=2))
        return self.norm(f"{name}.norm", x).relu()

    def gate(self, name: str, g: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        g1, x1 = (
            self.norm(f"{name}.{side}_norm", self.conv(f"{name}.{side}", a))
            for side, a in (("from_below", g), ("from_skip", x))
        )
        return x * self.norm(f"{name}.psi_norm", self.conv(f"{name}.psi", (g1 + x1).relu())).sigmoid()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        levels, skips = len(WIDTHS), []
        for i in range(levels):
            x = self.block(f"encoder.{i}", x)
            if i < levels - 1:
                skips.append(x)
                x = F.max_pool2d(x, 2)
        for i in range(levels - 1):
            x, skip = self.up(f"up.{i}", x), skips.pop()
            if f"gates.{i}.psi.weight" in self.w:
                skip = self.gate(f"gates.{i}", x, skip)
            x = {"concat": torch.cat((skip, x), dim=1), "add": skip + x, "none": x}[self.skips]
            x = self.block(f"decoder.{i}", x)
        return self.conv("head", x)


def main() -> None:
    """Write an image and, for every variant, its state as one vector and its logits to the reference file."""
    from r2unet.network.model import NETWORKS

    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 12, 8)).astype(np.float32)
    arrays = {"x": x, "options": np.array(json.dumps({label: ours for label, (ours, _) in VARIANTS.items()}))}
    for label, (ours, arguments) in VARIANTS.items():
        options = {"model": "r2unet", **ours}
        state = NETWORKS[options.pop("model")](widths=WIDTHS, rng=rng, **options).state_dict()
        for name, a in state.items():  # zeros and ones would hide exchanged roles
            noise = rng.normal(size=a.shape).astype(np.float32)
            state[name] = a * np.exp(0.3 * noise) if "running_var" in name else a + 0.1 * noise
        arrays[f"{label}/state"] = np.concatenate([state[name].ravel() for name in sorted(state)])
        weights = {name: torch.tensor(a) for name, a in state.items()}
        for mode, training in (("train", True), ("eval", False)):
            arrays[f"{label}/{mode}"] = Network(weights, training, **arguments)(torch.tensor(x)).numpy()
    np.savez_compressed(REFERENCE, torch_version=np.array(torch.__version__), **arrays)


if __name__ == "__main__":
    main()

"""R2U-Net in this project and in PyTorch eager: a training step and an inference.

A step is that of `r2unet train` with default settings: forward, binary cross-entropy + soft Dice, backward,
gradient clipping, AdamW. PyTorch's network is the tests' reference implementation with our weights; its AdamW
has PyTorch's default options.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from benchmarks.frameworks import OWN, import_torch_reference, installed
from benchmarks.plan import STEPS
from minidl import Tensor, no_grad
from minidl.optim import AdamW, clip_grad_norm
from r2unet.network.fold import fold_all
from r2unet.network.losses import LOSSES
from r2unet.network.model import R2UNet
from r2unet.training.settings import Settings

SETTINGS = Settings()  # widths 8, 16, 32, 64


class Inputs(NamedTuple):
    """The inputs of both networks, float32."""

    images: np.ndarray  # (N, 3, H, W)
    masks: np.ndarray  # (N, 1, H, W), 0 or 1
    state: dict[str, np.ndarray]  # the weights
    widths: tuple[int, ...] = SETTINGS.widths


def draw(
    batch: int, size: int, rng: np.random.Generator, widths: tuple[int, ...] = SETTINGS.widths
) -> Inputs:
    """Draw images, masks and the weights of a new network."""
    images = rng.standard_normal((batch, 3, size, size), np.float32)
    masks = (rng.random((batch, 1, size, size)) < 0.25).astype(np.float32)
    model = R2UNet(widths=widths, steps=STEPS, rng=rng)
    return Inputs(images, masks, model.state_dict(), widths)


class OwnNetwork:
    """This project's R2UNet with minidl's AdamW."""

    def __init__(self, inputs: Inputs) -> None:
        self.model = R2UNet(widths=inputs.widths, steps=STEPS, rng=np.random.default_rng(0))
        self.model.load_state_dict(inputs.state)
        self.images, self.masks = Tensor(inputs.images), Tensor(inputs.masks)
        self.folded = None
        parameters = self.model.parameters()
        self.optimizer = AdamW(parameters, SETTINGS.lr, weight_decay=SETTINGS.weight_decay)

    def step(self) -> float:
        """Take one training step and return the loss before it."""
        self.model.train()
        loss = LOSSES[SETTINGS.loss](self.model(self.images), self.masks)
        value = loss.item()
        self.optimizer.zero_grad()
        loss.backward()
        clip_grad_norm(self.optimizer.parameters, SETTINGS.clip)
        self.optimizer.step()
        self.folded = None
        return value

    def infer(self) -> np.ndarray:
        """Return the logits in evaluation mode, as `r2unet predict` computes them."""
        if self.folded is None:
            self.folded = fold_all(self.model)
        with no_grad():
            return self.folded(self.images).numpy()


class TorchNetwork:
    """The tests' PyTorch reference implementation with torch.optim.AdamW."""

    def __init__(self, inputs: Inputs) -> None:
        import torch

        self.torch, self.reference = torch, import_torch_reference()
        self.levels = len(inputs.widths)
        self.w = {name: torch.tensor(array) for name, array in inputs.state.items()}
        self.parameters = [a.requires_grad_() for name, a in self.w.items() if "running" not in name]
        self.images, self.masks = torch.tensor(inputs.images), torch.tensor(inputs.masks)
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=SETTINGS.lr, weight_decay=SETTINGS.weight_decay
        )

    def step(self) -> float:
        """Take one training step and return the loss before it."""
        loss = self.reference.loss_of(self._forward(training=True), self.masks)
        value = loss.item()
        self.optimizer.zero_grad()
        loss.backward()
        self.torch.nn.utils.clip_grad_norm_(self.parameters, SETTINGS.clip)
        self.optimizer.step()
        return value

    def infer(self) -> np.ndarray:
        """Return the logits in evaluation mode."""
        with self.torch.no_grad():
            return self._forward(training=False).numpy()

    def _forward(self, training: bool) -> Any:
        return self.reference.r2unet(self.w, self.images, self.levels, STEPS, training)


IMPLEMENTATIONS = {OWN: OwnNetwork, "PyTorch": TorchNetwork}


def make(inputs: Inputs) -> dict[str, Any]:
    """Return the network in this project and, if it is installed, in PyTorch."""
    return {name: IMPLEMENTATIONS[name](inputs) for name in (OWN, *installed()) if name in IMPLEMENTATIONS}

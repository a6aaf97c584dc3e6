"""R2U-Net and its training step on a GPU, in this project and in PyTorch.

Each class has three asynchronous calls that return an array on the device: `forward` in training mode,
`forward_backward` with the loss and all gradients, and `step`, which also clips the gradients and updates the
weights. A step is that of `r2unet train` with default settings.

PyTorch uses its fastest options: cuDNN searches for the best algorithm, AdamW is fused, and in the compiled
version the network and the loss are compiled together.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.frameworks import OWN, TESTS
from minidl import Tensor, no_grad
from minidl.backend import Array, to_device, to_numpy
from minidl.ops.conv import convolution
from minidl.optim import AdamW, clip_grad_norm
from r2unet.network.losses import LOSSES
from r2unet.network.model import R2UNet
from r2unet.training.settings import Settings

STEPS = 2  # the recurrence's t
SETTINGS = Settings()
CALLS = ("forward", "forward_backward", "step")
METHODS = {f"{OWN}, auto": "auto", f"{OWN}, im2col": "im2col", f"{OWN}, direct": "direct"}
EAGER, COMPILED = "PyTorch", "PyTorch, compiled"


class Inputs(NamedTuple):
    """The inputs of all networks, float32."""

    images: np.ndarray  # (N, 3, H, W)
    masks: np.ndarray  # (N, 1, H, W), 0 or 1
    state: dict[str, np.ndarray]  # the weights
    widths: tuple[int, ...]


def draw(widths: tuple[int, ...], batch: int, size: int, rng: np.random.Generator) -> Inputs:
    """Draw images, masks and the weights of a new network."""
    images = rng.standard_normal((batch, 3, size, size), np.float32)
    masks = (rng.random((batch, 1, size, size)) < 0.25).astype(np.float32)
    return Inputs(images, masks, R2UNet(widths=widths, steps=STEPS, rng=rng).state_dict(), widths)


class OwnNetwork:
    """This project's R2UNet with minidl's AdamW, by one of the methods of `convolution`."""

    def __init__(self, inputs: Inputs, device: str, method: str = "auto") -> None:
        self.method = method
        self.model = R2UNet(widths=inputs.widths, steps=STEPS, rng=np.random.default_rng(0)).to(device)
        self.model.load_state_dict(inputs.state)
        self.images, self.masks = (Tensor(to_device(a, device)) for a in (inputs.images, inputs.masks))
        self.optimizer = AdamW(self.model.parameters(), SETTINGS.lr, weight_decay=SETTINGS.weight_decay)

    def forward(self) -> Array:
        with no_grad(), convolution(self.method):
            return self.model(self.images).data

    def forward_backward(self) -> Array:
        with convolution(self.method):
            loss = LOSSES[SETTINGS.loss](self.model(self.images), self.masks)
            self.optimizer.zero_grad()
            loss.backward()
            return loss.data

    def step(self) -> Array:
        loss = self.forward_backward()
        clip_grad_norm(self.optimizer.parameters, SETTINGS.clip)
        self.optimizer.step()
        return loss

    as_numpy = staticmethod(to_numpy)

    def gradient(self) -> np.ndarray:
        """Return all gradients, concatenated."""
        return np.concatenate([to_numpy(p.grad).ravel() for p in self.optimizer.parameters])


class TorchNetwork:
    """The tests' PyTorch reference implementation with torch.optim.AdamW."""

    def __init__(self, inputs: Inputs, device: str, compiled: bool = False) -> None:
        import torch

        self.torch, self.reference = torch, load_torch_reference()
        torch_device = "cuda" if device == "cuda" else "cpu"
        torch.backends.cudnn.benchmark = True
        self.w = {name: torch.tensor(array, device=torch_device) for name, array in inputs.state.items()}
        self.parameters = [a.requires_grad_() for name, a in self.w.items() if "running" not in name]
        self.images, self.masks = (
            torch.tensor(a, device=torch_device) for a in (inputs.images, inputs.masks)
        )
        self.levels = len(inputs.widths)
        self.optimizer = torch.optim.AdamW(
            self.parameters, SETTINGS.lr, weight_decay=SETTINGS.weight_decay, fused=torch_device == "cuda"
        )
        compile_ = torch.compile if compiled else lambda f: f
        self.logits, self.loss = compile_(self._logits), compile_(self._loss)

    def _logits(self, images: Any) -> Any:
        return self.reference.r2unet(self.w, images, self.levels, STEPS, training=True)

    def _loss(self, images: Any, masks: Any) -> Any:
        return self.reference.loss_of(self._logits(images), masks)

    def forward(self) -> Any:
        with self.torch.no_grad():
            return self.logits(self.images)

    def forward_backward(self) -> Any:
        loss = self.loss(self.images, self.masks)
        self.optimizer.zero_grad()
        loss.backward()
        return loss.detach()

    def step(self) -> Any:
        loss = self.forward_backward()
        self.torch.nn.utils.clip_grad_norm_(self.parameters, SETTINGS.clip)
        self.optimizer.step()
        return loss

    def gradient(self) -> np.ndarray:
        """Return all gradients, concatenated."""
        return np.concatenate([p.grad.cpu().numpy().ravel() for p in self.parameters])

    @staticmethod
    def as_numpy(tensor: Any) -> np.ndarray:
        """Return the result of a call as a NumPy array."""
        return tensor.cpu().numpy()


def load_torch_reference() -> Any:
    """Return the tests' PyTorch reference implementation, as a module, with a faster batch norm.

    The reference updates copies of the running statistics. PyTorch's own layer updates them in place, which
    saves two small copies per norm; this version does the same.
    """
    name = "benchmarks.torch_reference"  # a separate module: the tests' own stays unchanged
    specification = importlib.util.spec_from_file_location(name, TESTS / "torch_r2unet.py")
    # In sys.modules, where torch.compile looks it up.
    reference = sys.modules[name] = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(reference)

    def norm(w: dict, statistics: str, affine: str, x: Any, training: bool) -> Any:
        running = w[f"{statistics}.running_mean"], w[f"{statistics}.running_var"]
        return reference.F.batch_norm(x, *running, w[f"{affine}.weight"], w[f"{affine}.bias"], training)

    reference.norm = norm
    return reference


def network_factories(inputs: Inputs, device: str) -> dict[str, Callable[[], Any]]:
    """Return functions that create each network, by name; PyTorch's only if it is installed."""
    own = {name: lambda m=method: OwnNetwork(inputs, device, m) for name, method in METHODS.items()}
    if not importlib.util.find_spec("torch"):
        return own
    return own | {
        EAGER: lambda: TorchNetwork(inputs, device),
        COMPILED: lambda: TorchNetwork(inputs, device, compiled=True),
    }

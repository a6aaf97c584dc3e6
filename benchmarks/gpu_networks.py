"""R2U-Net and its training step on a GPU, in this project and in PyTorch.

Each class has three asynchronous calls that return an array on the device: `forward` in training mode,
`forward_backward` with the loss and all gradients, and `step`, which also clips the gradients and updates the
weights. A step is that of `r2unet train` with default settings.

PyTorch uses its fastest options: cuDNN searches for the best algorithm, AdamW is fused, and in the compiled
versions the network and the loss are compiled together.

**Which to compare with which.** `r2unet train` launches a step as a CUDA graph where it can: GRAPH is what a
user gets. The other rows of this project show what the graph brings, and how the algorithms of convolution
differ.

    PyTorch                         computes with all bits of float32: the peer with the same arithmetic
    PyTorch, TF32                   PyTorch's default for convolutions, so what an unmodified program does; it
                                    rounds to 10 bits of mantissa, and TF32_OWN is the peer with this rounding
    PyTorch, compiled               kernels fused by a compiler, and launched one by one
    PyTorch, compiled, CUDA graph   mode="reduce-overhead": launched as a graph, too, so the peer of GRAPH
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.frameworks import OWN, TESTS
from benchmarks.gpu_clock import torch_tf32
from minidl import Tensor, no_grad
from minidl.backend import GPU, Array, tf32, to_device, to_numpy
from minidl.graph import GraphedStep
from minidl.ops.conv import convolution
from minidl.optim import AdamW, clip_grad_norm
from r2unet.network.losses import LOSSES
from r2unet.network.model import R2UNet
from r2unet.training.settings import Settings

STEPS = 2  # the recurrence's t
SETTINGS = Settings()
CALLS = ("step", "forward")  # that are timed, the more important first
METHODS = {f"{OWN}, auto": "auto", f"{OWN}, im2col": "im2col", f"{OWN}, direct": "direct"}
GRAPH, TF32_OWN = f"{OWN}, auto, CUDA graph", f"{OWN}, im2col, TF32"
EAGER, TF32, COMPILED, COMPILED_GRAPH = (
    "PyTorch",
    "PyTorch, TF32",
    "PyTorch, compiled",
    "PyTorch, compiled, CUDA graph",
)
ROUNDED = (TF32_OWN, TF32)  # to TF32's 10 bits of mantissa
WITHOUT_FORWARD = (GRAPH, COMPILED, COMPILED_GRAPH)  # a graph, or a compilation, of its own would be needed


class Inputs(NamedTuple):
    """The inputs of all networks, float32."""

    images: np.ndarray  # (N, 3, H, W)
    masks: np.ndarray  # (N, 1, H, W), 0 or 1
    state: dict[str, np.ndarray]  # the weights
    widths: tuple[int, ...]
    norm: str = SETTINGS.norm


def draw(
    widths: tuple[int, ...], batch: int, size: int, rng: np.random.Generator, norm: str = SETTINGS.norm
) -> Inputs:
    """Draw images, masks and the weights of a new network."""
    images = rng.standard_normal((batch, 3, size, size), np.float32)
    masks = (rng.random((batch, 1, size, size)) < 0.25).astype(np.float32)
    state = R2UNet(widths=widths, steps=STEPS, norm=norm, rng=rng).state_dict()
    return Inputs(images, masks, state, widths, norm)


class OwnNetwork:
    """This project's R2UNet with minidl's AdamW, by one of the methods of `convolution`."""

    def __init__(self, inputs: Inputs, device: str, method: str = "auto") -> None:
        self.method = method
        model = R2UNet(widths=inputs.widths, steps=STEPS, norm=inputs.norm, rng=np.random.default_rng(0))
        self.model = model.to(device)
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

    def as_numpy(self, array: Array) -> np.ndarray:
        """Return the result of a call as a NumPy array."""
        return to_numpy(array)

    def gradient(self) -> np.ndarray:
        """Return all gradients, concatenated."""
        return np.concatenate([to_numpy(p.grad).ravel() for p in self.optimizer.parameters])


class RoundedNetwork(OwnNetwork):
    """OwnNetwork with TF32 in the products of cuBLAS, as with `r2unet train --tf32 yes`."""

    def __init__(self, inputs: Inputs, device: str, method: str) -> None:
        super().__init__(inputs, device, method)
        self.device = device

    def forward(self) -> Array:
        with tf32(True, self.device):
            return super().forward()

    def forward_backward(self) -> Array:
        with tf32(True, self.device):
            return super().forward_backward()


class GraphNetwork(OwnNetwork):
    """OwnNetwork whose launches are captured as CUDA graphs, as `r2unet train` does."""

    def __init__(self, inputs: Inputs, device: str, method: str = "auto") -> None:
        super().__init__(inputs, device, method)
        self.leaves = [leaf for _, leaf in (*self.model.named_parameters(), *self.model.named_buffers())]
        self.gradients, self.whole_step = (
            GraphedStep(work, self.leaves, device) for work in (self._gradient_launches, self._step_launches)
        )

    def _gradient_launches(self, *arrays: Array) -> tuple[Array]:
        return (super().forward_backward(),)

    def _step_launches(self, *arrays: Array) -> tuple[Array]:
        loss = super().forward_backward()
        clip_grad_norm(self.optimizer.parameters, SETTINGS.clip)
        self.optimizer.update_parameters()
        return (loss,)

    def forward_backward(self) -> Array:
        return self._run(self.gradients)

    def step(self) -> Array:
        self.optimizer.advance()
        return self._run(self.whole_step)

    def _run(self, graph: GraphedStep) -> Array:
        """Launch the graph; before its first launch, warm up and capture it."""
        arrays = self.images.data, self.masks.data
        if not graph.captured:
            graph(*arrays)
        return graph(*arrays)[0]


class TorchNetwork:
    """The tests' PyTorch reference implementation with torch.optim.AdamW.

    `compile_mode` is a mode of torch.compile, or None for eager execution. `rounded` allows TF32.
    """

    def __init__(
        self, inputs: Inputs, device: str, compile_mode: str | None = None, rounded: bool = False
    ) -> None:
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
        self.rounded, self.compile_mode = rounded, compile_mode
        self.logits, self.loss = self._logits, self._loss
        if compile_mode:
            # PyTorch captures a graph that changes its inputs, here the running statistics, only if they stay
            # at their addresses.
            for tensor in self.w.values():
                torch._dynamo.mark_static_address(tensor)
            self.loss = torch.compile(self._loss, mode=compile_mode)

    def _logits(self, images: Any) -> Any:
        return self.reference.r2unet(self.w, images, self.levels, STEPS, training=True)

    def _loss(self, images: Any, masks: Any) -> Any:
        return self.reference.loss_of(self._logits(images), masks)

    def forward(self) -> Any:
        with torch_tf32(self.rounded), self.torch.no_grad():
            return self.logits(self.images)

    def forward_backward(self) -> Any:
        if self.compile_mode:  # what the last call returned may be overwritten
            self.torch.compiler.cudagraph_mark_step_begin()
        with torch_tf32(self.rounded):
            loss = self.loss(self.images, self.masks)
            self.optimizer.zero_grad()
            loss.backward()
        return loss.detach().clone()

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
    own[TF32_OWN] = lambda: RoundedNetwork(inputs, device, "im2col")
    if device in GPU:
        own[GRAPH] = lambda: GraphNetwork(inputs, device)
    if not importlib.util.find_spec("torch"):
        return own
    return own | {
        EAGER: lambda: TorchNetwork(inputs, device),
        TF32: lambda: TorchNetwork(inputs, device, rounded=True),
        COMPILED: lambda: TorchNetwork(inputs, device, "default"),
        COMPILED_GRAPH: lambda: TorchNetwork(inputs, device, "reduce-overhead"),
    }

"""One recurrent convolution, forward and backward, in each framework's own operations.

    y(0) = relu(norm(conv(x))),     y(s) = relu(norm(conv(x + y(s-1)))),   s = 1 ... t

conv is 3x3 with a bias, norm uses the batch statistics, and all frameworks get the same x, weights and dL/dy.
Calling an instance runs the forward and backward pass and returns y; `gradients()` returns the gradients.
The timed code uses only the framework's own arrays.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from benchmarks.frameworks import OWN, import_dezero, import_torch_reference, installed
from benchmarks.plan import STEPS

EPS = 1e-5  # of the batch norm


class Arrays(NamedTuple):
    """The inputs of every framework, float32."""

    x: np.ndarray  # (N, C, H, W)
    weight: np.ndarray  # (C, C, 3, 3)
    bias: np.ndarray  # (C,)
    gamma: np.ndarray  # (C,), the norm's weight
    beta: np.ndarray  # (C,), the norm's bias
    dy: np.ndarray  # (N, C, H, W)


LEAVES = Arrays._fields[:-1]  # the gradients of these are computed


def draw(batch: int, channels: int, size: int, rng: np.random.Generator) -> Arrays:
    """Draw the input, weights with the variance of He et al. 2015, and a random cotangent."""
    image, vector = (batch, channels, size, size), (channels,)
    return Arrays(
        x=rng.standard_normal(image, np.float32),
        weight=rng.standard_normal((channels, channels, 3, 3), np.float32) * (2 / (9 * channels)) ** 0.5,
        bias=rng.standard_normal(vector, np.float32),
        gamma=rng.uniform(0.5, 1.5, vector).astype(np.float32),
        beta=rng.standard_normal(vector, np.float32),
        dy=rng.standard_normal(image, np.float32),
    )


class OwnBlock:
    """r2unet.network.blocks.RecurrentConv."""

    def __init__(self, arrays: Arrays) -> None:
        from minidl import Tensor
        from r2unet.network.blocks import RecurrentConv

        self.model = RecurrentConv(len(arrays.bias), STEPS, rng=np.random.default_rng(0))
        weights = {"conv.weight": arrays.weight, "conv.bias": arrays.bias}
        weights |= {"norm.0.weight": arrays.gamma, "norm.0.bias": arrays.beta}
        self.model.load_state_dict(self.model.state_dict() | weights)
        self.x, self.dy = Tensor(arrays.x, requires_grad=True), arrays.dy

    def __call__(self) -> Any:
        self.model.zero_grad()
        self.x.grad = None
        y = self.model(self.x)
        y.backward(self.dy)
        return y.data

    def gradients(self) -> dict[str, np.ndarray]:
        conv, norm = self.model.conv, self.model.norm[0]
        leaves = self.x, conv.weight, conv.bias, norm.weight, norm.bias
        return {name: leaf.grad for name, leaf in zip(LEAVES, leaves, strict=True)}


class TorchBlock:
    """The tests' PyTorch reference implementation, eager, with its names of the weights."""

    def __init__(self, arrays: Arrays) -> None:
        import torch

        self.recurrent_conv = import_torch_reference().recurrent_conv
        self.leaves = {name: torch.tensor(getattr(arrays, name), requires_grad=True) for name in LEAVES}
        self.w = {"block.conv.weight": self.leaves["weight"], "block.conv.bias": self.leaves["bias"]}
        self.w |= {"block.norm.0.weight": self.leaves["gamma"], "block.norm.0.bias": self.leaves["beta"]}
        for t in range(STEPS + 1):
            self.w[f"block.norm.{t}.running_mean"] = torch.zeros(len(arrays.bias))
            self.w[f"block.norm.{t}.running_var"] = torch.ones(len(arrays.bias))
        self.dy = torch.tensor(arrays.dy)

    def __call__(self) -> Any:
        for leaf in self.leaves.values():
            leaf.grad = None
        y = self.recurrent_conv(self.w, "block", self.leaves["x"], STEPS, training=True)
        y.backward(self.dy)
        return y.detach()

    def gradients(self) -> dict[str, np.ndarray]:
        return {name: leaf.grad.numpy() for name, leaf in self.leaves.items()}


class DeZeroBlock:
    """DeZero's conv2d, batch_nrom (DeZero's spelling) and relu."""

    def __init__(self, arrays: Arrays) -> None:
        dezero = import_dezero()
        self.F, self.Variable = dezero.functions, dezero.Variable
        self.leaves = {name: dezero.Variable(getattr(arrays, name)) for name in LEAVES}
        self.dy = arrays.dy
        shape = (STEPS + 1, len(arrays.bias))
        self.mean, self.var = np.zeros(shape, np.float32), np.ones(shape, np.float32)

    def __call__(self) -> Any:
        F, (x, weight, bias, gamma, beta) = self.F, self.leaves.values()
        for leaf in self.leaves.values():
            leaf.cleargrad()
        y = None
        for t in range(STEPS + 1):
            y = F.conv2d(x if y is None else x + y, weight, bias, pad=1)
            y = F.relu(F.batch_nrom(y, gamma, beta, self.mean[t], self.var[t], eps=EPS))
        y.grad = self.Variable(self.dy)
        y.backward()
        return y.data

    def gradients(self) -> dict[str, np.ndarray]:
        return {name: leaf.grad.data for name, leaf in self.leaves.items()}


class MyGradBlock:
    """MyGrad's conv_nd, batchnorm and relu; its convolution has no bias, so the bias is added separately."""

    def __init__(self, arrays: Arrays) -> None:
        import mygrad
        import mygrad.nnet

        self.mygrad, self.nnet = mygrad, mygrad.nnet
        self.leaves = {name: mygrad.tensor(getattr(arrays, name)) for name in LEAVES}
        self.dy = arrays.dy

    def __call__(self) -> Any:
        nnet, (x, weight, bias, gamma, beta) = self.nnet, self.leaves.values()
        for leaf in self.leaves.values():
            leaf.null_grad()
        with self.mygrad.mem_guard_off:  # the guard makes arrays read-only, which takes time
            y = None
            for _ in range(STEPS + 1):
                y = nnet.conv_nd(x if y is None else x + y, weight, stride=1, padding=1)
                y = nnet.batchnorm(y + bias.reshape(1, -1, 1, 1), gamma=gamma, beta=beta, eps=EPS)
                y = nnet.relu(y)
            y.backward(self.dy)
        return y.data

    def gradients(self) -> dict[str, np.ndarray]:
        return {name: leaf.grad for name, leaf in self.leaves.items()}


IMPLEMENTATIONS = {OWN: OwnBlock, "PyTorch": TorchBlock, "DeZero": DeZeroBlock, "MyGrad": MyGradBlock}


def make(arrays: Arrays) -> dict[str, Any]:
    """Return the block in each framework that is installed, ours first."""
    return {name: IMPLEMENTATIONS[name](arrays) for name in (OWN, *installed())}

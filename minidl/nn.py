"""Layers, which own their weights, and modules built from other modules.

A module finds its parts among its attributes: Parameters (trained), Buffers (part of the state but not
trained, such as running statistics), other modules, and lists of modules. Nothing is registered and no
attribute access is intercepted. The path of attributes is the name of a part, for example
"encoder.0.first.conv.weight".

A parameter that is shared by two layers, and so has two paths, is listed once, under its first name: it is
one array with one gradient and one optimizer step. The same holds for a layer that is used twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minidl import init, ops
from minidl.average import weighted_sum
from minidl.backend import DEVICES, Array, array_module, to_device, to_numpy
from minidl.ops.norm.batch import Processes, values_per_channel
from minidl.ops.window import Pair, as_pair
from minidl.tensor import Parameter, Tensor, floating_dtype


class Buffer:
    """An array that is part of a module's state but is not trained."""

    def __init__(self, data: Array) -> None:
        self.data = data


class Module:
    """The base class of layers and networks: defines `forward`, and finds its parts among its attributes."""

    training = True

    def forward(self, x: Tensor) -> Tensor:
        """Compute the output; defined by each subclass."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def __call__(self, *args: Any, **settings: Any) -> Tensor:
        return self.forward(*args, **settings)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield the direct submodules with their names; the elements of a list are named by their index."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, list | tuple):
                for i, element in enumerate(value):
                    if isinstance(element, Module):
                        yield f"{name}.{i}", element

    def named_modules(self, prefix: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Module]]:
        """Yield this module and all modules below it once, with their names, in order of definition."""
        seen = set() if seen is None else seen
        if id(self) not in seen:
            seen.add(id(self))
            yield prefix, self
            for name, child in self.named_children():
                yield from child.named_modules(f"{prefix}.{name}" if prefix else name, seen)

    def _named_leaves(self, kind: type) -> Iterator[tuple[str, Any]]:
        seen = set()
        for prefix, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, kind) and id(value) not in seen:
                    seen.add(id(value))
                    yield f"{prefix}.{name}" if prefix else name, value

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield each parameter once, with its name."""
        return self._named_leaves(Parameter)

    def named_buffers(self) -> Iterator[tuple[str, Buffer]]:
        """Yield each buffer once, with its name."""
        return self._named_leaves(Buffer)

    def parameters(self) -> list[Parameter]:
        """Return each parameter once."""
        return [p for _, p in self.named_parameters()]

    def zero_grad(self) -> None:
        """Clear all gradients; backward passes add to them."""
        for p in self.parameters():
            p.grad = None

    def train(self, mode: bool = True) -> Module:
        """Set this module and all below it to training mode (with False, evaluation mode); return self."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        """Set evaluation mode, in which batch norm uses its running statistics; return self."""
        return self.train(False)

    def to(self, target: str | np.dtype | type) -> Module:
        """Move the state to one of `backend.DEVICES` or convert it to a dtype, in place; return self."""
        dtype = None if target in DEVICES else floating_dtype(target)
        for leaf in self._state().values():
            leaf.data = leaf.data.astype(dtype) if dtype else to_device(leaf.data, target)
        return self

    def _state(self) -> dict[str, Parameter | Buffer]:
        return {**dict(self.named_parameters()), **dict(self.named_buffers())}

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return copies of all parameters and buffers as NumPy arrays, by name."""
        return {name: to_numpy(leaf.data).copy() for name, leaf in self._state().items()}

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of all parameters and buffers, by name."""
        return {name: leaf.data.shape for name, leaf in self._state().items()}

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        """Copy parameters and buffers from `state`, converted to this module's device and dtype.

        Raises ValueError, before changing anything, as `check_state_dict` does.
        """
        self.check_state_dict(state)
        for name, leaf in self._state().items():
            leaf.data = array_module(leaf.data).array(state[name], leaf.data.dtype)

    def check_state_dict(self, state: dict[str, np.ndarray]) -> None:
        """Raise ValueError that lists all names that are missing, unexpected or of the wrong shape or kind.

        A partly loaded network would run, but give wrong results; so would one with the real parts of complex
        numbers. The numbers must be floating-point, of any precision.
        """
        own = self._state()
        problems = [f"missing {name} {leaf.data.shape}" for name, leaf in own.items() if name not in state]
        problems += [f"unexpected {name} {np.shape(state[name])}" for name in state if name not in own]
        for name, leaf in own.items():
            if name not in state:
                continue
            dtype = getattr(state[name], "dtype", type(state[name]).__name__)
            if getattr(dtype, "kind", "") != leaf.data.dtype.kind:
                problems.append(f"{name} is {dtype}, expected {leaf.data.dtype}")
            elif state[name].shape != leaf.data.shape:
                problems.append(f"{name} is {state[name].shape}, expected {leaf.data.shape}")
        if problems:
            raise ValueError(f"the state does not fit this {type(self).__name__}: {'; '.join(problems)}")


class Linear(Module):
    """y = x W^T + b, x (N, in_features) -> y (N, out_features)."""

    def __init__(self, in_features: int, out_features: int, *, rng: np.random.Generator) -> None:
        self.weight = Parameter(init.kaiming_normal((out_features, in_features), in_features, rng))
        self.bias = Parameter(init.zeros(out_features))

    def forward(self, x: Tensor) -> Tensor:
        return ops.linear(x, self.weight, self.bias)


class Conv2d(Module):
    """A convolution, x (N, in_channels, H, W) -> y (N, out_channels, OH, OW)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        bias: bool = True,
        *,
        rng: np.random.Generator,
    ) -> None:
        KH, KW = as_pair(kernel_size)
        shape = (out_channels, in_channels, KH, KW)
        self.weight = Parameter(init.kaiming_normal(shape, in_channels * KH * KW, rng))
        self.bias = Parameter(init.zeros(out_channels)) if bias else None
        self.stride, self.padding = as_pair(stride), as_pair(padding)

    def forward(self, x: Tensor) -> Tensor:
        return ops.conv2d(x, self.weight, self.bias, self.stride, self.padding)


class ConvTranspose2d(Module):
    """A convolution's adjoint, for upsampling: x (N, in_channels, H, W) -> y (N, out_channels, OH, OW)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        output_padding: int | Pair = 0,
        *,
        rng: np.random.Generator,
    ) -> None:
        (KH, KW), (SH, SW) = as_pair(kernel_size), as_pair(stride)
        shape = (in_channels, out_channels, KH, KW)
        # Of the KH KW weights, 1 in SH SW contributes to a given output pixel.
        fan_in = max(1, in_channels * KH * KW // (SH * SW))
        self.weight = Parameter(init.kaiming_normal(shape, fan_in, rng))
        self.bias = Parameter(init.zeros(out_channels))
        self.stride, self.padding = (SH, SW), as_pair(padding)
        self.output_padding = as_pair(output_padding)

    def forward(self, x: Tensor) -> Tensor:
        settings = self.stride, self.padding, self.output_padding
        return ops.conv_transpose2d(x, self.weight, self.bias, *settings)


class BatchNorm2d(Module):
    """Batch normalisation with running statistics, x (N, C, H, W) -> y (N, C, H, W).

    Training normalises with the mean and variance of the batch, and updates running averages of both:
    r <- (1 - momentum) r + momentum * batch. Evaluation normalises with the running averages. As in PyTorch,
    the running variance divides by m - 1, the variance that normalises the batch by m.

    `norm(x, relu=True)` is relu(norm(x)), fused: it reads and writes the image once instead of twice.

    `processes` is set where several processes share each batch (`minidl.parallel`). The mean and variance
    are then those of the whole batch.
    """

    processes: Processes | None = None

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        self.weight = Parameter(init.ones(channels))
        self.bias = Parameter(init.zeros(channels))
        self.running_mean = Buffer(init.zeros(channels))
        self.running_var = Buffer(init.ones(channels))
        self.eps, self.momentum = eps, momentum

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        if not self.training:
            y, _ = ops.batch_norm(x, self.weight, self.bias, self.statistics(), self.eps, relu)
            return y
        y, (mean, var) = ops.batch_norm(x, self.weight, self.bias, None, self.eps, relu, self.processes)
        m = values_per_channel(x.shape, self.processes)
        self._update_running(self.running_mean, mean)
        self._update_running(self.running_var, var, m / (m - 1))
        return y

    def statistics(self) -> tuple[Array, Array]:
        """Return the running mean and variance, (C,) each."""
        return self.running_mean.data, self.running_var.data

    def _update_running(self, running: Buffer, batch: Array, factor: float = 1.0) -> None:
        running.data = weighted_sum(1.0 - self.momentum, running.data, self.momentum * factor, batch)


class GroupNorm(Module):
    """Group normalisation, x (N, C, H, W) -> y (N, C, H, W); the same in training and evaluation.

    `norm(x, relu=True)` is relu(norm(x)), fused as in BatchNorm2d.
    """

    def __init__(self, groups: int, channels: int, eps: float = 1e-5) -> None:
        self.groups, self.eps = groups, eps
        self.weight = Parameter(init.ones(channels))
        self.bias = Parameter(init.zeros(channels))

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        return ops.group_norm(x, self.groups, self.weight, self.bias, self.eps, relu)


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.relu(x)


class Sequential(Module):
    """Applies its layers one after the other."""

    def __init__(self, *layers: Module) -> None:
        self.layers = list(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x

"""Optimizers, in order of complexity: each adds one idea to the previous one. Then learning-rate schedules.

    SGD         p <- p - lr g                                     follow the gradient downhill
    momentum    v <- mu v + g,   p <- p - lr v                    like a rolling ball (Polyak 1964)
    Adam        m <- b1 m + (1 - b1) g                            momentum, as a running mean,
                v <- b2 v + (1 - b2) g^2                          divided by the gradient's running size:
                p <- p - lr m' / (sqrt(v') + eps)                 every weight has its own step size
    AdamW       p <- p - lr weight_decay p, then Adam             decoupled weight decay

m' = m / (1 - b1^t) and v' = v / (1 - b2^t) correct for m and v being initialised to zero (Kingma & Ba 2015).

On a GPU a single launch of a kernel (optim.cu) takes an Adam step for all parameters, and no launch waits for
a number to reach the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from minidl.backend import (
    GPU,
    Array,
    Kernels,
    Numbers,
    array_module,
    contiguous,
    cover,
    device_of,
    refuse_capture,
    to_device,
    to_numpy,
)
from minidl.implementation import choose, implements
from minidl.tables import tables, total
from minidl.tensor import Parameter, Tensor

__all__ = [
    "Adam",
    "AdamW",
    "CosineLR",
    "LRScheduler",
    "Optimizer",
    "SGD",
    "StepLR",
    "WarmupLR",
    "clip_grad_norm",
]

kernels = Kernels(__file__)
BLOCK = 256  # threads of a block that sums squares
BLOCKS = 512  # the maximum number of blocks in this sum: enough to occupy a whole GPU


class Optimizer:
    """The common part: a list of parameters, a learning rate, and state arrays for each parameter."""

    slots: tuple[str, ...] = ()  # the names of each parameter's state arrays, which are initialised to zero

    def __init__(self, parameters: Iterable[Parameter], lr: float, weight_decay: float = 0.0) -> None:
        self.parameters = checked_parameters(type(self).__name__, parameters)
        if not self.parameters:
            raise ValueError(f"{type(self).__name__}: there are no parameters to train")
        if not (lr >= 0 and weight_decay >= 0):  # also refuses NaN
            raise ValueError(
                f"{type(self).__name__}: expected lr and weight_decay >= 0, got {lr}, {weight_decay}"
            )
        if len(kinds := {(str(p.dtype), p.device) for p in self.parameters}) > 1:
            raise ValueError(
                f"{type(self).__name__}: expected parameters of one dtype on one device, got {sorted(kinds)}"
            )
        self.lr, self.weight_decay = lr, weight_decay
        self.steps = 0
        self._clear_memory()

    def _clear_memory(self) -> None:
        """Set all state arrays to zero: one contiguous array per slot, and a view of it per parameter."""
        first = self.parameters[0].data
        offsets = [0, *accumulate(p.data.size for p in self.parameters)]
        self.rows, self.memory = {}, {}
        for slot in self.slots:
            row = array_module(first).zeros(offsets[-1], first.dtype)
            parts = [row[begin:end] for begin, end in pairwise(offsets)]
            self.rows[slot] = row
            self.memory[slot] = [a.reshape(p.shape) for a, p in zip(parts, self.parameters, strict=True)]

    def zero_grad(self) -> None:
        """Drop all gradients, before the next backward pass adds its own."""
        for p in self.parameters:
            p.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient, once."""
        self.advance()
        self.update_parameters()

    def advance(self) -> None:
        """Begin a step: compute the numbers that change from step to step, in Python."""
        self.steps += 1

    def update_parameters(self) -> None:
        """Finish the step, on the device alone: this part can be captured as a graph (`minidl.graph`)."""
        choose(update_all, device_of(self.parameters[0].data), self)(self)

    def update(self, p: Parameter, g: Array, memory: dict[str, Array]) -> None:
        """Update one parameter by its gradient; `memory` holds its state arrays, updated in place."""
        raise NotImplementedError(f"{type(self).__name__} does not define update")

    def state_dict(self) -> dict[str, Any]:
        """Return the state from which training resumes exactly."""
        arrays = {slot: [to_numpy(a).copy() for a in kept] for slot, kept in self.memory.items()}
        return {"lr": self.lr, "steps": self.steps, **arrays}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises ValueError, and changes nothing, if anything is missing or has another shape.
        """
        _check_keys(self, state, ("lr", "steps", *self.slots))
        shapes = [p.shape for p in self.parameters]
        for slot in self.slots:
            if [a.shape for a in state[slot]] != shapes:
                raise ValueError(
                    f"the state does not fit this {type(self).__name__}: shapes of {slot!r} differ"
                )
        self._clear_memory()
        for slot in self.slots:
            for kept, a in zip(self.memory[slot], state[slot], strict=True):
                kept[...] = to_device(a.astype(kept.dtype), device_of(kept))
        self.lr, self.steps = state["lr"], state["steps"]


def update_all(optimizer: Optimizer) -> None:
    """Update every parameter that has a gradient, one after the other: the definition of a step."""
    refuse_capture(f"{type(optimizer).__name__} receives its learning rate from Python, not from the device")
    for i, p in enumerate(optimizer.parameters):
        if p.grad is not None:
            optimizer.update(p, p.grad, {slot: optimizer.memory[slot][i] for slot in optimizer.slots})


def checked_parameters(name: str, parameters: Iterable[Parameter]) -> list[Parameter]:
    """Return the parameters as a list. Raises TypeError or ValueError for what could not be trained."""
    if isinstance(parameters, Tensor):
        raise TypeError(f"{name}: expected a list of parameters, got one; write [parameter]")
    parameters = list(parameters)
    for p in parameters:
        if not isinstance(p, Tensor) or p.creator is not None or not p.requires_grad:
            raise TypeError(f"{name}: expected leaves that require a gradient, such as model.parameters()")
    if len({id(p) for p in parameters}) < len(parameters):
        raise ValueError(f"{name}: a parameter occurs twice, and would be updated twice")
    return parameters


class SGD(Optimizer):
    """Stochastic gradient descent, with optional momentum; weight decay is added to the gradient."""

    slots = ("velocity",)

    def __init__(
        self, parameters: Iterable[Parameter], lr: float, momentum: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, lr, weight_decay)
        if not momentum >= 0.0:
            raise ValueError(f"SGD: expected momentum >= 0, got {momentum}")
        self.momentum = momentum

    def update(self, p: Parameter, g: Array, memory: dict[str, Array]) -> None:
        v = memory["velocity"]
        v *= self.momentum
        v += g + self.weight_decay * p.data
        p.data = p.data - self.lr * v  # a new array: a graph may still hold the old one


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1); weight decay is added to the gradient.

    The steps t of its bias correction are those of the optimizer. PyTorch counts the steps of each parameter,
    which differs for a parameter that has no gradient in some steps. Raises ValueError for settings that no
    running mean has.
    """

    slots = ("mean", "square")
    decay = 0.0  # applied to the weight itself, by AdamW

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr, weight_decay)
        if not (all(0.0 <= beta < 1.0 for beta in betas) and eps >= 0.0):
            raise ValueError(f"{type(self).__name__}: expected 0 <= betas < 1, eps >= 0, got {betas}, {eps}")
        self.betas, self.eps = betas, eps
        self.numbers = Numbers(3, self.parameters[0].data)  # for the kernel: lr, 1 - b1^t, 1 - b2^t

    def advance(self) -> None:
        super().advance()
        b1, b2 = self.betas
        self.numbers.write(self.lr, 1.0 - b1**self.steps, 1.0 - b2**self.steps)

    def update(self, p: Parameter, g: Array, memory: dict[str, Array]) -> None:
        if self.weight_decay:
            g = g + self.weight_decay * p.data
        m, v, (b1, b2) = memory["mean"], memory["square"], self.betas
        m += (1.0 - b1) * (g - m)
        v += (1.0 - b2) * (g * g - v)
        size = np.sqrt(v / (1.0 - b2**self.steps)) + self.eps
        p.data = p.data - self.lr / (1.0 - b1**self.steps) * m / size


class AdamW(Adam):
    """Adam with the decay applied to the weight itself (Loshchilov & Hutter 2019, algorithm 2).

    Adam adds the decay to the gradient, where it is divided by the gradient's running size, so that weights
    with large gradients hardly decay at all.
    """

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(parameters, lr, betas, eps, weight_decay)
        self.decay, self.weight_decay = weight_decay, 0.0  # none of it goes into the gradient

    def update(self, p: Parameter, g: Array, memory: dict[str, Array]) -> None:
        p.data = p.data * (1.0 - self.lr * self.decay)
        super().update(p, g, memory)


def is_adam(optimizer: Optimizer) -> bool:
    """Return whether the optimizer's formula is the kernel's; a class derived from Adam may have another."""
    return type(optimizer).update in (Adam.update, AdamW.update)


@implements(update_all, "kernels", devices=GPU, can=is_adam)
def update_all_by_kernels(adam: Adam) -> None:
    """Update all parameters of Adam or AdamW in one launch.

    Raises ValueError if a parameter was converted or moved since the optimizer was created.
    """
    (m, v), (b1, b2) = adam.rows.values(), adam.betas
    p = [contiguous(x.data) for x in adam.parameters]
    g = [None if x.grad is None else contiguous(x.grad) for x in adam.parameters]
    updated = [array_module(m).empty(x.shape, x.dtype) for x in p]
    settings = 1.0 - b1, 1.0 - b2, adam.eps, adam.weight_decay, adam.decay
    arrays = m, v, adam.numbers.array, *tables(m, updated, p, g)
    kernels.launch("adam", *cover(m.size), *arrays, *map(float, settings))
    for parameter, data, gradient in zip(adam.parameters, updated, g, strict=True):
        if gradient is not None:
            parameter.data = data


def clip_grad_norm(parameters: Iterable[Parameter], max_norm: float) -> float | Array:
    """Scale all gradients so that their joint norm is at most `max_norm`; return the norm before scaling.

    This limits the step of an unusual batch without changing its direction (Pascanu, Mikolov, Bengio 2013,
    algorithm 1). On a GPU the norm is returned as an array on the GPU, because reading the number would wait
    for all queued work.
    """
    parameters = [p for p in checked_parameters("clip_grad_norm", parameters) if p.grad is not None]
    if not max_norm >= 0:
        raise ValueError(f"clip_grad_norm: max_norm must be at least 0, got {max_norm}")
    if not parameters:
        return 0.0
    return choose(scale_gradients, device_of(parameters[0].grad))(parameters, max_norm)


def scale_gradients(parameters: list[Parameter], max_norm: float) -> float:
    """Clip the gradients, which all parameters must have; the definition."""
    squares = [np.vdot(p.grad, p.grad) for p in parameters]
    norm = math.sqrt(float(sum(squares)))
    if norm > max_norm:  # false for NaN: a loss that is not finite must stay visible
        for p in parameters:
            p.grad = p.grad * (max_norm / norm)  # a new array: gradients may share memory
    return norm


@implements(scale_gradients, "kernels", devices=GPU)
def scale_gradients_by_kernels(parameters: list[Parameter], max_norm: float) -> Array:
    """Clip the gradients in two launches over all parameters."""
    g = [contiguous(p.grad) for p in parameters]
    scaled = [array_module(a).empty(a.shape, a.dtype) for a in g]  # new arrays: gradients may share memory
    size = total(g)
    scaled_table, *table = tables(g[0], scaled, g)
    partial = array_module(g[0]).empty(max(1, min(BLOCKS, math.ceil(size / BLOCK))), g[0].dtype)
    kernels.launch("sums_of_squares", partial.shape, (BLOCK,), partial, *table)
    norm = array_module(partial).sqrt(partial.sum())
    kernels.launch("scale_to_norm", *cover(size), norm, scaled_table, *table, float(max_norm))
    for p, a in zip(parameters, scaled, strict=True):
        p.grad = a
    return norm


class LRScheduler:
    """A learning rate that changes from step to step: lr = (the optimizer's initial lr) * factor(step)."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer, self.base_lr, self.steps = optimizer, optimizer.lr, 0
        optimizer.lr = self.base_lr * self.factor(0)

    def factor(self, step: int) -> float:
        """Return the factor of the initial learning rate after `step` steps."""
        raise NotImplementedError(f"{type(self).__name__} does not define factor")

    def step(self) -> None:
        """Advance by one step; call it after the optimizer's step."""
        self.steps += 1
        self.optimizer.lr = self.base_lr * self.factor(self.steps)

    def state_dict(self) -> dict[str, Any]:
        """Return the state from which the schedule resumes."""
        return {"base_lr": self.base_lr, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned. Raises ValueError if a part is missing."""
        _check_keys(self, state, ("base_lr", "steps"))
        self.base_lr, self.steps = state["base_lr"], state["steps"]
        self.optimizer.lr = self.base_lr * self.factor(self.steps)


class StepLR(LRScheduler):
    """Multiply the learning rate by gamma every `step_size` steps."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        return self.gamma ** (step // self.step_size)


class CosineLR(LRScheduler):
    """Rise linearly for `warmup_steps`, then fall along half a cosine to zero at `total_steps`.

    The decay is Loshchilov & Hutter 2017, equation 5, without restarts. The warm-up (Goyal et al. 2017)
    keeps the first steps short, while Adam's running means are based on few batches.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup_steps: int = 0) -> None:
        self.total_steps, self.warmup_steps = total_steps, warmup_steps
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        progress = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        return 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


class WarmupLR(LRScheduler):
    """Rise linearly to the full learning rate over `warmup_steps`, then stay constant."""

    def __init__(self, optimizer: Optimizer, warmup_steps: int) -> None:
        self.warmup_steps = warmup_steps
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        return min(1.0, (step + 1) / (self.warmup_steps + 1))


def _check_keys(owner: object, state: dict[str, Any], names: Iterable[str]) -> None:
    """Raise ValueError, naming what is missing, unless the state holds all of these."""
    if missing := [name for name in names if name not in state]:
        raise ValueError(f"the state does not fit this {type(owner).__name__}: missing {', '.join(missing)}")

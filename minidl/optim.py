"""Optimizers, in order of complexity: each adds one idea to the one before. Then learning-rate schedules.

    SGD         p <- p - lr g                                     follow the gradient downhill
    momentum    v <- mu v + g,   p <- p - lr v                    a ball that rolls (Polyak 1964)
    Adam        m <- b1 m + (1 - b1) g                            momentum, as a running mean,
                v <- b2 v + (1 - b2) g^2                          divided by the gradient's running size:
                p <- p - lr m' / (sqrt(v') + eps)                 every weight has a step of its own
    AdamW       p <- p - lr weight_decay p, then Adam             decay apart from the gradient

m' = m / (1 - b1^t) and v' = v / (1 - b2^t) undo that m and v begin at zero (Kingma & Ba 2015).

On a GPU one launch of a kernel (optim.cu) takes an Adam step for all parameters, and no launch waits for the
CPU to learn a number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from minidl.backend import (
    Array,
    Kernels,
    address,
    array_module,
    contiguous,
    cover,
    device_of,
    runs_kernels,
    to_device,
    to_numpy,
)
from minidl.tensor import Parameter

kernels = Kernels(__file__)
BLOCK = 256  # threads of a block that sums squares; optim.cu counts on it
BLOCKS = 512  # at most, in that sum: enough to keep a whole GPU busy


class Optimizer:
    """What all have in common: a list of parameters, a learning rate, and a memory for each parameter."""

    slots: tuple[str, ...] = ()  # the arrays remembered for each parameter, all zeros at first

    def __init__(self, parameters: Iterable[Parameter], lr: float, weight_decay: float = 0.0) -> None:
        self.parameters = list(parameters)
        if not self.parameters:
            raise ValueError(f"{type(self).__name__}: there are no parameters to train")
        if lr < 0 or weight_decay < 0:
            raise ValueError(
                f"{type(self).__name__}: want lr and weight_decay >= 0, got {lr}, {weight_decay}"
            )
        if len(kinds := {(str(p.dtype), p.device) for p in self.parameters}) > 1:
            raise ValueError(
                f"{type(self).__name__}: want parameters of one dtype on one device, got {sorted(kinds)}"
            )
        self.lr, self.weight_decay = lr, weight_decay
        self.steps = 0
        self._clear_memory()

    def _clear_memory(self) -> None:
        """Remember zeros: for each slot all numbers in one row, and each parameter's part of it."""
        first = self.parameters[0].data
        offsets = [0, *accumulate(p.data.size for p in self.parameters)]
        self.rows, self.memory = {}, {}
        for slot in self.slots:
            row = array_module(first).zeros(offsets[-1], first.dtype)
            parts = [row[begin:end] for begin, end in pairwise(offsets)]
            self.rows[slot] = row
            self.memory[slot] = [a.reshape(p.shape) for a, p in zip(parts, self.parameters, strict=True)]

    def zero_grad(self) -> None:
        """Forget all gradients, before the next backward pass adds its own."""
        for p in self.parameters:
            p.grad = None

    def step(self) -> None:
        """Change every parameter that has a gradient, once."""
        self.steps += 1
        for i, p in enumerate(self.parameters):
            if p.grad is not None:
                self.update(p, p.grad, {slot: self.memory[slot][i] for slot in self.slots})

    def update(self, p: Parameter, g: Array, memory: dict[str, Array]) -> None:
        """Change one parameter by its gradient; `memory` holds this parameter's arrays, updated in place."""
        raise NotImplementedError(f"{type(self).__name__} does not define update")

    def state_dict(self) -> dict[str, Any]:
        """Return what a training must remember to go on exactly as if it had never stopped."""
        arrays = {slot: [to_numpy(a).copy() for a in kept] for slot, kept in self.memory.items()}
        return {"lr": self.lr, "steps": self.steps, **arrays}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where `state_dict` left off.

        Raises ValueError if anything is missing or of another shape, and changes nothing then.
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


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum if asked for; weight decay is added to the gradient."""

    slots = ("velocity",)

    def __init__(
        self, parameters: Iterable[Parameter], lr: float, momentum: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, lr, weight_decay)
        self.momentum = momentum

    def update(self, p: Parameter, g: Array, memory: dict[str, Array]) -> None:
        v = memory["velocity"]
        v *= self.momentum
        v += g + self.weight_decay * p.data
        p.data = p.data - self.lr * v  # a new array: a graph may still hold the old one


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1); weight decay is added to the gradient."""

    slots = ("mean", "square")
    decay = 0.0  # of the weight itself: AdamW's

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr, weight_decay)
        self.betas, self.eps = betas, eps

    def step(self) -> None:
        """Change every parameter that has a gradient, once."""
        if runs_kernels(self.parameters[0].data):
            self._step_kernel()
        else:
            super().step()

    def update(self, p: Parameter, g: Array, memory: dict[str, Array]) -> None:
        if self.weight_decay:
            g = g + self.weight_decay * p.data
        m, v, (b1, b2) = memory["mean"], memory["square"], self.betas
        m += (1.0 - b1) * (g - m)
        v += (1.0 - b2) * (g * g - v)
        size = np.sqrt(v / (1.0 - b2**self.steps)) + self.eps
        p.data = p.data - self.lr / (1.0 - b1**self.steps) * m / size

    def _step_kernel(self) -> None:
        """Update all parameters in one launch. Raises ValueError if one was converted or moved since."""
        self.steps += 1
        (m, v), (b1, b2), t = self.rows.values(), self.betas, self.steps
        p = [contiguous(x.data) for x in self.parameters]
        g = [None if x.grad is None else contiguous(x.grad) for x in self.parameters]
        updated = [array_module(m).empty(x.shape, x.dtype) for x in p]
        corrections = 1.0 - b1, 1.0 - b2, 1.0 - b1**t, 1.0 - b2**t
        settings = self.lr, self.eps, self.weight_decay, self.decay
        pointers = _tables(m, updated, p, g)
        kernels.launch("adam", *cover(m.size), m, v, *pointers, *map(float, corrections + settings))
        for parameter, data, gradient in zip(self.parameters, updated, g, strict=True):
            if gradient is not None:
                parameter.data = data


class AdamW(Adam):
    """Adam with the decay taken off the weight itself (Loshchilov & Hutter 2019, algorithm 2).

    Added to the gradient, as Adam does, the decay would be divided by the gradient's size, and weights
    with large gradients would hardly decay at all.
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


def clip_grad_norm(parameters: Iterable[Parameter], max_norm: float) -> float | Array:
    """Scale all gradients so that their joint length is at most `max_norm`; return the length before.

    One bad batch then moves the weights no further than a good one, in the same direction
    (Pascanu, Mikolov, Bengio 2013, algorithm 1). On a GPU the length is returned as an array of one number
    there: to read it is to wait for all that the GPU has still to do.
    """
    parameters = [p for p in parameters if p.grad is not None]
    if parameters and runs_kernels(parameters[0].grad):
        return _clip_grad_norm_kernels(parameters, max_norm)
    squares = [np.vdot(p.grad, p.grad) for p in parameters]
    norm = math.sqrt(float(sum(squares))) if squares else 0.0
    if norm > max_norm:  # not for NaN: a loss that is not finite should be seen, not hidden
        for p in parameters:
            p.grad = p.grad * (max_norm / norm)  # a new array: gradients may share memory
    return norm


def _clip_grad_norm_kernels(parameters: list[Parameter], max_norm: float) -> Array:
    g = [contiguous(p.grad) for p in parameters]
    scaled = [array_module(a).empty(a.shape, a.dtype) for a in g]  # new arrays: gradients may share memory
    size = sum(a.size for a in g)
    scaled_table, *tables = _tables(g[0], scaled, g)
    partial = array_module(g[0]).empty(max(1, min(BLOCKS, math.ceil(size / BLOCK))), g[0].dtype)
    kernels.launch("sums_of_squares", partial.shape, (BLOCK,), partial, *tables)
    norm = array_module(partial).sqrt(partial.sum())
    kernels.launch("scale_to_norm", *cover(size), norm, scaled_table, *tables, float(max_norm))
    for p, a in zip(parameters, scaled, strict=True):
        p.grad = a
    return norm


def _tables(like: Array, *lists: list[Array | None]) -> tuple[Array | int, ...]:
    """Return what a kernel needs to find number i of many arrays: the table of each list's addresses, 0 for
    None; the table of the offsets at which each array's numbers begin; how many arrays there are.

    Raises ValueError where the lists differ in shape, or an array from `like` in dtype or device: a kernel
    would read what is not there.
    """
    for arrays in zip(*lists, strict=True):
        kinds = {(a.shape, str(a.dtype), device_of(a)) for a in arrays if a is not None}
        if not kinds <= {(arrays[0].shape, str(like.dtype), device_of(like))}:
            raise ValueError(
                f"optim: want {like.dtype} on {device_of(like)}, each gradient of its parameter's shape, got "
                f"{sorted(kinds)}; convert or move a model before its optimizer is made"
            )
    addresses = [[0 if a is None else address(a) for a in arrays] for arrays in lists]
    offsets = [0, *accumulate(a.size for a in lists[0])]
    xp = array_module(like)
    return *xp.asarray(np.array(addresses, np.uint64)), xp.asarray(np.array(offsets, np.int32)), len(lists[0])


class LRScheduler:
    """A learning rate that changes from step to step: lr = (the optimizer's at the start) * factor(step)."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer, self.base_lr, self.steps = optimizer, optimizer.lr, 0
        optimizer.lr = self.base_lr * self.factor(0)

    def factor(self, step: int) -> float:
        """Return what the first learning rate is multiplied with after `step` steps."""
        raise NotImplementedError(f"{type(self).__name__} does not define factor")

    def step(self) -> None:
        """Go one step on; call it after the optimizer's."""
        self.steps += 1
        self.optimizer.lr = self.base_lr * self.factor(self.steps)

    def state_dict(self) -> dict[str, Any]:
        """Return what the schedule must remember."""
        return {"base_lr": self.base_lr, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where `state_dict` left off. Raises ValueError if a part is missing."""
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
    """Rise in a line for `warmup_steps`, then fall along half a cosine to zero at `total_steps`.

    The fall is Loshchilov & Hutter 2017, equation 5, without restarts. The warm-up (Goyal et al. 2017)
    keeps the first steps short, while Adam's running means still rest on a few batches.
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
    """Rise in a line to the full learning rate over `warmup_steps`, then stay there."""

    def __init__(self, optimizer: Optimizer, warmup_steps: int) -> None:
        self.warmup_steps = warmup_steps
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        return min(1.0, (step + 1) / (self.warmup_steps + 1))


def _check_keys(owner: object, state: dict[str, Any], names: Iterable[str]) -> None:
    """Raise ValueError, naming what is missing, unless the state holds all of these."""
    if missing := [name for name in names if name not in state]:
        raise ValueError(f"the state does not fit this {type(owner).__name__}: missing {', '.join(missing)}")

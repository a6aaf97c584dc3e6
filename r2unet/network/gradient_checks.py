"""Gradient checks of whole networks: rows of the table that `python -m minidl.gradcheck` prints.

Even if every operation is correct, the network can be wrong: a gradient added twice, a missing skip
connection, a missing step of the recurrence. So every parameter tensor is moved along its own random
direction, and the change of the output is compared with the gradient of the backward pass.

Both modes are checked, because they differ. In training, a bias before a batch norm has no effect, since the
norm subtracts the mean: its gradient must be zero. In evaluation it has an effect.

**The outline that the diagnosis reads is a constant.** A network with both tasks computes the diagnosis from
the features f and the outline o, and the backward pass treats this o as a constant (`diagnosis.py` says why).
So for parameters w the gradient is that of

    w -> ( o(w),  diagnosis(f(w), o_0) ),        o_0 = o at the parameters that are being checked.

A difference of the network itself would contain one more term, the change of the diagnosis by that of the
outline. Therefore the diagnosis head is given o_0 while the parameters are moved. Both answers are projected
on random cotangents, and every parameter of encoder, decoder and both heads is checked.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np

from minidl.backend import Array, to_device, to_numpy
from minidl.gradcheck import PROGRAM, Check, GradientError, main, register, relative_error
from minidl.nn import BatchNorm2d, Module
from minidl.output import run_program
from minidl.tensor import Parameter, Tensor, no_grad
from r2unet.network.model import CHOICES, NETWORKS, R2UNet, UShape

Answers = Callable[[Tensor], tuple[Tensor, ...]]  # everything that a model computes from its input

TOLERANCE = 1e-5
STEP = 1e-7  # the networks have thousands of ReLUs: a larger step would move some of them across their kinks
TRIES = 4
SHAPE = (2, 3, 8, 8)  # of the images
SMALLER = {"cuda-on-cpu": ((2, 3), 1)}  # widths and steps for a device on which the others take minutes
# What else must be set for an option to have an effect.
NEEDED = {"pooling": {"task": "both"}, "pooled_levels": {"task": "both"}}

# The derivatives are of order 1 to 100; rounding adds an error of about 1e-16 * output / STEP to every
# difference. Errors are relative to this floor at least: the bias before a batch norm has gradient zero.
FLOOR = 1e-1


def answers_of(model: Module) -> Answers:
    """Return a function that computes all outputs of a model: of a network the outline and the diagnosis."""
    if not isinstance(model, UShape):
        return lambda x: (model(x),)
    return lambda x: tuple(y for y in model.answer(x) if y is not None)


@contextmanager
def constant_outline(model: Module, outline: Tensor) -> Iterator[None]:
    """Give the diagnosis head of a network with both tasks this outline, whatever the decoder computes."""
    if getattr(model, "task", None) != "both":
        yield
        return
    head = model.diagnosis
    forward = head.forward
    head.forward = lambda features, _: forward(features, outline)  # found before the method of the class
    try:
        yield
    finally:
        del head.forward


def check_parameters(
    model: Module, shape: tuple[int, ...], rng: np.random.Generator, tolerance: float = TOLERANCE
) -> float:
    """Check the gradient of every parameter tensor against a central difference; return the largest error.

    All are checked at one random input of the given shape, each along its own random direction. A ReLU whose
    kink is within the step falsifies the difference, not the gradient. So if the two disagree, other inputs
    are drawn, up to `TRIES` in all. A wrong gradient disagrees at every input.

    The model must be float64; in training its running statistics change. Raises GradientError naming the
    parameter.
    """
    parameters, worst = dict(model.named_parameters()), 0.0
    for name, (analytic, numeric) in directional_derivatives(model, parameters, shape, rng).items():
        p = parameters[name]
        for _ in range(TRIES - 1):
            if relative_error(analytic, numeric, FLOOR) <= tolerance:
                break
            analytic, numeric = directional_derivatives(model, {name: p}, shape, rng)[name]
        error = relative_error(analytic, numeric, FLOOR)
        if error > tolerance:
            raise GradientError(
                f"{name} {p.shape}: backward gives {analytic:.12g}, a central difference {numeric:.12g}; "
                f"relative error {error:.1e} > {tolerance:.0e}"
            )
        worst = max(worst, error)
    return worst


def directional_derivatives(
    model: Module, parameters: dict[str, Parameter], shape: tuple[int, ...], rng: np.random.Generator
) -> dict[str, tuple[float, float]]:
    """Return, for every parameter p, the derivative of sum_i <u_i, y_i> along a direction v of p, two ways.

    The first number is from the backward pass, the second is a central difference. y_i are the outputs of the
    model. The input x, the cotangents u_i and every v are random.
    """
    x = Tensor(to_device(rng.normal(size=shape), next(iter(parameters.values())).device))
    answers = answers_of(model)
    model.zero_grad()
    ys = answers(x)
    us = [rng.normal(size=y.shape) for y in ys]
    sum((y * Tensor(to_device(u, y.device))).sum() for y, u in zip(ys, us, strict=True)).backward()

    def projected(p: Parameter, value: Array) -> float:
        """Return sum_i <u_i, y_i> with another value of p."""
        p.data = value
        with no_grad(), constant_outline(model, ys[0]):
            return sum(float(np.vdot(u, y.numpy())) for y, u in zip(answers(x), us, strict=True))

    derivatives = {}
    for name, p in parameters.items():
        if p.grad is None:
            raise GradientError(f"no gradient arrived at {name} {p.shape}")
        v, value = rng.normal(size=p.shape), p.data
        step = to_device(STEP * v, p.device)
        numeric = (projected(p, value + step) - projected(p, value - step)) / (2.0 * STEP)
        p.data = value
        derivatives[name] = float(np.vdot(to_numpy(p.grad), v)), numeric
    return derivatives


def check_network(model: UShape, training: bool, rng: np.random.Generator) -> float:
    """Check all parameters of a network in training or evaluation; return the largest error."""
    for p in model.parameters():
        # Initial zeros and ones would hide exchanged roles.
        p.data = p.data + to_device(0.1 * rng.normal(size=p.shape), p.device)
    for _, module in model.named_modules():
        if isinstance(module, BatchNorm2d):
            module.momentum = 1.0  # the running statistics become those of one batch
    with no_grad():
        model.answer(Tensor(to_device(rng.normal(size=SHAPE), model.parameters()[0].device)))
    return check_parameters(model.train(training), SHAPE, rng)


def gradient_checks(rng: np.random.Generator, device: str = "cpu") -> Iterator[Check]:
    """Yield a check for every network in training and in evaluation, and for every option of R2U-Net."""
    modes = {"in training": True, "in evaluation": False}
    widths, steps = SMALLER.get(device, ((4, 6, 8), 2))
    rows = [(R2UNet, widths, {"steps": steps}, mode) for mode in modes]
    if device not in SMALLER:
        rows += [(n, (3, 4), {}, mode) for n in NETWORKS.values() if n is not R2UNet for mode in modes]
        rows += [
            (R2UNet, (3, 4), options, "with " + " and ".join(f"{k} {v}" for k, v in options.items()))
            for name, choices in CHOICES.items()
            for choice in choices[1:]  # the first is the default
            for options in [{name: choice, **NEEDED.get(name, {})}]
        ]
    else:
        rows.append((R2UNet, widths, {"steps": steps, "task": "both"}, "with task both"))
    for network, widths, options, condition in rows:
        model = network(widths=widths, rng=rng, **options).to(np.float64).to(device)
        yield (
            f"{network.__name__} {condition}",
            f"vjp of {len(model.parameters())} parameter tensors",
            TOLERANCE,
            partial(check_network, model, modes.get(condition, True), rng),
        )


register("r2unet", gradient_checks)

if __name__ == "__main__":  # the whole table, also where r2unet is not installed and has no entry point
    sys.exit(run_program(PROGRAM, main))

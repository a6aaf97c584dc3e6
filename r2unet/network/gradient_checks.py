"""The gradients of R2U-Net and its family as wholes, one row a mode for `python -m minidl.gradcheck`.

Every operation may be right and the network still wrong: a gradient added twice, a skip cut off, a step of
the recurrence left out. So every parameter tensor is moved along a random direction of its own, and the
change of the output compared with what backward says.

In training, a bias in front of a batch norm has no effect, for the norm takes the mean off again: its
gradient is zero, and both numbers must say so. In evaluation it has one. That is why both modes are checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from minidl.backend import to_device, to_numpy
from minidl.gradcheck import Check, GradientError, relative_error
from minidl.nn import BatchNorm2d, Module
from minidl.tensor import Parameter, Tensor, no_grad
from r2unet.network.model import CHOICES, NETWORKS, R2UNet, UShape

TOLERANCE = 1e-5
STEP = 1e-7  # the network has thousands of ReLUs: a longer step would carry some of them over their kinks
TRIES = 4
SHAPE = (2, 3, 8, 8)  # of the images
SMALLER = {"cuda-on-cpu": ((2, 3), 1)}  # widths and steps where the networks would take minutes

# The derivatives here are of order 1 to 100; rounding leaves an error of about 1e-16 * output / STEP in each
# difference. Two numbers below the floor are both zero: the bias in front of a batch norm.
FLOOR = 1e-1


def check_parameters(
    model: Module, shape: tuple[int, ...], rng: np.random.Generator, tolerance: float = TOLERANCE
) -> float:
    """Check the gradient of every parameter tensor against a central difference; return the largest error.

    All are checked at one random input of the given shape, each along a random direction of its own. A ReLU
    whose kink lies within the step spoils the difference, not the derivative; so where the two disagree,
    another input is drawn, `TRIES` in all. A wrong derivative agrees at none.

    The model must be float64. Raises GradientError naming the parameter. Running statistics move, as in
    training.
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
    """Return, for each parameter p, the derivative of <u, model(x)> as p moves along a direction v.

    Twice: by backward, and by a central difference. The input x, the cotangent u and every v are random.
    """
    x = Tensor(to_device(rng.normal(size=shape), next(iter(parameters.values())).device))
    model.zero_grad()
    y = model(x)
    u = rng.normal(size=y.shape)
    y.backward(u)
    derivatives = {}
    for name, p in parameters.items():
        if p.grad is None:
            raise GradientError(f"no gradient arrived at {name} {p.shape}")
        v, value, projected = rng.normal(size=p.shape), p.data, []
        for sign in (1.0, -1.0):
            p.data = value + to_device(sign * STEP * v, p.device)
            with no_grad():
                projected.append(float(np.vdot(u, model(x).numpy())))
        p.data = value
        derivatives[name] = float(np.vdot(to_numpy(p.grad), v)), (projected[0] - projected[1]) / (2.0 * STEP)
    return derivatives


def check_network(model: UShape, training: bool, rng: np.random.Generator) -> float:
    """Check all parameters in training or evaluation; return the largest error."""
    for p in model.parameters():
        # Zeros and ones would hide exchanged roles.
        p.data = p.data + to_device(0.1 * rng.normal(size=p.shape), p.device)
    for _, module in model.named_modules():
        if isinstance(module, BatchNorm2d):
            module.momentum = 1.0  # one batch settles the statistics: evaluation is scaled as training is
    with no_grad():
        model(Tensor(to_device(rng.normal(size=SHAPE), model.head.weight.device)))
    return check_parameters(model.train(training), SHAPE, rng)


def gradient_checks(rng: np.random.Generator, device: str = "cpu") -> Iterator[Check]:
    """Yield the rows of whole networks: each in training and in evaluation, then each option by itself."""
    modes = {"in training": True, "in evaluation": False}
    widths, steps = SMALLER.get(device, ((4, 6, 8), 2))
    rows = [(R2UNet, widths, {"steps": steps}, mode) for mode in modes]
    if device not in SMALLER:
        rows += [(n, (3, 4), {}, mode) for n in NETWORKS.values() if n is not R2UNet for mode in modes]
        rows += [
            (R2UNet, (3, 4), {name: choice}, f"with {name} {choice}")
            for name, choices in CHOICES.items()
            for choice in choices[1:]  # the first is the default
        ]
    for network, widths, options, how in rows:
        model = network(widths=widths, rng=rng, **options).to(np.float64).to(device)
        yield (
            f"{network.__name__} {how}",
            f"vjp of {len(model.parameters())} parameter tensors",
            TOLERANCE,
            partial(check_network, model, modes.get(how, True), rng),
        )

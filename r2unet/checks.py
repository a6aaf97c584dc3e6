"""The gradients of R2U-Net and its family as wholes, one row a mode for `python -m minidl.gradcheck`.

Every operation may be right and the network still wrong: a gradient added twice, a skip cut off, a step of
the recurrence left out. So every parameter tensor is moved along a random direction of its own, and the
change of the output compared with what backward says.

In training, a bias in front of a batch norm has no effect, for the norm takes the mean off again: its
gradient is zero, and both numbers must say so. In evaluation it has one. That is why both modes are checked.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minidl.gradcheck import Check, GradientError, relative_error
from minidl.nn import BatchNorm2d, Module
from minidl.tensor import Parameter, Tensor, no_grad
from r2unet.model import CHOICES, NETWORKS, R2UNet

TOLERANCE = 1e-5
STEP = 1e-7  # the network has thousands of ReLUs: a longer step would carry some of them over their kinks
TRIES = 4

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
    x = Tensor(rng.normal(size=shape))
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
            p.data = value + sign * STEP * v
            with no_grad():
                projected.append(float(np.vdot(u, model(x).data)))
        p.data = value
        derivatives[name] = float(np.vdot(p.grad, v)), (projected[0] - projected[1]) / (2.0 * STEP)
    return derivatives


def settled(model: Module, shape: tuple[int, ...], rng: np.random.Generator) -> Module:
    """Return the model in float64, no parameter at zero or one, with statistics that fit its activations."""
    model.to(np.float64)
    for p in model.parameters():
        p.data = p.data + 0.1 * rng.normal(size=p.shape)  # zeros and ones would hide exchanged roles
    for _, module in model.named_modules():
        if isinstance(module, BatchNorm2d):
            module.momentum = 1.0  # one batch settles the statistics: evaluation is scaled as training is
    with no_grad():
        model(Tensor(rng.normal(size=shape)))
    return model


def gradient_checks(rng: np.random.Generator) -> Iterator[Check]:
    """Yield the rows of whole networks: each in training and in evaluation, then each option by itself."""
    modes = {"in training": True, "in evaluation": False}
    rows = [(R2UNet, (4, 6, 8), {}, mode) for mode in modes]
    rows += [(n, (3, 4), {}, mode) for n in NETWORKS.values() if n is not R2UNet for mode in modes]
    rows += [
        (R2UNet, (3, 4), {name: choice}, f"with {name} {choice}")
        for name, choices in CHOICES.items()
        for choice in choices[1:]  # the first is the default
    ]
    for network, widths, options, how in rows:
        shape = (2, 3, 8, 8)
        model = settled(network(widths=widths, rng=rng, **options), shape, rng)
        model.train(modes.get(how, True))
        yield (
            f"{network.__name__} {how}",
            f"vjp of {len(model.parameters())} parameter tensors",
            TOLERANCE,
            lambda m=model, s=shape: check_parameters(m, s, rng),
        )

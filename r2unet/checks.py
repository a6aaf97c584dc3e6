"""The gradient of R2U-Net as a whole, one row a mode for `python -m minidl.gradcheck`.

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
from minidl.nn import BatchNorm2d
from minidl.tensor import Parameter, Tensor, no_grad
from r2unet.model import R2UNet

TOLERANCE = 1e-5
STEP = 1e-7  # the network has thousands of ReLUs: a longer step would carry some of them over their kinks
TRIES = 4
SHAPE = (2, 3, 8, 8)  # of the images
SMALLER = {"cuda-on-cpu": ((2, 3), 1)}  # widths and steps where the network would take minutes

# The derivatives here are of order 1 to 100; rounding leaves an error of about 1e-16 * output / STEP in each
# difference. Two numbers below the floor are both zero: the bias in front of a batch norm.
FLOOR = 1e-1


def check_parameters(
    model: R2UNet, shape: tuple[int, ...], rng: np.random.Generator, tolerance: float = TOLERANCE
) -> float:
    """Check the gradient of every parameter tensor against a central difference; return the largest error.

    Each is checked along a random direction, at a random input of the given shape. A ReLU whose kink lies
    within the step spoils the difference, not the derivative; so where the two disagree, another input is
    drawn, `TRIES` in all. A wrong derivative agrees at none.

    The model must be float64. Raises GradientError naming the parameter. Running statistics move, as in
    training.
    """
    worst, point = 0.0, backward_at_random(model, shape, rng)
    for name, p in model.named_parameters():
        for _ in range(TRIES):
            analytic, numeric = directional_derivatives(model, p, *point, rng)
            error = relative_error(analytic, numeric, FLOOR)
            if error <= tolerance:
                break
            point = backward_at_random(model, shape, rng)
        else:
            raise GradientError(
                f"{name} {p.shape}: backward gives {analytic:.12g}, a central difference {numeric:.12g}; "
                f"relative error {error:.1e} > {tolerance:.0e}"
            )
        worst = max(worst, error)
    return worst


def backward_at_random(
    model: R2UNet, shape: tuple[int, ...], rng: np.random.Generator
) -> tuple[Tensor, np.ndarray]:
    """Fill every parameter's grad with that of <u, model(x)>; return x and u, both random."""
    x = Tensor(to_device(rng.normal(size=shape), model.head.weight.device))
    model.zero_grad()
    y = model(x)
    u = rng.normal(size=y.shape)
    y.backward(u)
    return x, u


def directional_derivatives(
    model: R2UNet, p: Parameter, x: Tensor, u: np.ndarray, rng: np.random.Generator
) -> tuple[float, float]:
    """Return d<u, model(x)> / dp in a random direction: by the gradient in p, and by a central difference."""
    if p.grad is None:
        raise GradientError(f"no gradient arrived at a parameter {p.shape}")
    v = rng.normal(size=p.shape)
    value, projected = p.data, []
    for sign in (1.0, -1.0):
        p.data = value + to_device(sign * STEP * v, p.device)
        with no_grad():
            projected.append(float(np.vdot(u, model(x).numpy())))
    p.data = value
    return float(np.vdot(to_numpy(p.grad), v)), (projected[0] - projected[1]) / (2.0 * STEP)


def check_network(model: R2UNet, training: bool, rng: np.random.Generator) -> float:
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
    """Yield the rows of the whole network, in training and in evaluation, on a device."""
    widths, steps = SMALLER.get(device, ((4, 6, 8), 2))
    # The networks' generators are their own: a smaller network leaves the other checks' numbers as they are.
    for training, own in zip((True, False), rng.spawn(2), strict=True):
        model = R2UNet(widths=widths, steps=steps, rng=own).to(np.float64).to(device)
        yield (
            f"R2UNet in {'training' if training else 'evaluation'}",
            f"vjp of {len(model.parameters())} parameter tensors",
            TOLERANCE,
            partial(check_network, model, training, own),
        )

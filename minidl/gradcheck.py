"""Gradient checking: compares the gradients of `backward` with finite differences.

**Vector-Jacobian products.** `backward` claims to compute J^T u for a cotangent u, where J is the
Jacobian of f. For any direction v, <u, J v> = <J^T u, v>. The left side needs no derivative at all: J v
is the change of f(x) when x moves along v. A central difference measures it with an error of order h^2:

    J v  =  (f(x + h v) - f(x - h v)) / 2h  +  O(h^2).

Both u and v are random. Each input of f has its own v, so a mistake in one gradient cannot hide behind
the others. A cotangent of ones is not enough: the outputs of a batch norm always sum to the same number,
so the gradient of the sum is zero, and any multiple of a wrong gradient would pass.

In float64 rounding costs about 1e-16 / h. With h = 1e-5 the two sides agree to 1e-8 or better, and a backward
that is wrong by one part in a thousand exceeds the tolerance of 1e-6 a thousandfold. Inputs are kept away
from kinks (ReLU at 0, equal pixels in a max-pool), where there is no derivative.

**Adjoints.** For a linear map the claim is <A x, y> = <x, A^T y>, exactly and for all x and y. There is no h,
and the only error is rounding, so the check also works in float32.

`python -m minidl.gradcheck` checks every Function and every faster implementation of it, and the networks of
packages that are built on this one; with `--device cpu cuda`, on each of these devices with the same random
numbers, in adjacent columns.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import entry_points
from typing import Any

import numpy as np

from minidl import ops
from minidl.backend import DEVICES, Array, DeviceError, require, to_device, to_numpy
from minidl.gradcheck_cases import function_cases
from minidl.implementation import implementation, implementations
from minidl.operations import every_function
from minidl.ops.conv import definition, im2col
from minidl.output import run_program
from minidl.tensor import Tensor

__all__ = [
    "GradientError",
    "Row",
    "adjoint_checks",
    "as_table",
    "check_adjoint",
    "check_vjp",
    "function_checks",
    "register",
    "relative_error",
    "run",
]

PROGRAM = "python -m minidl.gradcheck"
TOLERANCE = 1e-6
STEP = 1e-5

# A package that is built on this one adds its own checks: it calls `register` in a module that its
# pyproject.toml lists as an entry point of this group. This package therefore does not depend on it.
ENTRY_POINTS = "minidl.gradcheck"


class GradientError(AssertionError):
    """A derivative is wrong; the message contains both numbers."""


def relative_error(a: float, b: float, floor: float = 1e-12) -> float:
    """Return |a - b| / max(|a|, |b|, floor). The floor matters for two numbers that should both be zero."""
    error = abs(a - b) / max(abs(a), abs(b), floor)
    return error if np.isfinite(error) else float("inf")


def check_vjp(
    f: Callable[..., Tensor],
    *arrays: np.ndarray,
    rng: np.random.Generator,
    tolerance: float = TOLERANCE,
    step: float = STEP,
    device: str = "cpu",
) -> float:
    """Compare f's gradient with a central difference, for every input; return the largest relative error.

    `f` takes Tensors made of `arrays`, float64, on the device, and returns a Tensor. Raises GradientError
    with both numbers if an error exceeds the tolerance.
    """
    inputs = [Tensor(to_device(np.array(a, np.float64), device), requires_grad=True) for a in arrays]
    y = f(*inputs)
    cotangent = rng.normal(size=y.shape)
    y.backward(cotangent)

    def project(i: int, moved: np.ndarray) -> float:
        """Return <u, f(x)> with another value of input i."""
        values = [Tensor(moved if j == i else x.data) for j, x in enumerate(inputs)]
        return float(np.vdot(cotangent, f(*values).numpy()))

    worst = 0.0
    for i, x in enumerate(inputs):
        if x.grad is None:
            raise GradientError(f"input {i} {x.shape}: no gradient arrived")
        alone = [Tensor(other.data, requires_grad=j == i) for j, other in enumerate(inputs)]
        f(*alone).backward(cotangent)
        # NaN is equal to NaN here: the comparison with the central difference below reports it.
        if not np.array_equal(to_numpy(alone[i].grad), to_numpy(x.grad), equal_nan=True):
            raise GradientError(f"input {i} {x.shape}: its gradient differs if no other gradient is needed")
        v = rng.normal(size=x.shape)
        along = to_device(step * v, device)
        numeric = (project(i, x.data + along) - project(i, x.data - along)) / (2.0 * step)
        analytic = float(np.vdot(to_numpy(x.grad), v))
        error = relative_error(analytic, numeric)
        worst = max(worst, error)
        if error > tolerance:
            raise GradientError(
                f"input {i} {x.shape}: backward gives {analytic:.12g}, a central difference {numeric:.12g}; "
                f"relative error {error:.1e} > {tolerance:.0e}"
            )
    return worst


def check_adjoint(
    forward: Callable[[Array], Array],
    adjoint: Callable[[Array], Array],
    x: Array,
    y: Array,
    tolerance: float = 1e-12,
) -> float:
    """Check <A x, y> = <x, A^T y> for a linear map A and its adjoint; return the relative error.

    The tolerance is for float64; 1e-5 suits float32. Raises GradientError with both numbers.
    """
    left = float((forward(x) * y).sum())
    right = float((x * adjoint(y)).sum())
    error = relative_error(left, right)
    if error > tolerance:
        raise GradientError(
            f"<A x, y> = {left:.12g}, <x, A^T y> = {right:.12g}; relative error {error:.1e} > {tolerance:.0e}"
        )
    return error


@dataclass(frozen=True)
class Row:
    """One line of the table: what was checked, and the result."""

    name: str
    checked: str
    error: float
    tolerance: float
    message: str = ""
    device: str = "cpu"

    @property
    def passed(self) -> bool:
        return not self.message and self.error <= self.tolerance


Check = tuple[str, str, float, Callable[[], float]]  # name, what is checked, tolerance, the check itself
Checks = Callable[[np.random.Generator, str], Iterator[Check]]  # of (rng, device)

_registered: dict[str, Checks] = {}


def register(package: str, checks: Checks) -> None:
    """Add the checks of another package to the table of `python -m minidl.gradcheck`."""
    _registered[package] = checks


def function_checks(rng: np.random.Generator, device: str = "cpu") -> Iterator[Check]:
    """Yield a check for each case of each Function, by its definition and by every faster implementation.

    A Function without a case is a check that fails.
    """
    cases = function_cases(rng, device)
    for kind in every_function():
        own = [name for name in cases if name.partition(",")[0] == kind.__name__]
        if not own:
            message = f"{kind.__name__}: give it a row in function_cases"
            yield kind.__name__, "nothing", TOLERANCE, lambda m=message: _fail(m)
        for name in own:
            f, inputs = cases[name]
            what = "vjp at " + ", ".join("x".join(map(str, a.shape)) for a in inputs)
            seed = rng.integers(2**63)  # every implementation is checked along the same random directions
            for how in ("definition", *implementations(kind, device)):
                g = by(how, f)
                if how != "definition" and not computes(how, g, inputs, device):
                    continue
                title = name if how == "definition" else f"{name} ({how})"
                random = np.random.default_rng(seed)
                yield title, what, TOLERANCE, partial(check_vjp, g, *inputs, rng=random, device=device)


def by(how: str, f: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return f computed by the implementations with this name."""

    def function(*inputs: Tensor) -> Tensor:
        with implementation(how):
            return f(*inputs)

    return function


def implementation_of(f: Callable[..., Tensor], inputs: Sequence[np.ndarray], device: str) -> str:
    """Return the name of the implementation that computes the last operation of f."""
    return f(*(Tensor(to_device(a, device), requires_grad=True) for a in inputs)).creator.implementation


def computes(how: str, f: Callable[..., Tensor], inputs: Sequence[np.ndarray], device: str) -> bool:
    """Return whether the implementation `how` can compute this case, or fails, and so will its check."""
    try:
        return implementation_of(f, inputs, device) == how
    except Exception:  # a wrong forward pass may raise anything
        return True


def adjoint_checks(rng: np.random.Generator, device: str = "cpu") -> Iterator[Check]:
    """Yield a check for each pair of linear maps that are each other's adjoint."""

    def normal(*shape: int) -> Array:
        return to_device(rng.normal(size=shape), device)

    x, w = normal(2, 3, 8, 7), normal(4, 3, 3, 2)
    window = (3, 2), (2, 1), (1, 0)  # kernel, stride, padding
    col, y = normal(2, 3 * 3 * 2, 4 * 6), normal(2, 4, 4, 6)

    def convolve(a: Array) -> Array:
        return ops.conv2d(Tensor(a), Tensor(w), stride=window[1], padding=window[2]).data

    def transposed(a: Array) -> Array:
        options = {"stride": window[1], "padding": window[2], "output_padding": (1, 0)}
        return ops.conv_transpose2d(Tensor(a), Tensor(w), **options).data

    def pad(a: Array) -> Array:
        return ops.pad(Tensor(a), (1, 2), (0, 3)).data

    halves = normal(2, 6, 8, 7)

    def join(a: Array) -> Array:
        return ops.concat((Tensor(a), Tensor(2.0 * a))).data

    modules = [definition, *([im2col] if "im2col" in implementations(definition.Conv2d, device) else [])]
    pairs = [
        (
            "im2col, col2im" + ("" if code is definition else " (kernels)"),
            lambda a, code=code: code.im2col(a, *window),
            lambda a, code=code: code.col2im(a, (8, 7), *window),
            x,
            col if code is definition else im2col.side_by_side(col),
        )
        for code in modules
    ]
    pairs += [
        ("conv2d, conv_transpose2d", convolve, transposed, x, y),
        ("pad, crop", pad, lambda a: a[..., 1:-2, :-3], x, normal(2, 3, 11, 10)),
        ("concat, split", join, lambda a: a[:, :3] + 2.0 * a[:, 3:], x, halves),
    ]
    for name, forward, adjoint, a, b in pairs:
        yield name, "<A x, y> = <x, A^T y>", 1e-12, partial(check_adjoint, forward, adjoint, a, b)


def other_checks(rng: np.random.Generator, device: str = "cpu") -> Iterator[Check]:
    """Yield the checks that other packages have registered."""
    for entry_point in entry_points(group=ENTRY_POINTS):
        entry_point.load()  # importing the module registers its checks
    for checks in _registered.values():
        yield from checks(rng, device)


def _fail(message: str) -> float:
    raise GradientError(message)


def run(checks: Sequence[Check] | Iterator[Check], device: str = "cpu") -> list[Row]:
    """Run all checks; a check that raises an exception becomes a row with its message."""
    rows = []
    for name, checked, tolerance, check in checks:
        try:
            rows.append(Row(name, checked, check(), tolerance, device=device))
        except Exception as error:  # a wrong backward may raise anything; the table reports it
            message = str(error) or type(error).__name__
            rows.append(Row(name, checked, float("inf"), tolerance, message, device))
    return rows


def as_table(rows: Sequence[Row]) -> str:
    """Format the rows as text: a line for each check, with a column of errors for each device.

    A column is empty where a device has no such check: other implementations, or networks that would take
    minutes.
    """
    devices = list(dict.fromkeys(row.device for row in rows))
    titles = [f"{device:7}" for device in devices] if len(devices) > 1 else ["error  "]
    names = list(dict.fromkeys(row.name for row in rows))
    lines = [[row for row in rows if row.name == name] for name in names]
    checked = [" / ".join(dict.fromkeys(row.checked for row in same)) for same in lines]
    name_width, checked_width = max(map(len, names)), max(map(len, checked))
    text = [f"{'name':{name_width}}  {'checked':{checked_width}}  {'  '.join(titles)}  tolerance  verdict"]
    for same, name, what in zip(lines, names, checked, strict=True):
        errors = {row.device: f"{row.error:.1e}" if np.isfinite(row.error) else "      -" for row in same}
        columns = "  ".join(
            f"{errors.get(device, ''):{len(title)}}" for device, title in zip(devices, titles, strict=True)
        )
        verdict = "; ".join(_failure(row, len(devices) > 1) for row in same if not row.passed) or "ok"
        text.append(
            f"{name:{name_width}}  {what:{checked_width}}  {columns}  {same[0].tolerance:.0e}      {verdict}"
        )
    failed = sum(not row.passed for row in rows)
    text.append(f"{len(rows) - failed} of {len(rows)} derivatives agree")
    return "\n".join(text)


def _failure(row: Row, name_device: bool) -> str:
    where = f" on {row.device}" if name_device else ""
    return f"FAILED{where}  {row.message.partition(chr(10))[0]}".rstrip()


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table of all checks; return 0 if all passed, else 1. Exit with 2 if a device fails."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Check every derivative.")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--seed", type=int, default=0, help="seed of the inputs and directions (default 0)")
    parser.add_argument(
        "--device",
        nargs="+",
        choices=DEVICES,
        default=["cpu"],
        help="one or more devices, a column for each (default cpu)",
    )
    options = parser.parse_args(argv)
    if options.seed < 0:
        parser.error(f"argument --seed: must be at least 0, got {options.seed}")
    devices = list(dict.fromkeys(options.device))
    try:
        for device in devices:
            require(device)
    except DeviceError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    rows: list[Row] = []
    for device in devices:
        rng = np.random.default_rng(options.seed)  # the same numbers for every device
        checks = (*function_checks(rng, device), *adjoint_checks(rng, device), *other_checks(rng, device))
        rows += run(checks, device)
    passed = all(row.passed for row in rows)
    if options.json:
        table: list[dict[str, Any]] = [
            {**asdict(r), "error": r.error if np.isfinite(r.error) else None, "passed": r.passed}
            for r in rows
        ]
        print(json.dumps({"passed": passed, "rows": table}, indent=2))
    else:
        print(as_table(rows))
    return 0 if passed else 1


if __name__ == "__main__":
    # Not this module's own `main`: packages register their checks in the module of the name minidl.gradcheck.
    from minidl import gradcheck

    sys.exit(run_program(PROGRAM, gradcheck.main))

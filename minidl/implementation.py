"""Which code computes an operation: its definition, or a faster implementation of it.

Every operation has one *definition*: the shortest correct code, in array operations that NumPy and CuPy
share, so it runs on every device. It is what the documentation explains. Some operations also have faster
*implementations* for some devices, such as CUDA kernels. These register here:

    class ReLU(Function):                                  # the definition
        ...

    @implements(ReLU, "kernels", devices=GPU)              # the same function, faster on these devices
    class ReLUKernels(ReLU):
        ...

    def relu(x):
        return choose(ReLU, x.device)()(x)                 # the only place where the choice is made

`choose` returns the first implementation, in the order of registration, that runs on the device and suits the
arguments, and otherwise the definition. The choice can be overridden and inspected:

    with implementation("definition"):                     # a network that uses definitions only
        loss = model(x)

    python -m minidl.operations                            # a table of all operations and implementations

A definition is a `Function` or, where nothing is differentiated (a step of Adam), a plain function. An
implementation takes the same arguments and gives the same results up to rounding; `tests/minidl/ops/
test_implementations.py` compares every one of them with its definition on every device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

__all__ = ["choose", "definitions", "implementation", "implementations", "implements", "name_of"]

Code = TypeVar("Code", bound=Callable)


class Implementation(NamedTuple):
    """A faster way to compute an operation."""

    name: str
    code: Callable  # a subclass of the definition, or a function with its signature
    devices: tuple[str, ...]
    can: Callable[..., bool]  # whether it supports these arguments
    pays: Callable[..., bool]  # whether it is then preferred by default


_registered: dict[Callable, list[Implementation]] = {}

# The names requested by `implementation`, for each definition; the key None applies to all other definitions.
Requests = Mapping[Callable | None, tuple[str, ...]]
_requested: ContextVar[Requests] = ContextVar("requested", default=MappingProxyType({}))


def _always(*arguments: Any) -> bool:
    return True


def implements(
    definition: Callable,
    name: str,
    devices: Sequence[str],
    can: Callable[..., bool] = _always,
    pays: Callable[..., bool] = _always,
) -> Callable[[Code], Code]:
    """Register the decorated class or function as an implementation of `definition` on these devices.

    `can` and `pays` receive the arguments of `choose` after the device. They return whether the
    implementation supports these arguments, and whether it is preferred by default.
    """

    def register(code: Code) -> Code:
        code.definition, code.implementation = definition, name
        _registered.setdefault(definition, []).append(Implementation(name, code, tuple(devices), can, pays))
        return code

    return register


def choose(definition: Code, device: str, *arguments: Any) -> Code:
    """Return the code that computes the operation on this device for these arguments."""
    requested = _requested.get()
    names = requested.get(definition, requested.get(None, ()))
    for candidate in _registered.get(definition, ()):
        wanted = candidate.name in names if names else candidate.pays(*arguments)
        if wanted and device in candidate.devices and candidate.can(*arguments):
            return candidate.code
    return definition


@contextmanager
def implementation(*names: str, of: Sequence[Callable] | None = None) -> Iterator[None]:
    """Use the implementations with these names inside this block, for all operations or only for `of`.

    An operation without such an implementation, or whose implementation does not support the arguments, uses
    its definition. "definition" therefore selects all definitions, and "auto" restores the default choice.
    The names belong to single operations (`python -m minidl.operations` lists them), so a network usually
    needs several. A block inside another replaces its choice, for all operations or for those of `of`. Raises
    ValueError for a name that no implementation has, and for an operation without implementations in `of`.
    """
    known = ("auto", "definition", *sorted({i.name for group in _registered.values() for i in group}))
    for name in names:
        if name not in known:
            raise ValueError(f"unknown implementation {name!r}; choose from {', '.join(known)}")
    for definition in of or ():
        if definition not in _registered:
            raise ValueError(f"{definition} has only its definition; leave it out of `of`")
    chosen = () if "auto" in names else names
    requested = {None: chosen} if of is None else {**_requested.get(), **dict.fromkeys(of, chosen)}
    token = _requested.set(requested)
    try:
        yield
    finally:
        _requested.reset(token)


def name_of(code: Callable) -> str:
    """Return the name of an implementation that `choose` returned; "definition" for a definition."""
    return getattr(code, "implementation", "definition")


def definitions() -> list[Callable]:
    """Return the operations that have faster implementations."""
    return list(_registered)


def implementations(definition: Callable, device: str) -> list[str]:
    """Return the names of the faster implementations of an operation on a device, the preferred one first."""
    return [i.name for i in _registered.get(definition, ()) if device in i.devices]

"""CUDA graphs on the emulator: the recorded calls of a function, repeated with the recorded arguments.

On a GPU, a *capture* records the work that is queued in a stream, instead of executing it. The resulting
graph contains kernels and the arguments that they received: numbers, and the addresses of arrays. Launching
it executes all of them with these arguments. What Python computed in between is not part of it.

Here, work is the calls of kernels (`kernel.py`) and of array operations (`array.py`), which on a GPU are
CuPy's kernels. During a capture both record themselves in a `Graph` and do not run. An operation that returns
a new array returns it with the right shape, but with meaningless values, which are computed at the launch.
The rules are those of a GPU:

* A number from Python keeps the value that it had during the capture.
* An array is remembered by its address, and not kept alive. Memory that was allocated during the capture
  belongs to the graph. Any other array must still exist at the launch: otherwise there is an error here, and
  on a GPU there are wrong numbers.
* Every launch may write to all of the graph's memory, because what one kernel has finished with is given to
  the next. Writing to it from outside is an error here; on a GPU a launch writes over it.
* Nothing may be copied between the device and the CPU, and no value may be read.
* A matrix product, which CuPy computes with cuBLAS, raises the exception that CuPy raises.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np

# Operations that CuPy computes with cuBLAS, and operations whose result has a shape that depends on values.
CUBLAS = {"matmul", "dot", "vdot", "inner", "tensordot", "einsum"}
DATA_DEPENDENT = {"nonzero", "flatnonzero", "argwhere", "unique", "extract", "compress"}
MOST_CONCATENATED = 8  # CuPy sends the addresses of more arrays to the GPU in a table: a copy from the CPU


class CaptureError(RuntimeError):
    """Work that a graph cannot contain, or a graph that cannot run any more."""


class Address(NamedTuple):
    """What a graph remembers of an array: where it is and its layout."""

    kind: type[np.ndarray]
    memory: weakref.ref  # the array that owns the memory
    interface: dict[str, Any]

    @staticmethod
    def of(array: np.ndarray) -> Address:
        interface = {key: array.__array_interface__[key] for key in ("shape", "typestr", "version")}
        interface |= {"strides": array.strides, "data": (array.ctypes.data, False)}
        return Address(type(array), weakref.ref(owner(array)), interface)

    def array(self) -> np.ndarray:
        """Return an array with this memory. Raises CaptureError if the memory no longer exists."""
        memory = self.memory()
        if memory is None:
            shape, kind = self.interface["shape"], self.interface["typestr"]
            raise CaptureError(
                f"the graph uses an array {kind} {shape} that no longer exists; keep it alive, or write its "
                "new values to the old address"
            )
        return np.asarray(_Located(self.interface, memory)).view(self.kind)


class _Located:
    """An object that NumPy turns into an array; it keeps the memory alive as long as the array exists."""

    def __init__(self, interface: dict[str, Any], memory: np.ndarray) -> None:
        self.__array_interface__, self.memory = interface, memory


def owner(array: np.ndarray) -> np.ndarray:
    """Return the array that owns the memory of a view."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return getattr(array.base, "memory", array)


def translate(tree: Any, kind: type, function: Callable[[Any], Any]) -> Any:
    """Return a tree of tuples, lists and dictionaries in which every object of a type is replaced."""
    if isinstance(tree, kind):
        return function(tree)
    if isinstance(tree, list | tuple):
        return type(tree)(translate(item, kind, function) for item in tree)
    if isinstance(tree, dict):
        return {key: translate(item, kind, function) for key, item in tree.items()}
    return tree


class Graph:
    """Recorded calls, and the memory that was allocated while they were recorded."""

    def __init__(self) -> None:
        self.calls: list[tuple[Callable, tuple]] = []
        self.memory: list[np.ndarray] = []
        _graphs.add(self)

    def add(self, function: Callable, *arguments: Any) -> None:
        """Record a call that writes to arrays."""
        self.calls.append((function, translate(arguments, np.ndarray, Address.of)))

    def keep(self, array: np.ndarray) -> None:
        """Keep the memory of an array that was allocated during the capture."""
        self.memory.append(owner(array))

    def launch(self) -> None:
        """Repeat all calls in their order. Raises CaptureError if an array no longer exists."""
        for function, arguments in self.calls:
            function(*translate(arguments, Address, Address.array))


_graph: ContextVar[Graph | None] = ContextVar("graph", default=None)
_graphs: weakref.WeakSet[Graph] = weakref.WeakSet()  # all that exist


def recording() -> Graph | None:
    """Return the graph of the capture in progress, or None."""
    return _graph.get()


@contextlib.contextmanager
def captured() -> Iterator[Graph]:
    """Record all work inside this block instead of executing it, and yield the graph."""
    graph = Graph()
    token = _graph.set(graph)
    try:
        with np.errstate(all="ignore"):  # the values are meaningless
            yield graph
    finally:
        _graph.reset(token)


@contextlib.contextmanager
def outside() -> Iterator[None]:
    """Allocate the arrays of this block outside of the graph that is being captured."""
    token = _graph.set(None)
    try:
        yield
    finally:
        _graph.reset(token)


def refuse_memory_of_graphs(array: np.ndarray) -> None:
    """Raise CaptureError if an array is in the memory of a graph, whose launches would write over it."""
    memory = owner(array)
    if any(each is memory for graph in _graphs for each in graph.memory):
        raise CaptureError("the array is in the memory of a graph, and every launch writes over it")


def refuse_host(what: str) -> None:
    """Raise CaptureError during a capture, because this work needs the CPU."""
    if recording():
        raise CaptureError(f"{what}: a graph cannot copy between the device and the CPU, or read a value")


def refuse_unrecordable(name: str, inputs: tuple) -> None:
    """Raise an exception for an operation that cannot be captured."""
    if name in CUBLAS:  # the exception and the words of CuPy
        raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
    if name in DATA_DEPENDENT:
        raise CaptureError(f"{name}: the shape of its result depends on values, which a graph cannot read")
    if name in ("concatenate", "stack") and len(inputs[0]) > MOST_CONCATENATED:
        raise CaptureError(f"{name} of {len(inputs[0])} arrays copies a table of addresses from the CPU")

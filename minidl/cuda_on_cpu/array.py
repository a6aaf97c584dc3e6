"""The emulator's arrays: `Array` corresponds to `cupy.ndarray`, and `xp` to the module `cupy`.

The memory is NumPy's, but the rules are CuPy's. An `Array` is "on the device", a plain NumPy array is not,
and no operation accepts a mixture of the two. The sum of an array is an array without axes, because reading
the number would mean waiting for the device. Code that runs on these arrays therefore makes all necessary
copies. In one respect this module is stricter than CuPy: `xp.empty` fills floating-point arrays with NaN and
integer arrays with their largest value, so that an element that no thread writes is detected.

One rule cannot be enforced: `np.asarray(x)` silently returns the memory, where CuPy raises an error. Use
`x.get()`.

While a graph is captured, operations record themselves instead of running (`graph.py`).
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.cuda_on_cpu.graph import (
    Graph,
    owner,
    recording,
    refuse_host,
    refuse_memory_of_graphs,
    refuse_unrecordable,
)

# Parts of NumPy that CuPy does not have, or that differ there.
ABSENT = {"random", "linalg", "fft", "testing", "lib", "ma", "polynomial", "save", "load", "savez"}
IN_PLACE = {
    "fill",
    "copyto",
    "put",
    "put_along_axis",
    "place",
    "putmask",
    "fill_diagonal",
    "sort",
    "partition",
}


class Array(np.ndarray):
    """An array on the emulated device, as `cupy.ndarray`; created by `asarray` and the functions of `xp`."""

    def get(self) -> np.ndarray:
        """Return a copy as a plain NumPy array, as CuPy's method does."""
        refuse_host("get")
        return np.array(self.view(np.ndarray))

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        name = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
        return call(getattr(ufunc, method), name, inputs, options)

    def __array_function__(self, function: Callable, types: Any, inputs: tuple, options: dict) -> Any:
        return call(function, function.__name__, inputs, options)

    def __getitem__(self, index: Any) -> Array:
        part = super().__getitem__(index)
        if isinstance(part, np.generic):  # a view without axes, as in CuPy
            part = super().__getitem__((*index, ...) if isinstance(index, tuple) else (index, ...))
        if recording() and owner(part) is not owner(self):
            refuse_host("x[array]")
        return on_device(part)

    def __setitem__(self, index: Any, value: Any) -> None:
        on_host(value, "x[...] = value")
        if graph := recording():
            graph.add(np.ndarray.__setitem__, self, index, value)
        else:
            refuse_memory_of_graphs(self)
            super().__setitem__(index, value)


def _method(name: str) -> Callable:
    """Return a method of ndarray, other than a ufunc, with its result on the device."""
    original = getattr(np.ndarray, name)

    @functools.wraps(original)
    def method(self: Array, *inputs: Any, **options: Any) -> Any:
        return call(original, name, (self, *inputs), options)

    return method


def _value(name: str) -> Callable:
    """Return a method of ndarray that reads values."""
    original = getattr(np.ndarray, name)

    @functools.wraps(original)
    def method(self: Array, *inputs: Any) -> Any:
        refuse_host(name)
        return original(self, *inputs)

    return method


_CALCULATIONS = "argmax", "argmin", "dot", "nonzero", "round", "searchsorted", "take", "trace"
_COPIES = "astype", "copy", "fill", "flatten", "ravel", "repeat", "reshape"
for _name in (*_CALCULATIONS, *_COPIES):
    setattr(Array, _name, _method(_name))
for _name in ("__bool__", "__float__", "__index__", "__int__", "item", "tolist"):
    setattr(Array, _name, _value(_name))


def on_host(value: Any, where: str) -> Any:
    """Return the arguments with every Array as a plain NumPy array; TypeError for a plain array."""
    if isinstance(value, Array):
        return value.view(np.ndarray)
    if isinstance(value, np.ndarray):
        raise TypeError(
            f"{where}: a NumPy array {value.dtype} {value.shape} mixed with arrays on the device; "
            "move it with asarray(), or the others with .get()"
        )
    if isinstance(value, list | tuple):
        return type(value)(on_host(item, where) for item in value)
    if isinstance(value, dict):
        return {key: on_host(item, where) for key, item in value.items()}
    return value


def on_device(value: Any) -> Any:
    """Return a result of NumPy with every array and NumPy scalar as an Array."""
    if isinstance(value, Array):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value).view(Array)
    if isinstance(value, list | tuple):
        return type(value)(on_device(item) for item in value)
    return value


def returned(result: Any, out: Any) -> Any:
    """Return the result on the device, or the array that was passed as `out`."""
    if isinstance(out, tuple) and len(out) == 1:  # as ufuncs receive it
        out = out[0]
    return on_device(result) if out is None else out


def call(function: Callable, name: str, inputs: tuple, options: dict) -> Any:
    """Call a NumPy function with arrays on the device."""
    if name.endswith(".at"):  # the index may be a NumPy array, as in x[index]
        inputs = (inputs[0], on_device(inputs[1]), *inputs[2:])

    def compute(inputs: tuple, options: dict) -> Any:
        return function(*on_host(inputs, name), **on_host(options, name))

    if graph := recording():
        return recorded(graph, compute, name, inputs, options)
    return returned(compute(inputs, options), options.get("out"))


def recorded(graph: Graph, compute: Callable, name: str, inputs: tuple, options: dict) -> Any:
    """Record an operation; return its result with the right shape, and values only after the launch."""
    refuse_unrecordable(name, inputs)
    if options.get("out") is not None or name in IN_PLACE or name.endswith(".at"):
        graph.add(compute, inputs, options)
        return returned(None, options.get("out"))
    result = on_device(compute(inputs, options))  # of meaningless values
    owners = {id(owner(array)) for array in arrays_in((inputs, options))}
    if all(id(owner(array)) in owners for array in arrays_in(result)):
        return result  # a view: no work

    def write(result: Array, inputs: tuple, options: dict) -> None:
        result.view(np.ndarray)[...] = compute(inputs, options)

    if not isinstance(result, Array):
        refuse_host(f"{name} with several results")
    graph.keep(result)
    graph.add(write, result, inputs, options)
    return result


def arrays_in(tree: Any) -> list[np.ndarray]:
    """Return the arrays in a tree of tuples, lists and dictionaries."""
    if isinstance(tree, dict):
        tree = list(tree.values())
    if isinstance(tree, list | tuple):
        return [array for item in tree for array in arrays_in(item)]
    return [tree] if isinstance(tree, np.ndarray) else []


def asarray(array: Any, dtype: Any = None) -> Array:
    """Return a copy of a NumPy array or of numbers on the device; an Array is returned unchanged."""
    if isinstance(array, Array):
        return array if dtype is None else array.astype(dtype, copy=False)
    array = np.array(array, dtype)
    if array.ndim == 0:  # as in CuPy, a single number is an argument of the kernel that writes it
        return call(np.full, "full", ((), array[()], array.dtype), {})
    refuse_host("asarray")
    return array.view(Array)


def poisoned(array: Array) -> Array:
    """Fill a new array with a conspicuous value: NaN, or the largest integer."""
    if graph := recording():
        graph.keep(array)
    memory = array.view(np.ndarray)  # filled at once, also during a capture: allocating memory is no work
    if array.dtype.kind in "fc":
        memory.fill(np.nan)
    elif array.dtype.kind in "iu":
        memory.fill(np.iinfo(array.dtype).max)
    return array


class _Function:
    """A NumPy function, or a ufunc with its methods (`add.at`), for arrays on the device."""

    def __init__(self, function: Callable, name: str) -> None:
        self.function, self.name = function, name

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        return call(self.function, self.name, inputs, options)

    def __getattr__(self, name: str) -> _Function:
        return _Function(getattr(self.function, name), f"{self.name}.{name}")


class _Library:
    """NumPy's functions under their own names, for arrays on the device."""

    ndarray = Array

    def __getattr__(self, name: str) -> Any:
        if name in ABSENT or name.startswith("_"):
            raise AttributeError(f"numpy.{name} has no counterpart in the emulator")
        value = getattr(np, name)
        if not callable(value) or isinstance(value, type):
            return value
        return _Function(value, name)

    def asarray(self, array: Any, dtype: Any = None) -> Array:
        return asarray(array, dtype)

    def array(self, array: Any, dtype: Any = None) -> Array:
        if isinstance(array, Array):
            return array.astype(array.dtype if dtype is None else dtype)
        if isinstance(array, list | tuple) and any(isinstance(item, Array) for item in array):
            array = on_host(array, "array")
        return asarray(array, dtype)

    def ascontiguousarray(self, array: Any, dtype: Any = None) -> Array:
        return call(np.ascontiguousarray, "ascontiguousarray", (asarray(array, dtype),), {})

    def empty(self, shape: Any, dtype: Any = float) -> Array:
        return poisoned(np.empty(shape, dtype).view(Array))

    def empty_like(self, array: Array, dtype: Any = None) -> Array:
        return poisoned(on_device(np.empty_like(on_host(array, "empty_like"), dtype)))


xp = _Library()

# Arrays whose addresses have been requested, which may therefore be in a kernel's table of pointers.
_addressed: dict[int, tuple[weakref.ref, int]] = {}


def address(array: Array) -> int:
    """Return the address of an array's first element; it is valid as long as the array's memory exists."""
    owner = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    start = array.ctypes.data
    _addressed[start] = (weakref.ref(owner), array.nbytes)
    return start


def bytes_at(start: int) -> int | None:
    """Return the size in bytes of the array at an address from `address`, or None if it no longer exists."""
    owner, size = _addressed.get(start, (lambda: None, 0))
    return None if owner() is None else size

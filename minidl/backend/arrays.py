"""An array's device and library, found without importing CuPy."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

import numpy as np

Array = Any  # numpy.ndarray, cupy.ndarray or the emulator's Array; naming cupy.ndarray would import CuPy


def library(device: str) -> Any:
    """Return the array library of a device; its functions have NumPy's names."""
    if device == "cpu":
        return np
    if device == "cuda":
        import cupy

        return cupy
    from minidl.cuda_on_cpu.array import xp

    return xp


def array_module(array: Array) -> ModuleType:
    """Return the library that an array belongs to: `numpy`, `cupy` or the emulator's array module."""
    return library(device_of(array))


def device_of(array: Array) -> str:
    """Return "cpu", "cuda" or "cuda-on-cpu"; raises TypeError for anything but an array.

    NumPy's scalars, such as the result of `x.sum()`, count as arrays on the CPU.
    """
    return _device_of_type(type(array))


@functools.cache  # called many times in a training step
def _device_of_type(kind: type) -> str:
    if kind.__module__ == "minidl.cuda_on_cpu.array":
        return "cuda-on-cpu"
    if issubclass(kind, np.ndarray | np.generic):
        return "cpu"
    if kind.__module__.partition(".")[0] == "cupy":
        return "cuda"
    raise TypeError(f"expected an array of NumPy or CuPy, got {kind.__module__}.{kind.__qualname__}")


def is_array(value: object) -> bool:
    """Return whether a value is an array of any device."""
    return isinstance(value, np.ndarray) or type(value).__module__.partition(".")[0] == "cupy"


def contiguous(array: Array) -> Array:
    """Return the array in C order (last axis fastest, no gaps), the layout that kernels assume."""
    return array if array.flags.c_contiguous else array.copy()


def address(array: Array) -> int:
    """Return the address of an array's first element, for a table of pointers.

    The address is valid only as long as the array exists.
    """
    if device_of(array) == "cuda":
        return array.data.ptr
    from minidl.cuda_on_cpu import array as cuda_on_cpu

    return cuda_on_cpu.address(array)

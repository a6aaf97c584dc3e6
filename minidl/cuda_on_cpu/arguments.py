"""The arguments of a launch: checked against the kernel's own parameters, and packed as C wants them.

A GPU is handed bytes, and reads them as whatever the kernel says they are. CuPy sends a Python integer as
eight bytes where the kernel takes an `int` of four, and a float64 array where it takes a `float*`: no error,
only wrong numbers. Here every argument must be of exactly the type that the kernel declares.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from minidl.cuda_on_cpu.array import Array, bytes_at


class Region(NamedTuple):
    """Memory that a kernel may touch, and what to call it in an error."""

    name: str
    begin: int
    end: int


def pack(kernel: str, parameters: list[str], types: list[str], args: tuple) -> tuple[bytes, list[Region]]:
    """Return the arguments in eight bytes each, and the memory they point to.

    `types` are those of export.h: "f4" a float, "*f4" a pointer to floats. Raises TypeError.
    """
    if not isinstance(args, tuple | list):
        raise TypeError(f"kernel {kernel}: arguments are a tuple, got {describe(args)}")
    if len(args) != len(types):
        raise TypeError(
            f"kernel {kernel} takes {len(types)} arguments ({', '.join(parameters)}), got {len(args)}"
        )
    packed, regions = b"", []
    for i, (parameter, kind, value) in enumerate(zip(parameters, types, args, strict=True), start=1):
        name = f"argument {i} `{parameter}`"
        if problem := mismatch(kind, value):
            raise TypeError(f"kernel {kernel}, {name}: {problem}")
        if kind.startswith("*"):
            value = np.uint64(value.ctypes.data)
            regions += pointed_to(kernel, name, kind, args[i - 1])
        packed += value.tobytes().ljust(8, b"\0")
    return packed, regions


def mismatch(kind: str, value: Any) -> str | None:
    """Return what is wrong with an argument for a parameter of this kind, and what to pass, or None."""
    if "?" in kind:
        return "a parameter of this type cannot be passed here; take numbers and pointers to numbers"
    dtype = np.dtype("u8" if kind.startswith("**") else kind.lstrip("*"))
    if not kind.startswith("*"):
        if isinstance(value, np.generic) and value.dtype == dtype:
            return None
        return f"got {describe(value)}; pass np.{dtype}(...)"
    what = f"an Array of {dtype}" + (" holding addresses" if kind.startswith("**") else "")
    if not isinstance(value, Array):
        return f"got {describe(value)}; pass {what}" + ", made by asarray()" * isinstance(value, np.ndarray)
    if value.dtype != dtype:
        return f"got {describe(value)}; pass {what}"
    if not value.flags.c_contiguous:
        return f"got {describe(value)} that is not contiguous; pass a copy: a kernel sees no strides"
    return None


def describe(value: Any) -> str:
    """Return in words what an argument is."""
    if isinstance(value, np.ndarray):
        return f"{'an Array' if isinstance(value, Array) else 'a NumPy array'} of {value.dtype} {value.shape}"
    if isinstance(value, np.generic):
        return f"np.{value.dtype}"
    return (
        f"a Python {type(value).__name__}" if type(value).__module__ == "builtins" else type(value).__name__
    )


def pointed_to(kernel: str, name: str, kind: str, array: Array) -> list[Region]:
    """Return the memory that a pointer leads to: an array, and of a table of pointers also their arrays."""
    start = array.ctypes.data
    regions = [Region(name, start, start + array.nbytes)]
    if kind.startswith("**"):
        for i, address in enumerate(array.reshape(-1).tolist()):
            size = bytes_at(address)
            if size is None and address:
                problem = f"element {i} is no address of a living array; take it with address()"
                raise TypeError(f"kernel {kernel}, {name}: {problem}")
            regions.append(Region(f"array {i} of {name}", address, address + (size or 0)))
    return regions


def merged(regions: list[Region]) -> list[tuple[int, int]]:
    """Return the regions as sorted (begin, end), those that overlap as one."""
    result: list[tuple[int, int]] = []
    for _, begin, end in sorted(regions, key=lambda region: region[1:]):
        if result and begin < result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        elif end > begin:
            result.append((begin, end))
    return result

"""Kernel arguments: checked against the kernel's parameters, and packed for C.

A GPU receives bytes and interprets them as the types that the kernel declares. CuPy passes a Python integer
as eight bytes where the kernel takes an `int` of four, and a float64 array where it takes a `float*`. There
is no error, only wrong numbers. Here every argument must have exactly the type that the kernel declares.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from minidl.cuda_on_cpu.array import Array, bytes_at


class Region(NamedTuple):
    """Memory that a kernel may access, and its name in error messages."""

    name: str
    begin: int
    end: int


def pack(kernel: str, parameters: list[str], types: list[str], args: tuple) -> tuple[bytes, list[Region]]:
    """Return the arguments, eight bytes each, and the memory that they point to.

    `types` are written as in export.h: "f4" is a float, "*f4" a pointer to floats. Raises TypeError for an
    argument that does not match its parameter.
    """
    if not isinstance(args, tuple | list):
        raise TypeError(f"kernel {kernel}: the arguments must be a tuple, got {describe(args)}")
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
            regions += accessible(kernel, name, kind, args[i - 1])
        packed += value.tobytes().ljust(8, b"\0")
    return packed, regions


def mismatch(kind: str, value: Any) -> str | None:
    """Return why an argument does not match a parameter of this kind, and what to pass, or None."""
    if "?" in kind:
        return "the emulator does not support this type; use numbers and pointers to numbers"
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
    """Return the kind of an argument in words."""
    if isinstance(value, np.ndarray):
        return f"{'an Array' if isinstance(value, Array) else 'a NumPy array'} of {value.dtype} {value.shape}"
    if isinstance(value, np.generic):
        return f"np.{value.dtype}"
    return (
        f"a Python {type(value).__name__}" if type(value).__module__ == "builtins" else type(value).__name__
    )


def accessible(kernel: str, name: str, kind: str, array: Array) -> list[Region]:
    """Return the memory that a pointer makes accessible; for a table of pointers, also their arrays."""
    start = array.ctypes.data
    regions = [Region(name, start, start + array.nbytes)]
    if kind.startswith("**"):
        for i, address in enumerate(array.reshape(-1).tolist()):
            size = bytes_at(address)
            if size is None and address:
                problem = f"element {i} is not the address of an existing array; get it by address()"
                raise TypeError(f"kernel {kernel}, {name}: {problem}")
            regions.append(Region(f"array {i} of {name}", address, address + (size or 0)))
    return regions


def merged(regions: list[Region]) -> list[tuple[int, int]]:
    """Return the regions as sorted (begin, end), with overlapping regions merged."""
    result: list[tuple[int, int]] = []
    for _, begin, end in sorted(regions, key=lambda region: region[1:]):
        if result and begin < result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        elif end > begin:
            result.append((begin, end))
    return result

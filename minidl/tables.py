"""Many arrays in one launch: tables by which a kernel finds element i of a list of arrays.

A launch takes microseconds, and a network has a hundred small arrays. The elements of all arrays are numbered
consecutively; those of array k are offsets[k] <= i < offsets[k + 1], and array k starts at the address in
element k of a table. `array_of` in common.cuh finds k.
"""

from __future__ import annotations

from itertools import accumulate

import numpy as np

from minidl.backend import Array, address, constant, device_of


def tables(like: Array, *lists: list[Array | None]) -> tuple[Array | int, ...]:
    """Return a table of addresses for each list, with 0 for None; the table of offsets; the number of arrays.

    The lists have equally many arrays, of the same shapes. Raises ValueError if the shapes of two lists
    differ, or if the dtype or the device of an array differs from that of `like`: a kernel would read beyond
    an array.
    """
    for arrays in zip(*lists, strict=True):
        kinds = {(a.shape, str(a.dtype), device_of(a)) for a in arrays if a is not None}
        if not kinds <= {(arrays[0].shape, str(like.dtype), device_of(like))}:
            raise ValueError(
                f"expected {like.dtype} on {device_of(like)}, each gradient of its parameter's shape, got "
                f"{sorted(kinds)}; convert or move a model before its optimizer is made"
            )
    addresses = [[0 if a is None else address(a) for a in arrays] for arrays in lists]
    offsets = [0, *accumulate(a.size for a in lists[0])]
    device = device_of(like)
    joined = constant(np.array(addresses, np.uint64), device)  # one copy to the device for all lists
    return *joined, constant(np.array(offsets, np.int32), device), len(lists[0])


def total(arrays: list[Array]) -> int:
    """Return the number of elements of all arrays."""
    return sum(a.size for a in arrays)

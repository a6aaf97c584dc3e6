"""Memory settings that make training faster: keep freed memory, in huge pages, and shorten NumPy's buffers.

A training step allocates and frees hundreds of large arrays. By default the C library returns the memory of
each to the operating system at once. The next array of the same size gets fresh pages, which the system must
find, fill with zeros and map, with one page fault each; this takes about half as much time as the rest of the
step. All steps allocate the same sizes, so the C library should keep freed memory for the next step.

A page has 4 KiB. A core remembers the physical addresses of some thousand pages and must look up all others.
For programs that ask, Linux has huge pages of 2 MiB. NumPy asks for them if an array has 4 MiB or more. The
arrays of a small network are smaller. But memory that is marked for huge pages stays marked when it is freed,
and small arrays can use it then.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

# From glibc's malloc.h. Arrays above the first threshold get fresh pages; it cannot exceed 32 MiB.
M_MMAP_THRESHOLD, LARGEST = -3, 32 << 20
M_TRIM_THRESHOLD, NEVER = -1, 2**31 - 1
RESERVED = 32, 16 << 20  # blocks and their bytes; below the first threshold
MADV_HUGEPAGE = 14  # from Linux's mman-common.h


def keep_freed_memory() -> bool:
    """Make the C library keep freed memory for this process; return whether it supports that.

    Only glibc, the C library of most Linux systems, has these settings; elsewhere nothing changes. The peak
    memory of the process stays the same, but it is not released between steps. Its first 512 MiB are marked
    for huge pages.
    """
    mallopt = _c_function("mallopt")
    kept = mallopt is not None and all(
        [mallopt(M_MMAP_THRESHOLD, LARGEST) == 1, mallopt(M_TRIM_THRESHOLD, NEVER) == 1]
    )
    if kept:
        mark_for_huge_pages()
    return kept


def mark_for_huge_pages() -> None:
    """Mark 512 MiB that the C library will use for arrays; they are not occupied before they are used.

    They take addresses, however, so where a process may have only so many, nothing is done.
    """
    import resource  # not on Windows

    malloc, free, madvise = map(_c_function, ("malloc", "free", "madvise"))
    if madvise is None or resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        return
    malloc.restype = ctypes.c_void_p
    count, size = RESERVED
    blocks = [address for address in (malloc(ctypes.c_size_t(size)) for _ in range(count)) if address]
    for address in blocks:
        page = -address % resource.getpagesize()  # from the block's start to its first whole page
        madvise(ctypes.c_void_p(address + page), ctypes.c_size_t(size - page), MADV_HUGEPAGE)
    for address in blocks:
        free(ctypes.c_void_p(address))


def release_freed_memory() -> bool:
    """Return freed memory to the operating system, once; return whether the C library supports that.

    For a program that has finished with large arrays and goes on with other objects, which do not fit into
    the gaps between the arrays that are left.
    """
    malloc_trim = _c_function("malloc_trim")
    return malloc_trim is not None and malloc_trim(0) == 1


def _c_function(name: str) -> Any:
    """Return a function of the C library; None where there is none of this name, as on most systems."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None


@contextlib.contextmanager
def short_buffers() -> Iterator[None]:
    """Shorten NumPy's buffers in this `with` block: broadcasting a number along a row is then faster.

    If a row is shorter than a buffer (8192 numbers by default), NumPy copies the operands into buffers first,
    and the copies take most of the time.
    """
    default = np.setbufsize(16)
    try:
        yield
    finally:
        np.setbufsize(default)

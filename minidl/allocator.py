"""Keeping freed memory, instead of giving it back to the system at every step.

A training step makes and drops hundreds of large arrays. The C library gives the memory of each back to the
system at once, and the next array of that size gets fresh pages, which the system must find, fill with
zeros and map, one page fault each: about half as much time again as the step itself needs. Every step asks
for the same sizes, so the C library had better keep what is freed for the next one.

One more setting of NumPy's memory is here, for the same reason: how it broadcasts a number along a row.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

import numpy as np

# From glibc's malloc.h. Arrays beyond the first limit are always mapped anew, and it can be no higher.
M_MMAP_THRESHOLD, LARGEST = -3, 32 << 20
M_TRIM_THRESHOLD, NEVER = -1, 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell the C library to keep freed memory for this process; return whether it understood.

    Only glibc, the C library of most Linux systems, has these settings; elsewhere nothing is changed. The
    peak is no higher, but between steps the process keeps what it once needed.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(
        [mallopt(M_MMAP_THRESHOLD, LARGEST) == 1, mallopt(M_TRIM_THRESHOLD, NEVER) == 1]
    )


@contextlib.contextmanager
def short_buffers() -> Iterator[None]:
    """Let NumPy, in this block, broadcast a number along a row without the copy, which takes longest.

    It copies operands into buffers, 8192 numbers long by default, where a row is shorter than a buffer.
    """
    usual = np.setbufsize(16)
    try:
        yield
    finally:
        np.setbufsize(usual)

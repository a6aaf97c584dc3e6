"""Keeping freed memory, instead of giving it back to the system at every step.

A training step makes and drops hundreds of large arrays. The C library gives the memory of each back to the
system at once, and the next array of that size gets fresh pages, which the system must find, fill with
zeros and map, one page fault each: about half as much time again as the step itself needs. Every step asks
for the same sizes, so the C library had better keep what is freed for the next one.
"""

from __future__ import annotations

import ctypes
import sys

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

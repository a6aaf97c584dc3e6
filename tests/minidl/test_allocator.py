"""The process keeps freed memory, in huge pages: the next array of the same size causes no page faults."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import resource
import numpy as np
from minidl.allocator import keep_freed_memory

def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        np.ones(3 << 20, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(keep_freed_memory())
faults(2)
print(faults(20))
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the setting exists only in Linux's C library"
)
def test_an_array_reuses_the_memory_of_the_one_before():
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    supported, faults = run.stdout.split()
    if supported == "False":
        pytest.skip("this C library is not glibc")
    assert int(faults) < 20  # 20 arrays of 768 pages each


HUGE_PAGES = """
import numpy as np
from minidl.allocator import keep_freed_memory

def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS"))

before = resident()
print(keep_freed_memory())
print(resident() - before)
array = np.empty(1 << 20, np.uint8)
marked = inside = False
for line in open("/proc/self/smaps"):
    first = line.split()[0]
    if "-" in first:
        begin, end = (int(address, 16) for address in first.split("-"))
        inside = begin <= array.ctypes.data + array.nbytes // 2 < end
    elif first == "VmFlags:" and inside:
        marked = "hg" in line.split()
print(marked)
"""


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="the system has no huge pages to ask for"
)
def test_small_arrays_are_in_memory_marked_for_huge_pages_which_is_not_occupied_yet():
    run = subprocess.run([sys.executable, "-c", HUGE_PAGES], capture_output=True, text=True, check=True)
    supported, occupied, marked = run.stdout.split()
    if supported == "False":
        pytest.skip("this C library is not glibc")
    assert marked == "True"
    assert int(occupied) < 8 << 10  # KiB, of 512 MiB

"""The process keeps freed memory: the next array of the same size causes no page faults."""

import subprocess
import sys

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

"""The most memory on the GPU that a training step takes, each framework in a process of its own.

    python -m benchmarks.gpu_memory cuda "PyTorch" 16 256 8,16,32,64

prints JSON, after three steps. Two numbers are told, and both are the frameworks' own doing:

- `arrays`: the most bytes that arrays had at a time, rounded up as the allocator does. CuPy's are counted
  by a hook at its allocator, PyTorch's by PyTorch (`torch.cuda.max_memory_allocated`).
- `device`: what the steps took away from the GPU's free memory (cudaMemGetInfo): the allocator's reserve,
  libraries' work space and the compiled kernels come on top. It is counted from after CUDA itself was
  started.

On a CPU there is only the first, from Python's tracemalloc, which sees NumPy's arrays and none of
PyTorch's.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.frameworks import OWN
from benchmarks.gpu_networks import draw, makers
from benchmarks.machine import ROOT

STEPS_BEFORE_PEAK = 3
TIMEOUT = 300.0  # seconds; compiling takes a minute or two


@contextmanager
def counted_by_cupy() -> Any:
    """Yield a function that tells the most bytes that CuPy's arrays had at a time inside this block."""
    from cupy.cuda import memory_hook

    class Count(memory_hook.MemoryHook):
        name = "Count"
        now = peak = 0

        def malloc_postprocess(self, **what: Any) -> None:
            self.now += what["mem_size"]
            self.peak = max(self.peak, self.now)

        def free_postprocess(self, **what: Any) -> None:
            self.now -= what["mem_size"]

    with Count() as count:
        yield lambda: count.peak


@contextmanager
def counted_by_torch() -> Any:
    """Yield a function that tells the most bytes that PyTorch's tensors had at a time."""
    import torch

    torch.cuda.reset_peak_memory_stats()
    yield torch.cuda.max_memory_allocated


@contextmanager
def counted_by_python() -> Any:
    """Yield a function that tells the most bytes that NumPy's arrays had at a time inside this block."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def free_memory(own: bool) -> int:
    """Return the GPU's free bytes, by the framework that is in use; starts CUDA."""
    if own:
        from cupy.cuda import runtime

        return runtime.memGetInfo()[0]
    import torch

    return torch.cuda.mem_get_info()[0]


def peak_here(
    device: str, name: str, batch: int, size: int, widths: tuple[int, ...]
) -> dict[str, int | None]:
    """Run some steps in this process and return its two peaks in bytes."""
    own, cuda = name.startswith(OWN), device == "cuda"
    before = free_memory(own) if cuda else 0
    counted = (counted_by_cupy if own else counted_by_torch) if cuda else counted_by_python
    with counted() as peak:
        network = makers(draw(widths, batch, size, np.random.default_rng(0)), device)[name]()
        for _ in range(STEPS_BEFORE_PEAK):
            float(network.step())
        return {"arrays": int(peak()), "device": before - free_memory(own) if cuda else None}


def peak(device: str, name: str, batch: int, size: int, widths: tuple[int, ...]) -> dict[str, Any]:
    """Do the same in a fresh process; the reason, in one line, where that fails."""
    command = [sys.executable, "-m", "benchmarks.gpu_memory", device, name, str(batch), str(size)]
    command.append(",".join(map(str, widths)))
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return {"failed": f"took more than {TIMEOUT:.0f} s"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    device, name, batch, size, widths = sys.argv[1:]
    print(json.dumps(peak_here(device, name, int(batch), int(size), tuple(map(int, widths.split(","))))))

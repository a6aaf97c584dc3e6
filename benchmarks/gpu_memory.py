"""The peak GPU memory of a training step, each framework in its own process.

    python -m benchmarks.gpu_memory cuda "PyTorch" 16 256 8,16,32,64

prints JSON after three steps, with two numbers:

- `arrays`: the peak of the bytes in arrays, rounded up as the allocator does. CuPy's are counted by a hook of
  its allocator, PyTorch's by PyTorch (`torch.cuda.max_memory_allocated`).
- `device`: the decrease of the GPU's free memory (cudaMemGetInfo) since CUDA was initialised. It includes the
  allocator's reserve, the workspaces of libraries and the compiled kernels.

On a CPU only `arrays` is measured, by Python's tracemalloc, which sees NumPy's arrays but not PyTorch's.
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
from benchmarks.gpu_networks import draw, network_factories
from benchmarks.machine import ROOT

STEPS_BEFORE_PEAK = 3
TIMEOUT = 300.0  # seconds; compilation takes a minute or two


@contextmanager
def cupy_peak() -> Any:
    """Yield a function that returns the peak bytes of CuPy's arrays inside this block."""
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
def torch_peak() -> Any:
    """Yield a function that returns the peak bytes of PyTorch's tensors inside this block."""
    import torch

    torch.cuda.reset_peak_memory_stats()
    yield torch.cuda.max_memory_allocated


@contextmanager
def numpy_peak() -> Any:
    """Yield a function that returns the peak bytes of NumPy's arrays inside this block."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def free_memory(own: bool) -> int:
    """Return the free bytes of the GPU, queried through the framework in use; this initialises CUDA."""
    if own:
        from cupy.cuda import runtime

        return runtime.memGetInfo()[0]
    import torch

    return torch.cuda.mem_get_info()[0]


def measure_peak(
    device: str, name: str, batch: int, size: int, widths: tuple[int, ...]
) -> dict[str, int | None]:
    """Run some steps in this process and return the two peaks in bytes."""
    own, cuda = name.startswith(OWN), device == "cuda"
    before = free_memory(own) if cuda else 0
    counter = (cupy_peak if own else torch_peak) if cuda else numpy_peak
    with counter() as peak:
        network = network_factories(draw(widths, batch, size, np.random.default_rng(0)), device)[name]()
        for _ in range(STEPS_BEFORE_PEAK):
            float(network.step())
        return {"arrays": int(peak()), "device": before - free_memory(own) if cuda else None}


def measure_peak_in_process(
    device: str, name: str, batch: int, size: int, widths: tuple[int, ...]
) -> dict[str, Any]:
    """Run `measure_peak` in a new process; if it fails, return the reason in one line."""
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
    print(json.dumps(measure_peak(device, name, int(batch), int(size), tuple(map(int, widths.split(","))))))

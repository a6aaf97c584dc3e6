"""Measurements that need their own process: the peak memory of a step, and the start-up time.

The peak memory of a process never falls, and one framework could reuse memory that another has freed. Each
framework is therefore measured in a new process. Run as a program, this file is that process:

    python -m benchmarks.processes 2 PyTorch train_step 4 128

The arguments are PyTorch's threads, the framework, the workload, and the shape: batch (channels) size. It
prints two numbers of bytes: the peak after all imports and the peak after three steps. The first is the cost
of the framework; the difference is the cost of the network.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

from benchmarks.frameworks import OWN, import_dezero, import_torch_reference, installed, set_torch_threads
from benchmarks.timing import Spread, interleave, ratios, spread

ROOT = Path(__file__).resolve().parents[1]
STEPS_BEFORE_PEAK = 3  # the first step also allocates the optimizer's state


def peak_bytes() -> int:
    """Return the peak physical memory of this process in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: on Linux its value is inherited from the parent process.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS


def measure_peak(torch_threads: int, framework: str, workload: str, shape: tuple[int, ...]) -> dict[str, int]:
    """Run three steps of a workload, `train_step` with shape (N, size) or `block` with (N, C, size)."""
    import numpy as np

    from benchmarks import blocks, networks
    from minidl.allocator import keep_freed_memory

    if framework == "PyTorch":
        import_torch_reference()
        set_torch_threads(torch_threads)
    elif framework == "DeZero":
        import_dezero()
    elif framework == "MyGrad":
        import mygrad.nnet  # noqa: F401
    else:
        keep_freed_memory()  # like the r2unet command
    imported = peak_bytes()
    inputs = {"block": blocks, "train_step": networks}[workload].draw(*shape, np.random.default_rng(0))
    step = (
        blocks.IMPLEMENTATIONS[framework](inputs)
        if workload == "block"
        else networks.IMPLEMENTATIONS[framework](inputs).step
    )
    for _ in range(STEPS_BEFORE_PEAK):
        step()
    return {"imported": imported, "peak": peak_bytes()}


def compare_peaks(
    torch_threads: int, frameworks: list[str], workload: str, shape: tuple[int, ...], repeats: int
) -> dict[str, dict[str, Spread]]:
    """Return each framework's peak memory in bytes, in total and above the imports, and our ratios."""
    absolute: dict[str, list[float]] = {name: [] for name in frameworks}
    above: dict[str, list[float]] = {name: [] for name in frameworks}
    for _ in range(repeats):
        for name in frameworks:
            command = [sys.executable, "-m", "benchmarks.processes", str(torch_threads), name, workload]
            measured = json.loads(_run([*command, *map(str, shape)]))
            absolute[name].append(measured["peak"])
            above[name].append(measured["peak"] - measured["imported"])
    return {
        "absolute": {name: spread(values) for name, values in absolute.items()},
        "above_import": {name: spread(values) for name, values in above.items()},
        "ratios": ratios(above, OWN),
    }


def measure_startup(repeats: int) -> dict[str, dict[str, Spread]]:
    """Return the seconds from start to end of a few short processes."""
    python = [sys.executable]
    commands = {
        "python": [*python, "-c", "pass"],
        "import numpy": [*python, "-c", "import numpy"],
        "import r2unet": [*python, "-c", "import r2unet"],
        "import r2unet.training.trainer": [*python, "-c", "import r2unet.training.trainer"],
        "r2unet --help": [*python, "-m", "r2unet.commands.main", "--help"],
    }
    if "PyTorch" in installed():
        commands["import torch"] = [*python, "-c", "import torch"]
    calls = {name: partial(_run, command) for name, command in commands.items()}
    return {"times": {name: spread(s) for name, s in interleave(calls, repeats).items()}}


def _run(command: list[str]) -> str:
    """Run a process in the root of the repository and return its output."""
    try:
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"{' '.join(command)} failed:\n{error.stderr}") from None


if __name__ == "__main__":
    threads, chosen, kind, *numbers = sys.argv[1:]
    print(json.dumps(measure_peak(int(threads), chosen, kind, tuple(map(int, numbers)))))

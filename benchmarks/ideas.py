"""What each idea brings: a training step with all of them, and with one taken away at a time.

    python -m benchmarks.ideas [--rounds N] [--size PIXELS] [--batch N]

Every row runs in a process of its own, since some ideas are settings of the whole process, and the rows take
turns, so that a machine that slows down slows all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

STEPS = 6  # timed in each process, after one that is not


def nothing() -> None:
    """Take no idea away."""


def by_im2col() -> None:
    """Convolve with the ninefold copy."""
    from minidl.ops import conv

    conv._method.set("im2col")


def whole_images() -> None:
    """Let bands of rows be as high as the image."""
    from minidl.ops import conv_rows

    conv_rows.BAND_PIXELS = 1 << 30


def usual_buffers() -> None:
    """Let NumPy copy numbers before it broadcasts them."""
    import numpy as np

    np.setbufsize = lambda size: size


def relu_apart() -> None:
    """Make ReLU a pass of its own."""
    from minidl import ops
    from minidl.nn import BatchNorm2d

    fused = BatchNorm2d.forward
    BatchNorm2d.forward = lambda norm, x, relu=False: ops.relu(fused(norm, x)) if relu else fused(norm, x)


def sums_anew() -> None:
    """Make a new array of every sum of gradients."""
    from minidl import tensor

    class Never(set):
        def __contains__(self, function: object) -> bool:
            return False

    tensor.set = Never


def two_threads() -> None:
    """Share every convolution between two threads."""
    from minidl.ops import conv_rows
    from minidl.threads import set_threads

    conv_rows.SHARED_WORK = 0
    set_threads(2)


IDEAS: dict[str, tuple[str, Callable[[], None]]] = {
    "all": ("all ideas", nothing),
    "memory": ("without keeping freed memory", nothing),
    "rows": ("with im2col for the row views", by_im2col),
    "bands": ("without bands of rows", whole_images),
    "fused": ("with ReLU apart from batch norm", relu_apart),
    "buffers": ("without short buffers", usual_buffers),
    "in place": ("without sums of gradients in place", sums_anew),
    "threads": ("with two threads of ours", two_threads),
    "blas": ("with two threads of BLAS", nothing),
}


def measure(idea: str, size: int, batch: int) -> float:
    """Return the median seconds of a training step with the idea taken away, or added."""
    import numpy as np

    from benchmarks import networks
    from minidl.allocator import keep_freed_memory

    if idea != "memory":
        keep_freed_memory()
    IDEAS[idea][1]()
    network = networks.OwnNetwork(networks.draw(batch, size, np.random.default_rng(0)))
    network.step()
    seconds = []
    for _ in range(STEPS):
        started = time.perf_counter()
        network.step()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def measured_apart(idea: str, size: int, batch: int) -> float:
    """Measure in a process of its own."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2" if idea == "blas" else "1"}
    command = [sys.executable, "-m", "benchmarks.ideas", "--idea", idea, f"--size={size}", f"--batch={batch}"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(run.stdout)


def rounds(count: int, size: int, batch: int) -> Iterator[dict[str, float]]:
    """Yield the seconds of every row, once a round."""
    for _ in range(count):
        yield {idea: measured_apart(idea, size, batch) for idea in IDEAS}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--idea", choices=IDEAS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.idea:
        print(measure(options.idea, options.size, options.batch))
        return
    results = list(rounds(options.rounds, options.size, options.batch))
    print(
        f"A training step at {options.size} x {options.size}, batch {options.batch}, {options.rounds} rounds."
    )
    print("\n| what | ms | beside all ideas |\n|---|---|---|")
    for idea, (what, _) in IDEAS.items():
        ms = [1e3 * r[idea] for r in results]
        ratios = [r[idea] / r["all"] for r in results]
        middle, least, most = statistics.median(ratios), min(ratios), max(ratios)
        print(f"| {what} | {statistics.median(ms):.0f} | {middle:.2f} [{least:.2f}, {most:.2f}] |")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()

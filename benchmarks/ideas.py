"""The gain of each optimisation: time a training step with all of them, and with one removed at a time.

    python -m benchmarks.ideas [--rounds N] [--size PIXELS] [--batch N]

Every row runs in its own process, because some optimisations are settings of the whole process. The rows take
turns, so a machine that slows down affects all of them.
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

STEPS = 6  # timed steps in each process, after one that is not timed
FOR_THE_WHOLE_PROCESS = contextlib.ExitStack()  # contexts that are never left


def no_change() -> None:
    """Remove no optimisation."""


def by_definitions() -> None:
    """Compute every operation by its definition."""
    from minidl.implementation import implementation

    FOR_THE_WHOLE_PROCESS.enter_context(implementation("definition"))


def by_im2col() -> None:
    """Convolve by im2col, which copies every pixel nine times."""
    from minidl.ops.conv import convolution

    FOR_THE_WHOLE_PROCESS.enter_context(convolution("im2col"))


def by_channel() -> None:
    """Convolve by three products of a whole band instead of one for each row."""
    from minidl.ops.conv import rows

    rows.product_by_row = lambda *numbers: False


def small_pages() -> None:
    """Ask for no huge pages."""
    from minidl import allocator

    allocator.mark_for_huge_pages = no_change


def no_bands() -> None:
    """Convolve whole images instead of bands of rows."""
    from minidl.ops.conv import rows

    rows.BAND_PIXELS = rows.STACK_BYTES = 1 << 30


def default_buffers() -> None:
    """Leave NumPy's buffer size unchanged, so that it copies numbers before it broadcasts them."""
    import numpy as np

    np.setbufsize = lambda size: size


def separate_relu() -> None:
    """Compute ReLU in a separate pass after batch norm."""
    from minidl import ops
    from minidl.nn import BatchNorm2d

    fused = BatchNorm2d.forward
    BatchNorm2d.forward = lambda norm, x, relu=False: ops.relu(fused(norm, x)) if relu else fused(norm, x)


def new_gradient_sums() -> None:
    """Allocate a new array for every sum of gradients."""
    from minidl import tensor

    class Never(set):
        def __contains__(self, function: object) -> bool:
            return False

    tensor.set = Never


def two_threads() -> None:
    """Divide every convolution between two threads of our own thread pool."""
    from minidl.ops.conv import rows
    from minidl.threads import set_threads

    rows.SHARED_WORK = 0
    set_threads(2)


IDEAS: dict[str, tuple[str, Callable[[], None]]] = {
    "all": ("all optimisations", no_change),
    "definitions": ("with the definition of every operation", by_definitions),
    "memory": ("without reuse of freed memory", no_change),
    "pages": ("without huge pages", small_pages),
    "rows": ("with im2col instead of row views", by_im2col),
    "products": ("with products of bands instead of rows", by_channel),
    "bands": ("without bands of rows that fit the cache", no_bands),
    "fused": ("with ReLU as a separate pass", separate_relu),
    "buffers": ("with NumPy's default buffer size", default_buffers),
    "in place": ("with gradient sums in new arrays", new_gradient_sums),
    "threads": ("with our thread pool, two threads", two_threads),
    "blas": ("with two BLAS threads", no_change),
}


def measure(idea: str, size: int, batch: int) -> float:
    """Return the median seconds of a training step after one change."""
    import numpy as np

    from benchmarks import networks
    from minidl.allocator import keep_freed_memory

    IDEAS[idea][1]()
    if idea != "memory":
        keep_freed_memory()
    network = networks.OwnNetwork(networks.draw(batch, size, np.random.default_rng(0)))
    network.step()
    seconds = []
    for _ in range(STEPS):
        started = time.perf_counter()
        network.step()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def measure_in_process(idea: str, size: int, batch: int) -> float:
    """Run `measure` in a new process."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2" if idea == "blas" else "1"}
    command = [sys.executable, "-m", "benchmarks.ideas", "--idea", idea, f"--size={size}", f"--batch={batch}"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(run.stdout)


def rounds(count: int, size: int, batch: int) -> Iterator[dict[str, float]]:
    """Yield the seconds of all rows, `count` times."""
    for _ in range(count):
        yield {idea: measure_in_process(idea, size, batch) for idea in IDEAS}


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
    print("\n| what | ms | ratio to all optimisations |\n|---|---|---|")
    for idea, (what, _) in IDEAS.items():
        ms = [1e3 * r[idea] for r in results]
        ratios = [r[idea] / r["all"] for r in results]
        median, minimum, maximum = statistics.median(ratios), min(ratios), max(ratios)
        print(f"| {what} | {statistics.median(ms):.0f} | {median:.2f} [{minimum:.2f}, {maximum:.2f}] |")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()

"""What data-parallel training costs here: the latency and the bandwidth of an Allreduce, and two steps.

    python -m benchmarks.links           between two processes on this machine, a minute
    python -m benchmarks.links --quick   without the large network

b bytes are added between two processes in the time T(b) = a + b / B. The latency a and the bandwidth B are
fitted to the measured times by least squares of the relative errors, because the times span five orders of
magnitude. The exchange is that of a step (`minidl.parallel`), with its own waiting. Docs/12-many-hands.md
computes from these numbers what more processes would gain.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.machine import describe
from benchmarks.networks import OwnNetwork, draw
from benchmarks.processes import ROOT
from benchmarks.report import machine, table
from benchmarks.timing import Spread, spread
from minidl.allocator import keep_freed_memory
from minidl.connect import connect
from minidl.launch import find_mpiexec
from minidl.parallel import Processes

SMALL, LARGE = (8, 16, 32, 64), (64, 128, 256, 512, 1024)  # widths: 153,000 and 39 million parameters
BATCH, SIZE = 4, 128
NUMBERS = (2, 16, 128, 1024, 8192, 65_536, 153_000, 524_288, 4_194_304, 39_000_000)  # float32, of 4 bytes
ROUNDS, ROUND_BYTES, MOST_IN_A_ROUND = 9, 4_000_000, 200
PROCESS = "--process"  # started by mpiexec


class Line(NamedTuple):
    """T(b) = latency + b / bandwidth."""

    latency: float  # seconds
    bandwidth: float  # bytes per second

    def seconds(self, size: float) -> float:
        """Return the time of an Allreduce of so many bytes."""
        return self.latency + size / self.bandwidth


def fit(sizes: Sequence[float], seconds: Sequence[float]) -> Line:
    """Fit the line to measured times: least squares of (a + b / B) / T - 1."""
    t = np.asarray(seconds, np.float64)
    columns = np.stack([1.0 / t, np.asarray(sizes, np.float64) / t], axis=1)  # (sizes, 2)
    latency, per_byte = np.linalg.lstsq(columns, np.ones(len(t)), rcond=None)[0]
    return Line(float(latency), float(1.0 / per_byte))


def time_allreduce(processes: Processes, numbers: int) -> list[float]:
    """Return the seconds of one Allreduce of float32 numbers, in several rounds of many in a row."""
    row, repeats = np.zeros(numbers, np.float32), 1 + min(MOST_IN_A_ROUND, ROUND_BYTES // (4 * numbers))
    seconds = []
    for _ in range(1 + ROUNDS):  # the first is not counted
        processes.wait()
        started = time.perf_counter()
        for _ in range(repeats):
            processes.sum(row)
        seconds.append((time.perf_counter() - started) / repeats)
    return seconds[1:]


def measure_link(count: int = 2, numbers: Sequence[int] = NUMBERS) -> dict[int, list[float]]:
    """Start `count` processes and return the seconds of an Allreduce by its number of bytes."""
    words = [find_mpiexec(), "-n", count, sys.executable, "-m", "benchmarks.links", PROCESS, *numbers]
    done = subprocess.run(list(map(str, words)), cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return {int(size): seconds for size, seconds in json.loads(done.stdout).items()}


def time_step(widths: tuple[int, ...], repeats: int) -> tuple[int, Spread]:
    """Return a network's number of parameters, and the seconds of its training step in one process."""
    network = OwnNetwork(draw(BATCH, SIZE, np.random.default_rng(0), widths))
    seconds = []
    for _ in range(1 + repeats):  # the first allocates
        started = time.perf_counter()
        network.step()
        seconds.append(time.perf_counter() - started)
    return sum(p.data.size for p in network.model.parameters()), spread(seconds[1:])


def report(times: dict[int, list[float]]) -> str:
    """Return the times of all sizes beside those of the fitted line."""
    spreads = {size: spread(seconds) for size, seconds in times.items()}
    line = fit(list(spreads), [s.median for s in spreads.values()])
    rows = [
        (f"{size:,}", *(f"{1e6 * t:,.1f}" for t in (*s, line.seconds(size)))) for size, s in spreads.items()
    ]
    head = ("bytes", "median, us", "minimum", "maximum", "fitted")
    return (
        f"{table(head, rows)}\n\nlatency {1e6 * line.latency:.1f} us, bandwidth "
        f"{1e-9 * line.bandwidth:.2f} GB/s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.links", description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="without the step of the large network")
    options = parser.parse_args()
    keep_freed_memory()  # like the r2unet command
    print(machine(describe(torch_threads=1)))
    print(f"\n### An Allreduce between two processes\n\n{report(measure_link())}", flush=True)
    print(f"\n### A training step of {BATCH} images of {SIZE} x {SIZE} in one process\n")
    for widths, repeats in ((SMALL, 5),) if options.quick else ((SMALL, 5), (LARGE, 2)):
        parameters, seconds = time_step(widths, repeats)
        print(
            f"{parameters:,} parameters: {seconds.median:.3f} s, "
            f"from {seconds.minimum:.3f} to {seconds.maximum:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    if PROCESS in sys.argv:
        here = connect()
        found = {4 * n: time_allreduce(here, n) for n in map(int, sys.argv[sys.argv.index(PROCESS) + 1 :])}
        if here.rank == 0:
            print(json.dumps(found))
        here.close()
    else:
        main()

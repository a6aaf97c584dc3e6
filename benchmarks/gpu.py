"""Compare this project with PyTorch on a GPU, and every kernel with the limits of the GPU, in one run.

    python -m benchmarks.gpu --json gpu.json --markdown gpu.md
    python -m benchmarks.gpu --quick --device cuda-on-cpu      without a GPU: test that the program runs

Measures forward, forward + backward and the whole training step, in float32 and with TF32 allowed. Before
anything is timed, all networks must compute the same numbers. A failure, such as torch.compile without a C
compiler, is reported, and the other measurements continue. Results are written after each part, so an
interrupted run keeps them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import gpu_report
from benchmarks.agreement import KINKED_TOLERANCE, TOLERANCE
from benchmarks.gpu_clock import clock_of, rounds, tf32
from benchmarks.gpu_kernels import measure, product_rate
from benchmarks.gpu_memory import measure_peak_in_process
from benchmarks.gpu_networks import (
    CALLS,
    COMPILED,
    EAGER,
    METHODS,
    Inputs,
    OwnNetwork,
    draw,
    network_factories,
)
from benchmarks.timing import ratios, spread
from minidl.backend import DEVICES, describe, problem_of
from r2unet.files import output_file

# widths, batch, size
CONFIGURATIONS = {"small": ((8, 16, 32, 64), 16, 256), "large": ((64, 128, 256, 512), 4, 256)}
QUICK = {"small": ((2, 3), 2, 4)}
TF32_TOLERANCE = 0.3  # ten bits of mantissa through forty layers: detects only gross errors
REPEATS = {"small": 30, "large": 10}
WARM_UP = 3  # rounds that are not timed
COMPILE_SECONDS = 100.0  # the remaining time needed to start torch.compile


class Benchmark:
    """One run: its device, plan and deadline, and its results so far."""

    def __init__(self, device: str, quick: bool, minutes: float, log: Callable[[str], None]) -> None:
        self.device, self.quick, self.log = device, quick, log
        self.clock, self.deadline = clock_of(device), time.monotonic() + 60.0 * minutes
        self.results: dict[str, Any] = {
            "device": describe(device),
            "quick": quick,
            "problems": [],
            "left_out": [],
        }

    def run(self) -> Iterator[dict[str, Any]]:
        """Run the parts in order; yield the results after each."""
        for name, part in self.parts():
            self.log(f"benchmark: {name} ...")
            try:
                self.results[name] = part()
            except Exception as error:  # from CUDA, CuPy or PyTorch; the other parts still run
                self.report_failure(name, error)
            yield self.results

    def parts(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Yield the name and the function of each part, the most important first."""
        configurations = QUICK if self.quick else CONFIGURATIONS
        yield "kernels", lambda: self.kernels(*configurations["small"])
        for name, plan in configurations.items():
            yield f"{name}, float32", lambda n=name, p=plan: self.compare(n, *p, allowed=False)
        for name, plan in configurations.items():
            yield f"{name}, memory", lambda p=plan: self.memory(*p)
        for name, plan in configurations.items():
            yield f"{name}, TF32", lambda n=name, p=plan: self.compare(n, *p, allowed=True)

    def report_failure(self, where: str, error: Exception, kind: str = "problems") -> None:
        """Record and log a failure in "problems", or in "left_out" if it is not an error of this project."""
        text = " ".join(str(error).split())[:300] or "no message"
        self.results[kind].append(f"{where}: {type(error).__name__}: {text}")
        self.log(f"benchmark: {self.results[kind][-1]}")

    def compare(
        self, name: str, widths: tuple[int, ...], batch: int, size: int, allowed: bool
    ) -> dict[str, Any]:
        """Time the three calls of every network that agrees with the first."""
        inputs = draw(widths, batch, size, np.random.default_rng(0))
        with tf32(allowed, self.device, torch=EAGER in network_factories(inputs, self.device)):
            networks, differences = self.agreeing_networks(name, inputs, allowed)
            seconds = {}
            for call in CALLS:
                # Compilation takes a minute. The forward pass alone would be compiled separately, so skip it.
                calls = {
                    n: getattr(w, call) for n, w in networks.items() if n != COMPILED or call != CALLS[0]
                }
                repeats = (2, 1) if self.quick else (REPEATS[name], WARM_UP)
                seconds[call] = rounds(calls, *repeats, self.clock)
        return {
            "widths": widths,
            "batch": batch,
            "size": size,
            "times": {call: {n: spread(s) for n, s in by_name.items()} for call, by_name in seconds.items()},
            "ratios": {
                call: {n: ratios(by_name, n) for n in METHODS if n in by_name}
                for call, by_name in seconds.items()
            },
            "differences": differences,
        }

    def agreeing_networks(
        self, name: str, inputs: Inputs, allowed: bool
    ) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
        """Create the networks; report and skip those that fail or compute different numbers."""
        networks, differences, reference = {}, {}, None
        for contender, make in network_factories(inputs, self.device).items():
            if contender == COMPILED and self.deadline - time.monotonic() < COMPILE_SECONDS:
                self.report_failure(
                    f"{name}, {contender}", TimeoutError("not enough time left to compile"), "left_out"
                )
                continue
            try:
                network = make()
                measured = network_results(network, compiled=contender == COMPILED)
            except Exception as error:  # a compiler may raise any exception
                kind = "left_out" if contender == COMPILED else "problems"
                self.report_failure(f"{name}, {contender}", error, kind)
                continue
            reference = reference or measured
            differences[contender] = {
                what: relative_difference(reference[what], measured[what]) for what in measured
            }
            limits = {"logits": TOLERANCE, "loss": TOLERANCE, "gradient": KINKED_TOLERANCE}
            wrong = [
                f"{what} differs by {error:.1e}"
                for what, error in differences[contender].items()
                if not error <= (TF32_TOLERANCE if allowed else limits[what])
            ]
            if wrong:
                self.report_failure(f"{name}, {contender}", ValueError(f"not timed: {', '.join(wrong)}"))
            else:
                networks[contender] = network
        return networks, differences

    def kernels(self, widths: tuple[int, ...], batch: int, size: int) -> dict[str, Any]:
        """Time every kernel of a training step, for each convolution algorithm."""
        inputs = draw(widths, batch, size, np.random.default_rng(0))
        steps = 1 if self.quick else 20
        measured: dict[str, Any] = {}
        for name in list(METHODS)[1:]:
            network = OwnNetwork(inputs, self.device, METHODS[name])
            measured[name] = measure(network.step, self.device, steps, self.quick)
        measured["product with TF32"] = product_rate(self.device, self.clock, self.quick, allowed=True)
        return measured

    def memory(self, widths: tuple[int, ...], batch: int, size: int) -> dict[str, Any]:
        """Measure the peak memory of each network in its own process; skip the compiled one to save time."""
        names = network_factories(draw((1,), 1, 2, np.random.default_rng(0)), self.device)
        return {
            n: measure_peak_in_process(self.device, n, batch, size, widths) for n in names if n != COMPILED
        }


def network_results(network: Any, compiled: bool) -> dict[str, np.ndarray]:
    """Return the loss and gradient of a new network, and its logits unless that would compile again."""
    measured = {} if compiled else {"logits": network.as_numpy(network.forward())}
    measured["loss"] = network.as_numpy(network.forward_backward())
    return measured | {"gradient": network.gradient()}


def relative_difference(a: np.ndarray, b: np.ndarray) -> float:
    """Return ||a - b|| / ||a||."""
    return float(np.linalg.norm(np.subtract(a, b, dtype=np.float64)) / np.linalg.norm(a))


def main(argv: list[str] | None = None) -> int:
    """Measure, write after each part, print the tables; return 1 if a part failed, 2 without the device."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.gpu", description="Compare this project with PyTorch on a GPU."
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements to FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables to FILE")
    parser.add_argument("--quick", action="store_true", help="small shapes, only to test that it runs")
    parser.add_argument("--device", choices=DEVICES, default="cuda", help="device to measure (default cuda)")
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="time limit: compile nothing later (default 10)"
    )
    options = parser.parse_args(argv)
    if problem := problem_of(options.device):
        print(f"benchmarks: error: {options.device}: {problem}", file=sys.stderr)
        return 2

    def log(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    text = ""
    for results in Benchmark(options.device, options.quick, options.minutes, log).run():
        text = gpu_report.as_markdown(results)
        for path, content in ((options.json, json.dumps(results, indent=2)), (options.markdown, text)):
            if path:
                with output_file(path) as file:
                    file.write(content.encode())
    print(text)
    return 1 if results["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())

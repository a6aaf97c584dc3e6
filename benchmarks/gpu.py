"""Compare this project with PyTorch on a GPU, and every kernel with the limits of the GPU, in one run.

    python -m benchmarks.gpu --json gpu.json --markdown gpu.md
    python -m benchmarks.gpu --quick --device cuda-on-cpu      without a GPU: test that the program runs

Measures the whole training step and the forward pass. Before anything is timed, all networks must compute the
same numbers. A failure, such as torch.compile without a C compiler, is reported, and the other measurements
continue. Before each measurement the program looks at its time limit, and reports what it has to leave out.
Results are written after each part, so an interrupted run keeps them. `gpu_networks.py` says which network to
compare with which.

    networks    the steps of all networks but compiled ones, at four sizes
    kernels     every kernel of a step
    memory      the peak memory of a step
    compiled    torch.compile in each of its two modes, which takes up to a minute or two
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import gpu_report
from benchmarks.agreement import KINKED_TOLERANCE, TOLERANCE
from benchmarks.frameworks import OWN
from benchmarks.gpu_clock import NO_TIME, clock_of, rounds
from benchmarks.gpu_kernels import measure, product_rate
from benchmarks.gpu_memory import measure_peak_in_process
from benchmarks.gpu_networks import (
    CALLS,
    COMPILED,
    COMPILED_GRAPH,
    GRAPH,
    METHODS,
    ROUNDED,
    SETTINGS,
    WITHOUT_FORWARD,
    Inputs,
    OwnNetwork,
    draw,
    network_factories,
)
from benchmarks.timing import ratios, spread
from minidl.backend import DEVICES, CaptureError, describe, problem_of
from r2unet.files import output_file
from r2unet.network.model import CHOICES

# widths, batch, size
CONFIGURATIONS = {
    "small": ((8, 16, 32, 64), 16, 256),
    "small images": ((8, 16, 32, 64), 4, 128),
    "medium": ((16, 32, 64, 128), 16, 256),
    "large": ((64, 128, 256, 512), 4, 256),
}
QUICK = {"small": ((2, 3), 2, 4)}
GROUPS = ("networks", "kernels", "memory", "compiled")  # of parts, the most important first
TF32_TOLERANCE = 0.3  # ten bits of mantissa through forty layers: detects only gross errors
REPEATS = {"small": 12, "small images": 8, "medium": 8, "large": 4}
WARM_UP = 2  # rounds that are not timed
COMPILE_SECONDS = 30.0  # the remaining time needed to start torch.compile
# The networks of this project beside which a compiled network is timed.
BESIDE_COMPILED = (f"{OWN}, direct", GRAPH)


class Benchmark:
    """One run: its device, plan and deadline, and its results so far."""

    def __init__(
        self,
        device: str,
        quick: bool,
        seconds: float,
        log: Callable[[str], None],
        groups: Sequence[str] = GROUPS,
        norm: str = SETTINGS.norm,
    ) -> None:
        self.device, self.quick, self.log, self.groups = device, quick, log, groups
        self.norm = norm  # of the network whose kernels are timed
        self.clock, self.deadline = clock_of(device), time.monotonic() + seconds
        self.results: dict[str, Any] = {
            "device": describe(device),
            "quick": quick,
            "problems": [],
            "left_out": [],
            "seconds": {},  # of each part
        }

    def run(self) -> Iterator[dict[str, Any]]:
        """Run the parts in order, as long as there is time; yield the results after each."""
        for name, part in self.parts():
            if not self.out_of_time(name):
                self.log(f"benchmark: {name} ...")
                started = time.monotonic()
                try:
                    self.results[name] = part()
                except Exception as error:  # from CUDA, CuPy or PyTorch; the other parts still run
                    self.report_failure(name, error)
                self.results["seconds"][name] = round(time.monotonic() - started, 1)
            yield self.results

    def out_of_time(self, what: str, needed: float = 0.0) -> bool:
        """Return whether fewer than `needed` seconds are left; if so, `what` is recorded as left out."""
        if self.deadline - time.monotonic() > needed:
            return False
        self.results["left_out"].append(f"{what}: {NO_TIME}")
        self.log(f"benchmark: {self.results['left_out'][-1]}")
        return True

    def parts(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Yield the name and the function of each part."""
        configurations = QUICK if self.quick else CONFIGURATIONS
        small = configurations["small"]
        parts = {
            "networks": [(n, lambda n=n, p=p: self.compare(n, *p)) for n, p in configurations.items()],
            "kernels": [("kernels", lambda: self.kernels(*small))],
            "memory": [
                (f"{n}, memory", lambda p=configurations[n]: self.memory(*p))
                for n in ("small", "large")
                if n in configurations
            ],
            # Each mode is a part: if the second takes too long, the results of the first are written.
            "compiled": [
                (f"small, {n}", lambda n=n: self.compare("small", *small, compiled=n))
                for n in (COMPILED, COMPILED_GRAPH)
            ],
        }
        for group in self.groups:
            yield from parts[group]

    def report_failure(self, where: str, error: Exception, kind: str = "problems") -> None:
        """Record and log a failure in "problems", or in "left_out" if it is not an error of this project."""
        text = " ".join(str(error).split())[:300] or "no message"
        self.results[kind].append(f"{where}: {type(error).__name__}: {text}")
        self.log(f"benchmark: {self.results[kind][-1]}")

    def compare(
        self, name: str, widths: tuple[int, ...], batch: int, size: int, compiled: str | None = None
    ) -> dict[str, Any]:
        """Time the calls of every network that agrees with the first.

        Either of all networks but compiled ones or of one that is `compiled`, beside our own.
        """
        if compiled and self.out_of_time(f"{name}, {compiled}", COMPILE_SECONDS):
            return {}
        inputs = draw(widths, batch, size, np.random.default_rng(0))
        others = [n for n in network_factories(inputs, self.device) if n not in (COMPILED, COMPILED_GRAPH)]
        names = [*BESIDE_COMPILED, compiled] if compiled else others
        networks, differences = self.agreeing_networks(name, inputs, names)
        seconds: dict[str, dict[str, list[float]]] = {}
        for call in CALLS:
            # What has been compiled, for a minute perhaps, is timed: that takes a second.
            if not compiled and self.out_of_time(f"{name}, {call}"):
                break
            calls = {
                n: getattr(w, call)
                for n, w in networks.items()
                if n not in WITHOUT_FORWARD or call != "forward"
            }
            repeats = (2, 1) if self.quick else (REPEATS[name], WARM_UP)
            seconds[call] = rounds(calls, *repeats, self.clock)
        return {
            "widths": widths,
            "batch": batch,
            "size": size,
            "times": {call: {n: spread(s) for n, s in by_name.items()} for call, by_name in seconds.items()},
            "ratios": {
                call: {n: ratios(by_name, n) for n in (*METHODS, GRAPH) if n in by_name}
                for call, by_name in seconds.items()
            },
            "differences": differences,
        }

    def agreeing_networks(
        self, name: str, inputs: Inputs, names: Sequence[str]
    ) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
        """Create the networks; report and skip those that fail or compute different numbers."""
        networks, differences, reference = {}, {}, None
        factories = network_factories(inputs, self.device)
        for contender in (n for n in names if n in factories):
            compiled = contender in (COMPILED, COMPILED_GRAPH)
            if self.out_of_time(f"{name}, {contender}"):
                continue
            try:
                network = factories[contender]()
                measured = network_results(network, forward=contender not in WITHOUT_FORWARD)
            except Exception as error:  # a compiler may raise any exception
                can_fail = compiled or isinstance(error, CaptureError)
                self.report_failure(f"{name}, {contender}", error, "left_out" if can_fail else "problems")
                continue
            reference = reference or measured
            differences[contender] = {
                what: relative_difference(reference[what], measured[what]) for what in measured
            }
            limits = {"logits": TOLERANCE, "loss": TOLERANCE, "gradient": KINKED_TOLERANCE}
            wrong = [
                f"{what} differs by {error:.1e}"
                for what, error in differences[contender].items()
                if not error <= (TF32_TOLERANCE if contender in ROUNDED else limits[what])
            ]
            if wrong:
                self.report_failure(f"{name}, {contender}", ValueError(f"not timed: {', '.join(wrong)}"))
            else:
                networks[contender] = network
        return networks, differences

    def kernels(self, widths: tuple[int, ...], batch: int, size: int) -> dict[str, Any]:
        """Time every kernel of a training step, for each convolution algorithm."""
        inputs = draw(widths, batch, size, np.random.default_rng(0), self.norm)
        turns = {"parts": 1, "repeats": 1} if self.quick else {}
        rate = product_rate(self.device, self.clock, self.quick, allowed=True)
        measured: dict[str, Any] = {"product with TF32": rate}
        for name in (f"{OWN}, direct", f"{OWN}, im2col"):
            if not self.out_of_time(f"kernels, {name}"):
                network = OwnNetwork(inputs, self.device, METHODS[name])
                measured[name] = measure(network.step, self.device, self.quick, **turns)
        return measured

    def memory(self, widths: tuple[int, ...], batch: int, size: int) -> dict[str, Any]:
        """Measure the peak memory of each network in its own process.

        To save time, not of compiled ones, nor of those whose arrays are as large as another one's.
        """
        names = network_factories(draw((1,), 1, 2, np.random.default_rng(0)), self.device)
        skipped = (COMPILED, COMPILED_GRAPH, *ROUNDED, f"{OWN}, direct")
        return {
            n: measure_peak_in_process(self.device, n, batch, size, widths)
            for n in names
            if n not in skipped and not self.out_of_time(f"memory of {widths}, {n}")
        }


def network_results(network: Any, forward: bool) -> dict[str, np.ndarray]:
    """Return the loss and the gradient of a new network and, if `forward`, its logits."""
    measured = {"logits": network.as_numpy(network.forward())} if forward else {}
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
        "--minutes", type=float, default=10.0, help="time limit: start nothing later (default 10)"
    )
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=GROUPS, help="run only these parts")
    parser.add_argument(
        "--norm",
        choices=CHOICES["norm"],
        default=SETTINGS.norm,
        help=f"norm of the network whose kernels are timed (default {SETTINGS.norm})",
    )
    options = parser.parse_args(argv)
    started = time.monotonic()
    if problem := problem_of(options.device):
        print(f"benchmarks: error: {options.device}: {problem}", file=sys.stderr)
        return 2

    def log(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    text = ""
    seconds = 60.0 * options.minutes - (time.monotonic() - started)  # the first use of a GPU takes seconds
    benchmark = Benchmark(options.device, options.quick, seconds, log, options.only, options.norm)
    for results in benchmark.run():
        text = gpu_report.as_markdown(results)
        for path, content in ((options.json, json.dumps(results, indent=2)), (options.markdown, text)):
            if path:
                with output_file(path) as file:
                    file.write(content.encode())
    print(text)
    return 1 if results["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())

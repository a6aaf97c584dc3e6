"""This project beside PyTorch on a GPU, in one run, and every kernel beside the GPU's own limits.

    python -m benchmarks.gpu --json gpu.json --markdown gpu.md
    python -m benchmarks.gpu --quick --device cuda-on-cpu      without a GPU: does it run?

Forward, forward + backward and the whole training step, in float32 and with TF32 allowed. Before anything
is timed, all must compute the same. What fails, as torch.compile does without a C compiler, is told and the
rest goes on. Results are written after each part, so that a run that is stopped leaves what it had.
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
from benchmarks.gpu_memory import peak
from benchmarks.gpu_networks import CALLS, COMPILED, EAGER, METHODS, Inputs, OwnNetwork, draw, makers
from benchmarks.timing import ratios, spread
from minidl.backend import DEVICES, describe, problem_of
from r2unet.files import output_file

# widths, batch, size
CONFIGURATIONS = {"small": ((8, 16, 32, 64), 16, 256), "large": ((64, 128, 256, 512), 4, 256)}
QUICK = {"small": ((2, 3), 2, 4)}
TF32_TOLERANCE = 0.3  # ten bits in each of forty layers: shows a gross mistake, and no more
REPEATS = {"small": 30, "large": 10}
WARM_UP = 3  # rounds that do not count
COMPILE_SECONDS = 100.0  # what must be left to begin compiling


class Benchmark:
    """One run: its device and plan, when it must end, and its results as they come."""

    def __init__(self, device: str, quick: bool, minutes: float, say: Callable[[str], None]) -> None:
        self.device, self.quick, self.say = device, quick, say
        self.clock, self.ends = clock_of(device), time.monotonic() + 60.0 * minutes
        self.results: dict[str, Any] = {
            "device": describe(device),
            "quick": quick,
            "problems": [],
            "left_out": [],
        }

    def run(self) -> Iterator[dict[str, Any]]:
        """Run the parts, each to its end; yield the results after each."""
        for name, part in self.parts():
            self.say(f"benchmark: {name} ...")
            try:
                self.results[name] = part()
            except Exception as fault:  # of many types: CUDA's, CuPy's, PyTorch's. The other parts go on
                self.problem(name, fault)
            yield self.results

    def parts(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Yield what is measured, in order; what matters most comes first."""
        configurations = QUICK if self.quick else CONFIGURATIONS
        yield "kernels", lambda: self.kernels(*configurations["small"])
        for name, plan in configurations.items():
            yield f"{name}, float32", lambda n=name, p=plan: self.compare(n, *p, allowed=False)
        for name, plan in configurations.items():
            yield f"{name}, memory", lambda p=plan: self.memory(*p)
        for name, plan in configurations.items():
            yield f"{name}, TF32", lambda n=name, p=plan: self.compare(n, *p, allowed=True)

    def problem(self, where: str, fault: Exception, kind: str = "problems") -> None:
        """Write down, and tell, what went wrong, or what was "left_out" through no fault of ours."""
        text = " ".join(str(fault).split())[:300] or "no message"
        self.results[kind].append(f"{where}: {type(fault).__name__}: {text}")
        self.say(f"benchmark: {self.results[kind][-1]}")

    def compare(
        self, name: str, widths: tuple[int, ...], batch: int, size: int, allowed: bool
    ) -> dict[str, Any]:
        """Time the three calls of every contender that computes what the others do."""
        inputs = draw(widths, batch, size, np.random.default_rng(0))
        with tf32(allowed, self.device, torch=EAGER in makers(inputs, self.device)):
            networks, differences = self.agreeing(name, inputs, allowed)
            seconds = {}
            for call in CALLS:
                # Compiling takes a minute, and once, for the step, is enough.
                calls = {
                    n: getattr(w, call) for n, w in networks.items() if n != COMPILED or call != CALLS[0]
                }
                often = (2, 1) if self.quick else (REPEATS[name], WARM_UP)
                seconds[call] = rounds(calls, *often, self.clock)
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

    def agreeing(
        self, name: str, inputs: Inputs, allowed: bool
    ) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
        """Make the contenders, and leave out, with a word, who fails or computes something else."""
        networks, differences, reference = {}, {}, None
        for contender, make in makers(inputs, self.device).items():
            if contender == COMPILED and self.ends - time.monotonic() < COMPILE_SECONDS:
                self.problem(f"{name}, {contender}", TimeoutError("too little time to compile"), "left_out")
                continue
            try:
                network = make()
                found = network_numbers(network, compiled=contender == COMPILED)
            except Exception as fault:  # whatever a compiler may raise
                kind = "left_out" if contender == COMPILED else "problems"
                self.problem(f"{name}, {contender}", fault, kind)
                continue
            reference = reference or found
            differences[contender] = {what: difference(reference[what], found[what]) for what in found}
            limits = {"logits": TOLERANCE, "loss": TOLERANCE, "gradient": KINKED_TOLERANCE}
            wrong = [
                f"{what} differs by {error:.1e}"
                for what, error in differences[contender].items()
                if not error <= (TF32_TOLERANCE if allowed else limits[what])
            ]
            if wrong:
                self.problem(f"{name}, {contender}", ValueError(f"not timed: {', '.join(wrong)}"))
            else:
                networks[contender] = network
        return networks, differences

    def kernels(self, widths: tuple[int, ...], batch: int, size: int) -> dict[str, Any]:
        """Time every kernel of a training step, for each way to convolve."""
        inputs = draw(widths, batch, size, np.random.default_rng(0))
        steps = 1 if self.quick else 20
        found: dict[str, Any] = {}
        for name in list(METHODS)[1:]:
            network = OwnNetwork(inputs, self.device, METHODS[name])
            found[name] = measure(network.step, self.device, steps, self.quick)
        found["product with TF32"] = product_rate(self.device, self.clock, self.quick, allowed=True)
        return found

    def memory(self, widths: tuple[int, ...], batch: int, size: int) -> dict[str, Any]:
        """Measure the peaks, each contender in a process of its own; not the compiled one, for the time."""
        names = makers(draw((1,), 1, 2, np.random.default_rng(0)), self.device)
        return {n: peak(self.device, n, batch, size, widths) for n in names if n != COMPILED}


def network_numbers(network: Any, compiled: bool) -> dict[str, np.ndarray]:
    """Return a fresh network's loss and gradient, and its logits, which would be one more to compile."""
    found = {} if compiled else {"logits": network.as_numpy(network.forward())}
    found["loss"] = network.as_numpy(network.forward_backward())
    return found | {"gradient": network.gradient()}


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Return the length of the difference, as a share of the length of a."""
    return float(np.linalg.norm(np.subtract(a, b, dtype=np.float64)) / np.linalg.norm(a))


def main(argv: list[str] | None = None) -> int:
    """Measure, write after each part, print the table; 1 if anything failed, 2 without the device."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu", description="Compare with PyTorch on a GPU.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements here")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables here")
    parser.add_argument("--quick", action="store_true", help="shapes too small to tell, to see that it runs")
    parser.add_argument("--device", choices=DEVICES, default="cuda", help="(default cuda)")
    parser.add_argument("--minutes", type=float, default=10.0, help="compile nothing after (default 10)")
    options = parser.parse_args(argv)
    if problem := problem_of(options.device):
        print(f"benchmarks: error: {options.device}: {problem}", file=sys.stderr)
        return 2

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    text = ""
    for results in Benchmark(options.device, options.quick, options.minutes, say).run():
        text = gpu_report.as_markdown(results)
        for path, content in ((options.json, json.dumps(results, indent=2)), (options.markdown, text)):
            if path:
                with output_file(path) as file:
                    file.write(content.encode())
    print(text)
    return 1 if results["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())

"""Run all checks that need a GPU: `make gpu-check`.

    tests        the tests of every operation on the GPU
    gradients    the table of `python -m minidl.gradcheck`, on the GPU
    agreement    every number of one training step of the whole network, compared with the CPU
    training     200 steps on generated lesions, compared with the CPU
    benchmark    comparison with PyTorch, and of every kernel with the limits of the GPU (`gpu.py`)

Each part runs in its own process, because a failing kernel makes the GPU unusable for its whole process. If a
part fails or takes too long, that is reported and the other parts still run. After each part a JSON file and
a Markdown page, named after the GPU, are rewritten in docs/gpu or --out. The exit code is 0 if all parts
passed, 1 if any failed, and 2 if CUDA does not work.

It needs no network and installs nothing: it uses the packages of the Python that runs it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

if not __package__:  # run as a file: Python would search for modules in this folder, not in the repository
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.frameworks import versions
from benchmarks.machine import ROOT, describe
from benchmarks.report import table
from minidl import backend
from r2unet.files import output_file

MINUTES = 9.5
TITLES = {
    "tests": "Tests of the operations",
    "gradients": "Gradient checks",
    "agreement": "One training step compared with the CPU",
    "training": "Training on generated lesions",
    "benchmark": "Benchmark",
}


class ProcessResult(NamedTuple):
    """The exit code of a process (None if it took too long) and what it printed."""

    code: int | None
    output: str
    errors: str


class Checker:
    """One run of the parts, and its results so far."""

    def __init__(self, device: str, quick: bool, out: Path, minutes: float) -> None:
        self.device, self.quick, self.out = device, quick, out
        self.deadline = time.monotonic() + 60.0 * minutes
        self.results: dict[str, Any] = {"machine": machine(device), "quick": quick, "parts": {}}

    def run(self, names: list[str]) -> bool:
        """Run the parts, write the results after each, and return whether all passed."""
        for name in names:
            print(f"{TITLES[name]} ...", file=sys.stderr, flush=True)
            started = time.monotonic()
            try:
                part = PARTS[name](self)
            except Exception as error:  # such as unreadable output of a part; the other parts still run
                part = {"passed": False, "problem": f"{type(error).__name__}: {error}"}
            part["seconds_in_all"] = round(time.monotonic() - started, 1)
            self.results["parts"][name] = part
            self.write()
            verdict = "passed" if part["passed"] else "FAILED"
            print(f"{TITLES[name]}: {verdict}, {part['seconds_in_all']:.0f} s", file=sys.stderr, flush=True)
        return all(part["passed"] for part in self.results["parts"].values())

    def process(self, *arguments: str, limit: float, **environment: str) -> ProcessResult:
        """Run `python ARGUMENTS` in the repository, at most until `limit` seconds or the deadline."""
        seconds = max(1.0, min(limit, self.deadline - time.monotonic()))
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment}
        options: dict[str, Any] = {"cwd": ROOT, "env": environment, "text": True}
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
            try:
                code = subprocess.run(
                    [sys.executable, *arguments], stdout=output, stderr=errors, timeout=seconds, **options
                ).returncode
            except subprocess.TimeoutExpired:
                code = None
            texts = []
            for file in (output, errors):
                file.seek(0)
                texts.append(file.read())
        if code is None:
            texts[1] += f"\ntook more than {seconds:.0f} s"
        return ProcessResult(code, *texts)

    def write(self) -> None:
        """Write the JSON file and the Markdown page, atomically."""
        name = re.sub(r"[^A-Za-z0-9]+", "-", self.results["machine"]["device"]).strip("-").lower()
        for suffix, text in (
            (".json", json.dumps(self.results, indent=1)),
            (".md", as_markdown(self.results) + "\n"),
        ):
            with output_file(self.out / f"{name}{suffix}") as file:
                file.write(text.encode())


def machine(device: str) -> dict[str, Any]:
    """Return a description of the machine."""
    results = {
        "device": re.sub(r"^cuda \((.*)\)$", r"\1", backend.describe(device)).partition(" (")[0],
        "date": datetime.date.today().isoformat(),
        **{k: v for k, v in describe(torch_threads=0).items() if k not in ("threads", "load", "frameworks")},
        "torch": versions()["PyTorch"],
    }
    if device == "cuda":
        import cupy
        from cupy.cuda import runtime

        driver = Path("/proc/driver/nvidia/version")
        match = re.search(r"\d+\.\d+(\.\d+)?", driver.read_text()) if driver.exists() else None
        results |= {
            "cupy": cupy.__version__,
            "driver": match[0] if match else None,
            "cuda_of_driver": runtime.driverGetVersion(),
            "cuda_runtime": runtime.runtimeGetVersion(),
        }
    return results


def last_lines(text: str, count: int = 12) -> str:
    return "\n".join(text.strip().splitlines()[-count:])


def run_tests(checker: Checker) -> dict[str, Any]:
    """Run the tests on the device; they fail, rather than skip, if the device does not work."""
    chosen = ["tests/minidl/ops/test_activation.py"] if checker.quick else ["tests"]
    arguments = ["-m", "pytest", *chosen, "--device", checker.device, "-q", "-rfE", "--tb=short"]
    done = checker.process(*arguments, "-p", "no:cacheprovider", limit=200.0)
    counts = re.findall(r"(\d+) (passed|failed|errors?|skipped)", done.output.strip().rpartition("\n")[2])
    results: dict[str, Any] = {word.rstrip("s"): int(number) for number, word in counts}
    results["passed_tests"] = results.pop("passed", 0)
    ok = done.code == 0 and results["passed_tests"] > 0
    problem = {} if ok else {"problem": last_lines(done.output + done.errors, 40)}
    return {**results, "passed": ok, **problem}


def run_gradients(checker: Checker) -> dict[str, Any]:
    """Check every derivative on the device."""
    if checker.quick:
        return {"passed": True, "rows": [], "note": "skipped in a quick run"}
    program = "r2unet.network.gradient_checks"  # minidl.gradcheck and the networks, without an installation
    done = checker.process("-m", program, "--json", "--device", checker.device, limit=120.0)
    return from_json(done)


def run_agreement(checker: Checker, part: str = "step", limit: float = 90.0) -> dict[str, Any]:
    """Compare one part of `gpu_agreement.py` with the CPU."""
    arguments = ["-m", "benchmarks.gpu_agreement", checker.device, part]
    return from_json(checker.process(*arguments, *(["--quick"] * checker.quick), limit=limit))


def run_training(checker: Checker) -> dict[str, Any]:
    """Train on the device and compare with the CPU."""
    return run_agreement(checker, "training", limit=120.0)


def run_benchmark(checker: Checker) -> dict[str, Any]:
    """Run the benchmark; if it takes too long, keep the measurements so far."""
    left = checker.deadline - time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        files = {"json": Path(folder, "gpu.json"), "markdown": Path(folder, "gpu.md")}
        arguments = ["-m", "benchmarks.gpu", "--device", checker.device, "--minutes", f"{left / 60.0:.2f}"]
        for name, path in files.items():
            arguments += [f"--{name}", str(path)]
        done = checker.process(*arguments, *(["--quick"] * checker.quick), limit=left)
        texts = {name: path.read_text() for name, path in files.items() if path.exists()}
    problem = {} if done.code == 0 else {"problem": last_lines(done.errors, 4)}
    measured = json.loads(texts.get("json", "{}"))
    return {"passed": done.code == 0, "measured": measured, "markdown": texts.get("markdown", ""), **problem}


def from_json(done: ProcessResult) -> dict[str, Any]:
    """Return the JSON that a process printed or, if there is none, its last lines as the problem."""
    try:
        return json.loads(done.output[done.output.index("{") :])
    except ValueError:
        return {"passed": False, "problem": last_lines(done.output + done.errors)}


PARTS: dict[str, Callable[[Checker], dict[str, Any]]] = {
    "tests": run_tests,
    "gradients": run_gradients,
    "agreement": run_agreement,
    "training": run_training,
    "benchmark": run_benchmark,
}


def as_markdown(results: Mapping[str, Any]) -> str:
    """Return the page: the machine, a table with the result of each part, and the details of each part."""
    parts = results["parts"]
    head = "; ".join(f"{name} {value}" for name, value in results["machine"].items() if value)
    rows_of_parts = [
        (
            TITLES[name],
            "passed" if part["passed"] else "**failed**",
            f"{part['seconds_in_all']:.0f}",
            summary_of(part),
        )
        for name, part in parts.items()
    ]
    page = [f"# Results on {results['machine']['device']}", f"Written by `make gpu-check`. {head}."]
    if results["quick"]:
        page.append("**A quick run on tiny shapes, which only shows that the program runs.**")
    page.append(table(("part", "result", "s", "details"), rows_of_parts))
    for name, part in parts.items():
        if rows := part.get("checks") or part.get("rows"):
            numbers = [
                (
                    r["name"],
                    "" if r["error"] is None else f"{r['error']:.1e}",
                    f"{r['tolerance']:.0e}",
                    result_of(r),
                )
                for r in rows
            ]
            page += [f"## {TITLES[name]}", table(("what", "error", "tolerance", ""), numbers)]
        if part.get("markdown"):
            page += [f"## {TITLES[name]}", part["markdown"].strip()]
        if "problem" in part:
            page += [f"## {TITLES[name]}: failure", f"```text\n{part['problem']}\n```"]
    return "\n\n".join(page)


def result_of(row: Mapping[str, Any]) -> str:
    return "" if row["passed"] else "**failed**"


def summary_of(part: Mapping[str, Any]) -> str:
    """Return a one-line summary of a part."""
    if "passed_tests" in part:
        others = ("failed", "error", "skipped")
        rest = "".join(f", {part[what]} {what}" for what in others if part.get(what))
        return f"{part['passed_tests']} passed{rest}"
    if "losses" in part:
        losses, dice = part["losses"], part["validation"]["dice"]
        return (
            f"{part['steps']} steps in {part['seconds']:.1f} s; loss {losses[0]:.3f} to {losses[-1]:.3f}; "
            f"mean Dice {dice:.3f} on new lesions"
        )
    rows = part.get("checks") or part.get("rows") or []
    return f"{sum(r['passed'] for r in rows)} of {len(rows)} agree" if rows else part.get("note", "")


def main(argv: list[str] | None = None) -> int:
    """Run the parts and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.gpu_check", description="Run all checks that need a GPU."
    )
    parser.add_argument(
        "--device", choices=backend.DEVICES, default="cuda", help="device to check (default cuda)"
    )
    parser.add_argument("--quick", action="store_true", help="tiny shapes, only to test that it runs")
    parser.add_argument(
        "--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="run only these parts"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "docs" / "gpu", help="folder for the results (default docs/gpu)"
    )
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help=f"time limit of the run (default {MINUTES})"
    )
    options = parser.parse_args(argv)
    if problem := backend.problem_of(options.device):
        print(f"gpu-check: error: {options.device}: {problem}", file=sys.stderr)
        return 2
    checker = Checker(options.device, options.quick, options.out, options.minutes)
    return 0 if checker.run(options.only) else 1


if __name__ == "__main__":
    sys.exit(main())

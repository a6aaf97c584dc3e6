"""Run all checks that need a GPU, in five minutes: `make gpu-check`.

    tests        the tests of every operation on the GPU, in parallel processes
    agreement    every number of one training step of the whole network, compared with the CPU
    gradients    the table of `python -m minidl.gradcheck`, on the GPU
    training     200 steps on generated lesions, compared with the CPU
    networks     the time of a training step, compared with PyTorch (`gpu.py`)
    kernels      every kernel of a step, compared with the limits of the GPU
    real         if ISIC_ROOT is set: a minute of training on ISIC 2017; seconds an epoch, and Jaccard
    memory       the memory of a step, compared with PyTorch
    compiled     PyTorch compiled by torch.compile, which needs a minute or two before it can be timed

The parts that time nothing (NOT_TIMED) run at the same time, before the others, which have the machine to
themselves. The most important parts come first, and each has a time limit (SECONDS). If the time runs out,
the parts and the measurements that are left are reported as not run, and are no failure. Each part runs in
its own process, because a failing kernel makes the GPU unusable for its whole process. If a part fails or
takes too long, that is reported and the other parts still run; nothing that it started runs on. After each
part a JSON file and a Markdown page, named after the GPU, are rewritten in docs/gpu or --out. The exit code
is 0 if all parts passed, 1 if any failed, 2 if CUDA does not work, and 130 after Ctrl-C.

It needs no network and installs nothing: it uses the packages of the Python that runs it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Event, Lock
from typing import Any, NamedTuple

if not __package__:  # run as a file: Python would search for modules in this folder, not in the repository
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.frameworks import versions
from benchmarks.gpu_check_page import TITLES, as_markdown
from benchmarks.gpu_clock import NO_TIME
from benchmarks.machine import ROOT, describe
from benchmarks.process_group import run_group
from minidl import backend
from r2unet.files import output_file
from r2unet.training.interruption import stop_signals

MINUTES = 5.0
# The time limit of each part; what a part leaves is left to the parts after it. Needed on an H200, as
# reckoned from an earlier run: the first four together 25 s; `networks` 65 to 80 s, of which the timed calls
# are 17 s (a step and a forward pass of all networks take 0.26 to 0.64 s, in six to fourteen rounds) and most
# of the rest is PyTorch, which searches for the fastest algorithms, with and without TF32, at four sizes;
# `kernels` 20 s, of which 64 steps, each after 0.15 s of waiting, are 12 s; `real` 72 s, of which the
# training is 60 s, less if large photographs take long to read; `memory` 34 s, eight processes of 4 s. This
# leaves 70 to 85 s for `compiled`, which comes last and needs 60 to 90 s: its second mode may be left out.
SECONDS = {
    "tests": 75.0,
    "agreement": 75.0,
    "gradients": 75.0,
    "training": 75.0,
    "networks": 100.0,
    "kernels": 40.0,
    "real": 100.0,
    "memory": 55.0,
    "compiled": 300.0,
}
NOT_TIMED = ("tests", "agreement", "gradients", "training")
LEAST_SECONDS = 5.0  # a part with less time is not started
# Seconds from the time when a part starts no other measurement to its time limit. In `networks`, PyTorch's
# search for its fastest algorithms at one size may take 8 s.
MARGIN, NETWORKS_MARGIN = 10.0, 15.0
TRAINING_SECONDS = 60.0  # of training on ISIC 2017, without reading the images
MOST_PROCESSES = 8  # for the tests: they share one GPU
NOT_RUN = {"passed": True, "note": f"not run: {NO_TIME}"}
NO_TESTS = 5  # pytest's exit code if none of the files has a test for the device


class ProcessResult(NamedTuple):
    """The exit code of a process (None if it took too long) and what it printed."""

    code: int | None
    output: str
    errors: str


class Checker:
    """One run of the parts, and its results so far."""

    def __init__(self, device: str, quick: bool, out: Path, seconds: float) -> None:
        self.device, self.quick, self.out = device, quick, out
        self.quick_option = ["--quick"] if quick else []
        self.deadline = time.monotonic() + seconds
        self.results: dict[str, Any] = {"machine": machine(device), "quick": quick, "parts": {}}
        self.writing = Lock()  # several parts may end at the same time
        self.stopped = Event()  # by Ctrl-C: no part may run on

    def run(self, names: list[str]) -> bool:
        """Run the parts, write the results after each, and return whether all passed."""
        together = [name for name in names if name in NOT_TIMED]
        with ThreadPoolExecutor(len(together) or 1) as pool:
            try:
                list(pool.map(self.run_part, together))
            except KeyboardInterrupt:
                self.stopped.set()  # before the pool waits for its threads
                raise
        for name in names:
            if name not in together:
                self.run_part(name)
        return all(part["passed"] for part in self.results["parts"].values())

    def run_part(self, name: str) -> None:
        """Run one part, and write the results so far."""
        print(f"{TITLES[name]} ...", file=sys.stderr, flush=True)
        started = time.monotonic()
        try:
            part = PARTS[name](self) if self.seconds_left() > LEAST_SECONDS else NOT_RUN
        except Exception as error:  # such as unreadable output of a part; the other parts still run
            part = {"passed": False, "problem": f"{type(error).__name__}: {error}"}
        part = {**part, "seconds_in_all": round(time.monotonic() - started, 1)}
        with self.writing:
            done = {**self.results["parts"], name: part}
            self.results["parts"] = {n: done[n] for n in PARTS if n in done}
            self.write()
        verdict = "passed" if part["passed"] else "FAILED"
        print(f"{TITLES[name]}: {verdict}, {part['seconds_in_all']:.0f} s", file=sys.stderr, flush=True)

    def seconds_left(self) -> float:
        """Return the time until the deadline, in seconds."""
        return self.deadline - time.monotonic()

    def limit(self, name: str) -> float:
        """Return the seconds that a part may take; in a quick run, without a GPU, up to the deadline."""
        return self.seconds_left() if self.quick else min(SECONDS[name], self.seconds_left())

    def process(self, *arguments: str, limit: float, **environment: str) -> ProcessResult:
        """Run `python ARGUMENTS` in the repository, at most until `limit` seconds or the deadline.

        Then every process that it has started is ended, too.
        """
        seconds = max(1.0, min(limit, self.seconds_left()))
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment}
        options: dict[str, Any] = {"cwd": ROOT, "env": environment}
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
            command = [sys.executable, *arguments]
            code = run_group(command, seconds, self.stopped, stdout=output, stderr=errors, **options)
            if self.stopped.is_set():
                raise KeyboardInterrupt
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
    """Run the tests on the device in several processes, each with some of the files.

    They fail, rather than skip, if the device does not work.
    """
    files = sorted((ROOT / "tests").rglob("test_*.py"), key=lambda file: -file.stat().st_size)
    processes = min(MOST_PROCESSES, os.cpu_count() or 1)
    if checker.quick:
        files, processes = (
            [ROOT / "tests" / "minidl" / "ops" / f"test_{n}.py" for n in ("activation", "upsample")],
            2,
        )
    options = ["--device", checker.device, "-q", "-rfE", "--tb=short", "-p", "no:cacheprovider"]

    def run(number: int) -> ProcessResult:
        chosen = sorted(str(file.relative_to(ROOT)) for file in files[number::processes])
        return checker.process("-m", "pytest", *chosen, *options, limit=checker.limit("tests"))

    with ThreadPoolExecutor(processes) as pool:
        return test_results(list(pool.map(run, range(processes))))


def test_results(done: list[ProcessResult]) -> dict[str, Any]:
    """Return the sums of the tests that passed, failed and so on in several runs of pytest."""
    results: dict[str, Any] = {"passed_tests": 0, "processes": len(done)}
    for each in done:
        counts = re.findall(r"(\d+) (passed|failed|errors?|skipped)", each.output.strip().rpartition("\n")[2])
        for number, word in counts:
            name = "passed_tests" if word == "passed" else word.rstrip("s")
            results[name] = results.get(name, 0) + int(number)
    failed = [each for each in done if each.code not in (0, NO_TESTS)]
    ok = not failed and results["passed_tests"] > 0
    text = "\n".join(failures(each) for each in failed or done)
    return {**results, "passed": ok, **({} if ok else {"problem": text})}


def failures(done: ProcessResult, most: int = 30) -> str:
    """Return pytest's lines about failed tests, at most `most`, after the details of the first of them.

    The first failure may be the cause of all others: a kernel that fails makes the GPU unusable.
    """
    lines = done.output.splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    first = next((i for i, line in enumerate(lines) if " FAILURES " in line or " ERRORS " in line), 0)
    return (
        "\n".join([*lines[first : first + most], "...", *failed[:most]])
        if failed
        else last_lines(done.output + done.errors, most)
    )


def run_gradients(checker: Checker) -> dict[str, Any]:
    """Check every derivative on the device."""
    if checker.quick:
        return {"passed": True, "rows": [], "note": "skipped in a quick run"}
    program = "r2unet.network.gradient_checks"  # minidl.gradcheck and the networks, without an installation
    done = checker.process(
        "-m", program, "--json", "--device", checker.device, limit=checker.limit("gradients")
    )
    return from_json(done)


def run_agreement(checker: Checker) -> dict[str, Any]:
    """Compare one step with the CPU."""
    arguments = ["-m", "benchmarks.gpu_agreement", checker.device, "step", *checker.quick_option]
    return from_json(checker.process(*arguments, limit=checker.limit("agreement")))


def run_training(checker: Checker) -> dict[str, Any]:
    """Train on the device and compare with the CPU."""
    arguments = ["-m", "benchmarks.gpu_agreement", checker.device, "training", *checker.quick_option]
    return from_json(checker.process(*arguments, limit=checker.limit("training")))


def run_real(checker: Checker) -> dict[str, Any]:
    """Train on ISIC 2017 for a minute, if ISIC_ROOT is its folder."""
    root = os.environ.get("ISIC_ROOT")
    if not root:
        return {"passed": True, "note": "not run: set ISIC_ROOT to the folder of ISIC 2017"}
    limit = checker.limit("real")
    arguments = ["-m", "benchmarks.gpu_training", root, "--device", checker.device]
    arguments += ["--seconds", f"{TRAINING_SECONDS:.0f}", "--limit", f"{limit - MARGIN:.0f}"]
    return from_json(checker.process(*arguments, *checker.quick_option, limit=limit))


def run_benchmark(checker: Checker, group: str) -> dict[str, Any]:
    """Run a group of parts of the benchmark; if it takes too long, keep the measurements so far.

    The benchmark starts no measurement in the last seconds (MARGIN), so that it ends by itself.
    """
    seconds = checker.limit(group)
    with tempfile.TemporaryDirectory() as folder:
        files = {"json": Path(folder, "gpu.json"), "markdown": Path(folder, "gpu.md")}
        arguments = [
            "-m",
            "benchmarks.gpu",
            "--device",
            checker.device,
            "--only",
            group,
            *checker.quick_option,
        ]
        margin = NETWORKS_MARGIN if group == "networks" else MARGIN
        arguments += ["--minutes", f"{(seconds - margin) / 60.0:.3f}"]
        for name, path in files.items():
            arguments += [f"--{name}", str(path)]
        done = checker.process(*arguments, limit=seconds)
        texts = {name: path.read_text() for name, path in files.items() if path.exists()}
    measured = {"measured": json.loads(texts.get("json", "{}")), "markdown": texts.get("markdown", "")}
    if done.code is None and group == "compiled":  # the last part: compiling takes as long as it takes
        failed = measured["measured"].get("problems", [])
        problem = {"problem": "\n".join(failed)} if failed else {}
        return {"passed": not failed, "note": f"not finished: {NO_TIME}", **measured, **problem}
    problem = {} if done.code == 0 else {"problem": last_lines(done.errors, 4)}
    return {"passed": done.code == 0, **measured, **left_out(measured["measured"]), **problem}


def left_out(measured: dict[str, Any]) -> dict[str, str]:
    """Return a note of what a benchmark had no time for; an empty dictionary if there is nothing."""
    lines = [line for line in measured.get("left_out", []) if line.endswith(NO_TIME)]
    names = "; ".join(line.removesuffix(f": {NO_TIME}") for line in lines)
    return {"note": f"{NO_TIME} for: {names}"} if names else {}


def from_json(done: ProcessResult) -> dict[str, Any]:
    """Return the JSON that a process printed or, if there is none, its last lines as the problem."""
    try:
        return json.loads(done.output[done.output.index("{") :])
    except ValueError:
        return {"passed": False, "problem": last_lines(done.output + done.errors)}


PARTS: dict[str, Callable[[Checker], dict[str, Any]]] = {
    "tests": run_tests,
    "agreement": run_agreement,
    "gradients": run_gradients,
    "training": run_training,
    "networks": partial(run_benchmark, group="networks"),
    "kernels": partial(run_benchmark, group="kernels"),
    "real": run_real,
    "memory": partial(run_benchmark, group="memory"),
    "compiled": partial(run_benchmark, group="compiled"),
}


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
    started = time.monotonic()
    if problem := backend.problem_of(options.device):
        print(f"gpu-check: error: {options.device}: {problem}", file=sys.stderr)
        return 2
    seconds = 60.0 * options.minutes - (time.monotonic() - started)  # the first use of a GPU takes seconds
    checker = Checker(options.device, options.quick, options.out, seconds)
    handled = [s for s in stop_signals() if signal.getsignal(s) != signal.SIG_IGN]
    before = {s: signal.signal(s, signal.default_int_handler) for s in handled}  # all as Ctrl-C
    try:
        return 0 if checker.run(options.only) else 1
    except KeyboardInterrupt:
        print("gpu-check: interrupted", file=sys.stderr)
        return 130
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


if __name__ == "__main__":
    sys.exit(main())

"""Everything that only a machine with a GPU can show, in one run: `make gpu-check`.

    tests        the tests of every operation on the GPU
    gradients    the table of `python -m minidl.gradcheck`, on the GPU
    agreement    one training step of the whole network, in every number, beside the CPU
    training     200 steps on generated lesions, beside the CPU
    benchmark    beside PyTorch, and every kernel beside the GPU's limits (`gpu.py`)

Each part is a process of its own, because a kernel that fails takes its process's GPU with it; one that
fails or takes too long is told, and the others go on. One JSON file and one page of Markdown are written
anew after each part, named after the GPU, into docs/gpu or --out. The exit code is 0 if all passed, 1 if
not, and 2 where CUDA does not work.

It needs no network and installs nothing: it runs with what the Python that is given has.
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

if not __package__:  # run as a file, when Python looks for modules beside it and not in the repository
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
    "agreement": "One training step beside the CPU",
    "training": "Training on generated lesions",
    "benchmark": "Benchmark",
}


class Done(NamedTuple):
    """How a process ended: None for one that took too long."""

    code: int | None
    output: str
    errors: str


class Checker:
    """One run of all parts, and what it found so far."""

    def __init__(self, device: str, quick: bool, out: Path, minutes: float) -> None:
        self.device, self.quick, self.out = device, quick, out
        self.ends = time.monotonic() + 60.0 * minutes
        self.found: dict[str, Any] = {"machine": machine(device), "quick": quick, "parts": {}}

    def run(self, names: list[str]) -> bool:
        """Run parts, write after each, and return whether all passed."""
        for name in names:
            print(f"{TITLES[name]} ...", file=sys.stderr, flush=True)
            started = time.monotonic()
            try:
                part = PARTS[name](self)
            except Exception as fault:  # whatever a part left that cannot be read; the others go on
                part = {"passed": False, "problem": f"{type(fault).__name__}: {fault}"}
            part["seconds_in_all"] = round(time.monotonic() - started, 1)
            self.found["parts"][name] = part
            self.write()
            verdict = "passed" if part["passed"] else "FAILED"
            print(f"{TITLES[name]}: {verdict}, {part['seconds_in_all']:.0f} s", file=sys.stderr, flush=True)
        return all(part["passed"] for part in self.found["parts"].values())

    def process(self, *words: str, limit: float, **environment: str) -> Done:
        """Run `python WORDS` in the repository for at most `limit` seconds, and what is left of the run."""
        seconds = max(1.0, min(limit, self.ends - time.monotonic()))
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment}
        options: dict[str, Any] = {"cwd": ROOT, "env": environment, "text": True}
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
            try:
                code = subprocess.run(
                    [sys.executable, *words], stdout=output, stderr=errors, timeout=seconds, **options
                ).returncode
            except subprocess.TimeoutExpired:
                code = None
            texts = []
            for file in (output, errors):
                file.seek(0)
                texts.append(file.read())
        if code is None:
            texts[1] += f"\ntook more than {seconds:.0f} s"
        return Done(code, *texts)

    def write(self) -> None:
        """Write the JSON and the Markdown, whole."""
        name = re.sub(r"[^A-Za-z0-9]+", "-", self.found["machine"]["device"]).strip("-").lower()
        for suffix, text in (
            (".json", json.dumps(self.found, indent=1)),
            (".md", as_markdown(self.found) + "\n"),
        ):
            with output_file(self.out / f"{name}{suffix}") as file:
                file.write(text.encode())


def machine(device: str) -> dict[str, Any]:
    """Return what the numbers were measured on."""
    found = {
        "device": re.sub(r"^cuda \((.*)\)$", r"\1", backend.describe(device)).partition(" (")[0],
        "date": datetime.date.today().isoformat(),
        **{k: v for k, v in describe(torch_threads=0).items() if k not in ("threads", "load", "frameworks")},
        "torch": versions()["PyTorch"],
    }
    if device == "cuda":
        import cupy
        from cupy.cuda import runtime

        driver = Path("/proc/driver/nvidia/version")
        words = re.search(r"\d+\.\d+(\.\d+)?", driver.read_text()) if driver.exists() else None
        found |= {
            "cupy": cupy.__version__,
            "driver": words[0] if words else None,
            "cuda_of_driver": runtime.driverGetVersion(),
            "cuda_runtime": runtime.runtimeGetVersion(),
        }
    return found


def last_lines(text: str, count: int = 12) -> str:
    return "\n".join(text.strip().splitlines()[-count:])


def run_tests(checker: Checker) -> dict[str, Any]:
    """Run the tests on the device, none of which may skip for lack of it."""
    chosen = ["tests/minidl/ops/test_activation.py"] if checker.quick else ["tests"]
    words = ["-m", "pytest", *chosen, "--device", checker.device, "-q", "-rfE", "--tb=short"]
    done = checker.process(*words, "-p", "no:cacheprovider", limit=200.0)
    counts = re.findall(r"(\d+) (passed|failed|errors?|skipped)", done.output.strip().rpartition("\n")[2])
    found: dict[str, Any] = {word.rstrip("s"): int(number) for number, word in counts}
    found["passed_tests"] = found.pop("passed", 0)
    ok = done.code == 0 and found["passed_tests"] > 0
    problem = {} if ok else {"problem": last_lines(done.output + done.errors, 40)}
    return {**found, "passed": ok, **problem}


def run_gradients(checker: Checker) -> dict[str, Any]:
    """Check every derivative on the device."""
    if checker.quick:
        return {"passed": True, "rows": [], "note": "left out in a trial"}
    done = checker.process("-m", "minidl.gradcheck", "--json", "--device", checker.device, limit=120.0)
    return from_json(done)


def run_agreement(checker: Checker, part: str = "step", limit: float = 90.0) -> dict[str, Any]:
    """Compare with the CPU."""
    words = ["-m", "benchmarks.gpu_agreement", checker.device, part]
    return from_json(checker.process(*words, *(["--quick"] * checker.quick), limit=limit))


def run_training(checker: Checker) -> dict[str, Any]:
    """Train, beside the CPU."""
    return run_agreement(checker, "training", limit=120.0)


def run_benchmark(checker: Checker) -> dict[str, Any]:
    """Measure; what was measured before the time was up is kept."""
    left = checker.ends - time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        files = {"json": Path(folder, "gpu.json"), "markdown": Path(folder, "gpu.md")}
        words = ["-m", "benchmarks.gpu", "--device", checker.device, "--minutes", f"{left / 60.0:.2f}"]
        for name, path in files.items():
            words += [f"--{name}", str(path)]
        done = checker.process(*words, *(["--quick"] * checker.quick), limit=left)
        found = {name: path.read_text() for name, path in files.items() if path.exists()}
    problem = {} if done.code == 0 else {"problem": last_lines(done.errors, 4)}
    measured = json.loads(found.get("json", "{}"))
    return {"passed": done.code == 0, "measured": measured, "markdown": found.get("markdown", ""), **problem}


def from_json(done: Done) -> dict[str, Any]:
    """Return what a process printed; where it broke, why."""
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


def as_markdown(found: Mapping[str, Any]) -> str:
    """Return the page: the machine, a verdict for each part, and then each part."""
    parts = found["parts"]
    head = "; ".join(f"{name} {value}" for name, value in found["machine"].items() if value)
    verdicts = [
        (
            TITLES[name],
            "passed" if part["passed"] else "**failed**",
            f"{part['seconds_in_all']:.0f}",
            told(part),
        )
        for name, part in parts.items()
    ]
    page = [f"# On {found['machine']['device']}", f"Written by `make gpu-check`. {head}."]
    if found["quick"]:
        page.append("**A trial on tiny shapes, which only shows that the program runs.**")
    page.append(table(("part", "verdict", "s", "what was found"), verdicts))
    for name, part in parts.items():
        if rows := part.get("checks") or part.get("rows"):
            numbers = [
                (
                    r["name"],
                    "" if r["error"] is None else f"{r['error']:.1e}",
                    f"{r['tolerance']:.0e}",
                    mark(r),
                )
                for r in rows
            ]
            page += [f"## {TITLES[name]}", table(("what", "error", "tolerance", ""), numbers)]
        if part.get("markdown"):
            page += [f"## {TITLES[name]}", part["markdown"].strip()]
        if "problem" in part:
            page += [f"## {TITLES[name]}: what went wrong", f"```text\n{part['problem']}\n```"]
    return "\n\n".join(page)


def mark(row: Mapping[str, Any]) -> str:
    return "" if row["passed"] else "**failed**"


def told(part: Mapping[str, Any]) -> str:
    """Return a part in a few words."""
    if "passed_tests" in part:
        others = ("failed", "error", "skipped")
        rest = "".join(f", {part[what]} {what}" for what in others if part.get(what))
        return f"{part['passed_tests']} passed{rest}"
    if "losses" in part:
        losses, dice = part["losses"], part["validation"]["dice"]
        return (
            f"{part['steps']} steps in {part['seconds']:.1f} s; loss {losses[0]:.3f} to {losses[-1]:.3f}; "
            f"mean Dice {dice:.3f} on other lesions"
        )
    rows = part.get("checks") or part.get("rows") or []
    return f"{sum(r['passed'] for r in rows)} of {len(rows)} agree" if rows else part.get("note", "")


def main(argv: list[str] | None = None) -> int:
    """Run the parts, and return the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu_check", description="Check all on a GPU.")
    parser.add_argument("--device", choices=backend.DEVICES, default="cuda", help="(default cuda)")
    parser.add_argument("--quick", action="store_true", help="tiny shapes, to see that it runs")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="these parts")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "docs" / "gpu", help="the folder for results (default docs/gpu)"
    )
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"in all (default {MINUTES})")
    options = parser.parse_args(argv)
    if problem := backend.problem_of(options.device):
        print(f"gpu-check: {options.device} does not work here: {problem}", file=sys.stderr)
        return 2
    checker = Checker(options.device, options.quick, options.out, options.minutes)
    return 0 if checker.run(options.only) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Compare this project with PyTorch, DeZero and MyGrad on the CPU in one run.

    python -m benchmarks.cpu                       everything, a few minutes
    python -m benchmarks.cpu --only block,memory --json measured.json
    python -m benchmarks.cpu --quick               small shapes, to test that the program runs

All installed frameworks take part (`pip install -e '.[bench]'`); missing ones are listed and skipped. Before
anything is timed, all must compute the same numbers; otherwise the exit code is 1. The tables are printed to
stdout and the progress to stderr. `timing.py` describes how times are compared.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path

if not __package__:  # run as a file: Python would search for modules in this folder, not in the repository
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.plan import FULL, QUICK, Plan

SECTIONS = (
    "block",
    "train_step",
    "shared_step",
    "inference",
    "predict_folder",
    "loading",
    "memory",
    "scaling",
    "startup",
)


def main(argv: list[str] | None = None) -> int:
    """Measure the requested parts and return the exit code."""
    options = parse(argv)
    if options.threads is not None:
        os.environ["OPENBLAS_NUM_THREADS"] = str(options.threads)
    # NumPy's BLAS reads that variable when NumPy is loaded, so nothing above imports NumPy. If the variable
    # is not set yet, this import sets it, as for the r2unet command.
    import r2unet.commands.main  # noqa: F401
    from r2unet.errors import InputError

    try:
        return measure(options)
    except InputError as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return 2


def measure(options: argparse.Namespace) -> int:
    """Run the parts; print each and write it to the JSON file when it is done."""
    from benchmarks import machine, report
    from benchmarks.agreement import Disagreement
    from benchmarks.frameworks import set_torch_threads, versions
    from benchmarks.sections import all_sections
    from minidl.allocator import keep_freed_memory
    from r2unet.files import check_writable, output_file

    if options.json:
        check_writable("--json", options.json.parent)
    set_torch_threads(options.torch_threads)
    keep_freed_memory()  # like the r2unet command; applies to the whole process
    for name, version in versions().items():
        if version is None:
            print(f"{name} is not installed; skipped", file=sys.stderr)
    results = {"machine": machine.describe(options.torch_threads)}
    print(report.machine(results["machine"]), flush=True)
    sections = all_sections(options.torch_threads)
    for name in SECTIONS:
        if name in options.only:
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            try:
                results[name] = sections[name](options.plan)
            except Disagreement as error:
                print(f"benchmarks: error: {name}: {error}; nothing was timed", file=sys.stderr)
                return 1
            print(f"\n{report.WRITERS[name](results[name])}", flush=True)
            if options.json:  # after every part, so that an interrupted run keeps its results
                with output_file(options.json) as file:
                    file.write(json.dumps(results, indent=2).encode())
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the options, with the resulting plan in `plan`."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.cpu", description="Compare this project with other frameworks on the CPU."
    )
    parser.add_argument(
        "--only", type=section_names, default=SECTIONS, metavar="A,B", help=f"parts: {', '.join(SECTIONS)}"
    )
    parser.add_argument(
        "--repeats", type=positive, metavar="N", help=f"number of rounds (default {FULL.repeats})"
    )
    parser.add_argument("--quick", action="store_true", help="small shapes, only to test that it runs")
    parser.add_argument(
        "--threads", type=positive, metavar="N", help="threads of NumPy's BLAS (default: as for r2unet)"
    )
    parser.add_argument(
        "--torch-threads",
        type=positive,
        default=2,
        metavar="N",
        help="PyTorch's threads (default %(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all measurements to FILE")
    options = parser.parse_args(argv)
    plan: Plan = QUICK if options.quick else FULL
    options.plan = dataclasses.replace(plan, repeats=options.repeats or plan.repeats)
    return options


def section_names(text: str) -> tuple[str, ...]:
    """Convert a comma-separated list to the names of parts."""
    names = tuple(text.split(","))
    for name in names:
        if name not in SECTIONS:
            raise argparse.ArgumentTypeError(f"must be one of {', '.join(SECTIONS)}, got {name!r}")
    return names


def positive(text: str) -> int:
    """Convert the text of an option to a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())

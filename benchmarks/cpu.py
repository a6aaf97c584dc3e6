"""This project beside PyTorch, DeZero and MyGrad on the CPU, in one run.

    python -m benchmarks.cpu                       all of it, some minutes
    python -m benchmarks.cpu --only block,memory --json measured.json
    python -m benchmarks.cpu --quick               small shapes: does it run?

Every framework that is installed takes part (`pip install -e '.[bench]'`), the others are named and left
out. Before anything is timed, it is shown that all compute the same; where they do not, the exit code is 1.
The table goes to stdout and what is going on to stderr. `timing.py` says how times are compared.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path

if not __package__:  # run as a file, when Python looks for modules beside it and not in the repository
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.plan import FULL, QUICK, Plan

SECTIONS = ("block", "train_step", "inference", "loading", "memory", "scaling", "startup")


def main(argv: list[str] | None = None) -> int:
    """Measure what was asked for and return the exit code."""
    options = parse(argv)
    if options.threads is not None:
        os.environ["OPENBLAS_NUM_THREADS"] = str(options.threads)
    # Nothing above loads NumPy, for its BLAS reads that variable only then. Where neither --threads nor the
    # person has set it, this import does, as for everyone who trains from the command line.
    import r2unet.commands.main  # noqa: F401
    from r2unet.errors import InputError

    try:
        return measure(options)
    except InputError as fault:
        print(f"benchmarks: error: {fault}", file=sys.stderr)
        return 2


def measure(options: argparse.Namespace) -> int:
    """Run the parts, and print and write down each as it is done."""
    from benchmarks import machine, report
    from benchmarks.agreement import Disagreement
    from benchmarks.frameworks import set_torch_threads, versions
    from benchmarks.sections import all_sections
    from minidl.allocator import keep_freed_memory
    from r2unet.files import output_file
    from r2unet.training.run_folder import check_writable

    if options.json:
        check_writable("--json", options.json.parent)
    set_torch_threads(options.torch_threads)
    keep_freed_memory()  # as the command line does; it holds for all that runs in this process
    for name, version in versions().items():
        if version is None:
            print(f"{name} is not installed and is left out", file=sys.stderr)
    results = {"machine": machine.describe(options.torch_threads)}
    print(report.machine(results["machine"]), flush=True)
    sections = all_sections(options.torch_threads)
    for name in SECTIONS:
        if name in options.only:
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            try:
                results[name] = sections[name](options.plan)
            except Disagreement as fault:
                print(f"benchmarks: {name}: {fault}; nothing is compared", file=sys.stderr)
                return 1
            print(f"\n{report.WRITERS[name](results[name])}", flush=True)
            if options.json:  # after every part, so that whoever stops the rest keeps it
                with output_file(options.json) as file:
                    file.write(json.dumps(results, indent=2).encode())
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the options, and in `plan` what follows from them."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.cpu", description="Compare this project with other frameworks on the CPU."
    )
    parser.add_argument(
        "--only", type=section_names, default=SECTIONS, metavar="A,B", help=f"parts: {', '.join(SECTIONS)}"
    )
    parser.add_argument("--repeats", type=positive, metavar="N", help=f"rounds (default {FULL.repeats})")
    parser.add_argument("--quick", action="store_true", help="shapes too small to tell, to see that it runs")
    parser.add_argument(
        "--threads", type=positive, metavar="N", help="threads of NumPy's BLAS (default: the command line's)"
    )
    parser.add_argument(
        "--torch-threads", type=positive, default=2, metavar="N", help="PyTorch's (default %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements there as well")
    options = parser.parse_args(argv)
    plan: Plan = QUICK if options.quick else FULL
    options.plan = dataclasses.replace(plan, repeats=options.repeats or plan.repeats)
    return options


def section_names(text: str) -> tuple[str, ...]:
    """Return the parts named in a list with commas."""
    names = tuple(text.split(","))
    for name in names:
        if name not in SECTIONS:
            raise argparse.ArgumentTypeError(f"there is no {name!r}; choose from {', '.join(SECTIONS)}")
    return names


def positive(text: str) -> int:
    """Return a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())

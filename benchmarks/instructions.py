"""Count the instructions of the convolution kernels for each multiply-add; no GPU is needed.

A warp scheduler of a GPU issues at most one instruction per cycle. A kernel that needs 1.5 instructions for
each multiply-add therefore reaches at most two thirds of the peak rate; waiting for memory makes it slower.
NVRTC compiles the kernels (tests/nvrtc.py). NVIDIA's disassembler, nvdisasm from the extra `bench`, prints
the machine code.

    python -m benchmarks.instructions [--architecture sm_80] [--loops] [FILE.cu ...]

prints for each kernel its registers and the loop with the most multiply-adds, the smallest if there are
several. Every instruction in the loop counts, also those that are usually skipped. Copies into shared memory
can be in other loops, which `--loops` prints as well, with their places in the code.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))
import nvrtc  # noqa: E402  (it is beside the tests, which need it too)

NAMES = ("strips", "columns", "phases", "pointwise", "implicit_gemm")
FILES = [ROOT / "minidl" / "ops" / "conv" / f"{name}.cu" for name in NAMES]
MULTIPLY_ADD = {"float32": "FFMA", "float64": "DFMA"}


class Loop(NamedTuple):
    """A part of a kernel's machine code that ends with a jump back to its start."""

    start: int
    end: int  # one past the jump
    multiply_adds: int

    @property
    def instructions(self) -> int:
        return self.end - self.start


def disassembler() -> str:
    """Return the path of nvdisasm in its wheel. Raises PackageNotFoundError if that is not installed."""
    return str(next(f.locate() for f in metadata.files("nvidia-cuda-nvdisasm") if f.name == "nvdisasm"))


def disassemble(cubin: bytes) -> str:
    """Return the machine code as text."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        run = subprocess.run([disassembler(), "-c", file.name], capture_output=True, text=True, check=True)
    return run.stdout


def loops_by_kernel(text: str, multiply_add: str) -> dict[str, list[Loop]]:
    """Return the loops of each kernel in a disassembly, outer loops first."""
    found = {}
    for section in re.split(r"\n(?=\s*\.section\s)", text):
        if name := re.search(r"^\.text\.(\w+):", section, re.MULTILINE):
            found[name[1]] = loops_of(section, multiply_add)
    return found


def loops_of(section: str, multiply_add: str) -> list[Loop]:
    """Return the loops in the text of one kernel; a jump to itself, which ends a kernel, is not a loop."""
    places, code = {}, []
    for label, instruction in re.findall(
        r"^\s*(\.L_\w+):|^\s*/\*[0-9a-f]+\*/\s+(.*?)\s*;", section, re.MULTILINE
    ):
        if label:
            places[label] = len(code)
        else:
            code.append(instruction)
    jumps = [
        (places[j[1]], i + 1) for i, line in enumerate(code) if (j := re.search(r"\bBRA\b.*?(\.L_\w+)", line))
    ]
    return sorted(
        (
            Loop(start, end, sum(multiply_add in line for line in code[start:end]))
            for start, end in set(jumps)
            if start < end - 1
        ),
        key=lambda loop: (loop.start, -loop.end),
    )


def busiest(loops: list[Loop]) -> Loop | None:
    """Return the smallest of the loops with the most multiply-adds, or None without multiply-adds."""
    computing = [loop for loop in loops if loop.multiply_adds]
    return min(computing, key=lambda loop: (-loop.multiply_adds, loop.instructions), default=None)


def lines(path: Path, dtype: str, architecture: str, all_loops: bool) -> list[str]:
    """Return the rows of a Markdown table, one for each kernel of a file, or one for each loop."""
    compiled = nvrtc.compile_file(path, dtype, architecture)
    loops = loops_by_kernel(disassemble(compiled.cubin), MULTIPLY_ADD[dtype])
    rows = []
    for kernel in compiled.kernels:
        for loop in loops[kernel.name] if all_loops else [busiest(loops[kernel.name])]:
            if loop is None:
                continue
            share = f"{loop.instructions / loop.multiply_adds:.2f}" if loop.multiply_adds else ""
            place = f" {loop.start} to {loop.end} |" if all_loops else ""
            cells = kernel.name, kernel.registers, loop.instructions, loop.multiply_adds, share
            rows.append("|".join(["", *(f" {cell} " for cell in cells), ""]) + place)
    return rows


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Count the instructions of convolution kernels.")
    parser.add_argument("files", nargs="*", type=Path, default=FILES, help="default: the convolutions")
    parser.add_argument("--architecture", choices=nvrtc.ARCHITECTURES, default="sm_90")
    parser.add_argument("--dtype", choices=nvrtc.DTYPES, default="float32")
    parser.add_argument("--loops", action="store_true", help="print every loop, and its place in the code")
    options = parser.parse_args()
    try:
        disassembler()
    except metadata.PackageNotFoundError:
        raise SystemExit(
            "nvidia-cuda-nvdisasm is not installed; pip install -e '.[bench]' installs it"
        ) from None
    if reason := nvrtc.problem():
        raise SystemExit(reason)
    place = " place |" if options.loops else ""
    print(f"| kernel | registers | instructions | multiply-adds | per multiply-add |{place}")
    print("|---|---|---|---|---|" + ("---|" if options.loops else ""))
    for path in options.files:
        print("\n".join(lines(path, options.dtype, options.architecture, options.loops)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Compile the kernels with NVIDIA's compiler NVRTC, called through ctypes; no GPU is needed.

NVRTC is the compiler that CuPy calls at the first launch of a kernel. It is a shared library from PyPI
(`nvidia-cuda-nvrtc`, in the extra `test`). Only running the compiled code needs a GPU. NVRTC reports for each
kernel how many registers a thread uses and whether any were spilled to memory, which is hundreds of times
slower. A multiprocessor's 65,536 registers are divided among its resident threads. The number of registers
therefore limits the occupancy, and with it the number of memory accesses in flight. Run as a program, this
file prints a Markdown table of all kernels:

    python tests/nvrtc.py
"""

from __future__ import annotations

import ctypes
import re
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from minidl.backend import C_TYPES, kernel_source

PACKAGE = Path(__file__).parents[1] / "minidl"
SOURCES = sorted(PACKAGE.rglob("*.cu"))
DTYPES = tuple(C_TYPES)
ARCHITECTURES = ("sm_80", "sm_90")  # A100 and H100

# CuPy's own options, then the report and the line numbers of the source. The last two do not change the code.
OPTIONS = (
    "--std=c++17",
    "-ftz=true",
    "--device-as-default-execution-space",
    "--ptxas-options=-v",
    "-lineinfo",
)


class CompileError(Exception):
    """The compiler rejected a file; the message is the compiler's, with the file's name and line."""


class Kernel(NamedTuple):
    """The resources that one kernel uses."""

    name: str
    registers: int  # of 32 bits, per thread
    barriers: int  # 0 or 1: whether the threads of a block synchronise
    shared: int  # bytes per block, without the dynamic shared memory of the launch
    stack: int  # bytes per thread, in local memory: arrays that registers cannot hold
    spilled: int  # bytes per thread, stored to or loaded from memory for lack of registers


class Compiled(NamedTuple):
    """A compiled file of kernels."""

    kernels: list[Kernel]
    ptx: str  # NVIDIA's assembly language, before register allocation
    cubin: bytes  # the machine code


@cache
def library() -> ctypes.CDLL:
    """Load NVRTC from its wheel; raises PackageNotFoundError or OSError if it is not available."""
    files = {file.name.partition(".so")[0]: file.locate() for file in metadata.files("nvidia-cuda-nvrtc")}
    # First, because NVRTC loads it by name, and its folder is not in the search path.
    ctypes.CDLL(str(files["libnvrtc-builtins"]))
    return ctypes.CDLL(str(files["libnvrtc"]))


def problem() -> str | None:
    """Return None if NVRTC can be used here, otherwise the reason in one line."""
    try:
        library()
    except metadata.PackageNotFoundError:
        return "nvidia-cuda-nvrtc is not installed; on Linux, pip install -e '.[test]' installs it"
    except OSError as error:
        return f"NVRTC cannot be loaded ({error}); reinstall nvidia-cuda-nvrtc"
    return None


def compile_file(path: Path, dtype: str, architecture: str) -> Compiled:
    """Compile a file of kernels for a dtype, with the engine's source text; raises CompileError."""
    nvrtc, program = library(), ctypes.c_void_p()
    options = [option.encode() for option in (*OPTIONS, f"--gpu-architecture={architecture}")]
    nvrtc.nvrtcCreateProgram(
        ctypes.byref(program), kernel_source(path, dtype).encode(), path.name.encode(), 0, None, None
    )
    failed = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    log, ptx, cubin = (bytes_of(program, what) for what in ("ProgramLog", "PTX", "CUBIN"))
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    if failed:
        raise CompileError(f"T = {C_TYPES[dtype]}, {architecture}\n{as_text(log)}")
    return Compiled(kernels_in(as_text(log)), as_text(ptx), cubin)


def bytes_of(program: ctypes.c_void_p, what: str) -> bytes:
    """Return one result of compiling a program: "ProgramLog", "PTX" or "CUBIN"."""
    size = ctypes.c_size_t()
    getattr(library(), f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(library(), f"nvrtcGet{what}")(program, buffer)
    return buffer.raw


def as_text(text: bytes) -> str:
    """Return a text that ends with a zero byte, as in C."""
    return text.partition(b"\0")[0].decode()


def kernels_in(log: str) -> list[Kernel]:
    """Return the kernels in the report of ptxas, the compiler's register allocator, sorted by name."""

    def total(pattern: str, text: str) -> int:
        return sum(map(int, re.findall(rf"(\d+) {pattern}", text)))

    sections = re.split(r"Compiling entry function '(\w+)'", log)[1:]  # name, text, name, text, ...
    return sorted(
        Kernel(
            name,
            registers=total("registers", text),
            barriers=total("barriers", text),
            shared=total("bytes smem", text),
            stack=total("bytes stack frame", text),
            spilled=total("bytes spill stores", text) + total("bytes spill loads", text),
        )
        for name, text in zip(sections[::2], sections[1::2], strict=True)
    )


def conversions(ptx: str) -> list[str]:
    """Return all conversions between float and double, as "file line N: instruction"."""
    found, names, file, line = [], dict(re.findall(r'\.file\s+(\d+) "(?:.*/)?(.*?)"', ptx)), "", ""
    for statement in ptx.splitlines():
        if place := re.match(r"\s*\.loc\s+(\d+) (\d+)", statement):
            file, line = place.groups()
        elif instruction := re.match(r"\s*(?:@\S+ )?(cvt\S*\.(f64\.f32|f32\.f64))\s", statement):
            found.append(f"{names[file]} line {line}: {instruction[1]}")
    return found


def table() -> str:
    """Return a Markdown table of each kernel's resources; a pair has one number per architecture."""
    pair = " / ".join(ARCHITECTURES)
    lines = [
        f"| file | kernel | registers, float ({pair}) | registers, double ({pair}) "
        "| shared bytes (float / double) | bytes spilled |",
        "|---|---|---|---|---|---|",
    ]
    for path in SOURCES:
        reports = {t: [compile_file(path, t, a).kernels for a in ARCHITECTURES] for t in DTYPES}
        for row in zip(*(kernels for of_dtype in reports.values() for kernels in of_dtype), strict=True):
            registers = [f"{a.registers} / {b.registers}" for a, b in (row[:2], row[2:])]
            spilled = max(kernel.stack + kernel.spilled for kernel in row)
            cells = (path.name, row[0].name, *registers, f"{row[0].shared} / {row[2].shared}", str(spilled))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    if reason := problem():
        raise SystemExit(reason)
    try:
        print(table())
    except CompileError as error:
        raise SystemExit(error) from None

"""From a file of CUDA C to a shared library: a few lines around the text, g++, and a cache of what came out.

The file's text is changed in one place only. `extern __shared__ T s[];`, the array whose size is given at the
launch, means nothing in C++ inside a function; it becomes a pointer to the memory set aside for it. All else
that is CUDA's is defined by `cuda_on_cpu.h`. `#line` keeps the lines in g++'s messages those of the .cu file.

Two of g++'s own instruments are switched on. `-fsanitize=kernel-address`, made for operating systems, puts a
call before every access to memory and leaves it to us what the call does: checks.cpp compares the address
with the arrays of the launch. `-fsanitize=bounds,...` does so for an index outside an array of known size, a
division by zero and an integer that overflows. Neither needs a library to be loaded before Python starts.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from minidl.files import atomic_write

HERE = Path(__file__).parent
C_TYPES = {"float32": "float", "float64": "double"}

COMMON = ["-std=c++17", "-O2", "-fPIC", "-U_FORTIFY_SOURCE", f"-I{HERE}"]  # fortified longjmp refuses fibers
INSTRUMENTED = [
    *("-g1", "-gdwarf-4"),  # line numbers; in DWARF 5, addr2line 2.40 takes one file for another
    "-fvisibility=hidden",
    "-ffp-contract=off",  # a * b + c is rounded twice, as NumPy does
    "-fno-strict-aliasing",
    "-fsanitize=kernel-address",
    "-fsanitize=bounds,alignment,integer-divide-by-zero,signed-integer-overflow",
    *("--param", "asan-instrumentation-with-call-threshold=0"),  # calls only, no tables of its own
    *("--param", "asan-stack=0", "--param", "asan-globals=1"),
]

DYNAMIC_SHARED = re.compile(
    r"extern\s+__shared__\s+(?:__align__\s*\(\d+\)\s*)?([\w\s]+?)\s*\b(\w+)\s*\[\s*\]\s*;"
)
BOUNDS = r"(?:__launch_bounds__\s*\([^)]*\)\s*)?"
KERNEL = re.compile(rf'extern\s+"C"\s+__global__\s+{BOUNDS}void\s+{BOUNDS}(\w+)\s*\(([^)]*)\)')
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


class KernelError(RuntimeError):
    """A kernel cannot be compiled or found, or did what no kernel may; the message says what and where."""


@functools.cache
def problem() -> str | None:
    """Return None if CUDA files can be run on this machine's processor, otherwise the reason in one line."""
    if platform.system() != "Linux":
        return (
            f"running kernels on the CPU needs Linux, and this is {platform.system()}; use Docker, or a GPU"
        )
    for tool, package in {"g++": "g++", "addr2line": "binutils"}.items():
        if shutil.which(tool) is None:
            return f"{tool} is not installed; apt install {package}"
    return None


def without_comments(text: str) -> str:
    """Return the text with every comment blanked out; lines keep their numbers."""
    return COMMENT.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


def find_kernels(text: str) -> dict[str, list[str]]:
    """Return the kernels of a file, each with the declarations of its parameters as they stand there."""
    return {
        match[1]: [" ".join(parameter.split()) for parameter in match[2].split(",") if parameter.strip()]
        for match in KERNEL.finditer(text)
    }


def translate(source: Path, text: str, dtype: str) -> str:
    """Return the C++ for a file's text of CUDA C, in which `T` becomes the type of a number."""
    text = DYNAMIC_SHARED.sub(r"\1* \2 = reinterpret_cast<\1*>(cuda_on_cpu_dynamic_shared());", text)
    # A namespace without a name, so that g++ keeps a red zone behind the static arrays of templates, too.
    return (
        f'#include "cuda_on_cpu.h"\nnamespace {{\nusing T = {C_TYPES[dtype]};\n'
        f'#line 1 "{source}"\n{text}\n}}\n#include "export.h"\n'
    )


def exports(source: Path, text: str, folder: Path) -> str:
    """Return the lines of C++ that make the kernels known to Python, macros that write kernels resolved."""
    (folder / "kernels.cu").write_text(text, encoding="utf-8")
    expanded = run_compiler(source, "-E", "-P", "-x", "c++", folder / "kernels.cu")
    if expanded.count("__global__") != len(find_kernels(expanded)):
        raise KernelError(f'{source.name}: write every kernel as `extern "C" __global__ void name(...)`')
    declarations = "\n".join(match[0] for match in KERNEL.finditer(expanded))
    lines = [f"CUDA_ON_CPU_EXPORT({name})" for name in find_kernels(expanded)]
    return "\n".join([f'CUDA_ON_CPU_KERNELS(R"kernels({declarations})kernels")', *lines, ""])


def compile_kernels(source: Path, dtype: str) -> Path:
    """Return the shared library of a .cu file, compiled now or found in the cache.

    Raises KernelError with g++'s message if it refuses the file.
    """
    if why := problem():
        raise KernelError(why)
    runtime = compile_runtime()
    text = source.read_text(encoding="utf-8")
    program = translate(source, text, dtype)

    def build(folder: Path) -> None:
        whole = program + exports(source, text, folder)
        (folder / "kernels.cpp").write_text(whole, encoding="utf-8")
        run_compiler(source, *COMMON, *INSTRUMENTED, "-c", folder / "kernels.cpp", "-o", folder / "kernels.o")
        # Linked apart: with -fsanitize the linker would add GCC's libraries, whose place checks.cpp takes.
        origin = "-Wl,-rpath,$ORIGIN"
        run_compiler(source, "-shared", folder / "kernels.o", runtime, origin, "-o", folder / "library.so")

    return cached(source.stem, [program, *INSTRUMENTED], build)


def compile_runtime() -> Path:
    """Return the shared library of the C++ files here, which all compiled files of kernels use."""
    sources = sorted(HERE.glob("*.cpp"))
    name = "-Wl,-soname," + cache_path("runtime", []).name

    def build(folder: Path) -> None:
        run_compiler(sources[0], *COMMON, "-shared", name, *sources, "-o", folder / "library.so")

    return cached("runtime", [], build)


def run_compiler(source: Path, *arguments: str | Path) -> str:
    """Run g++ and return what it prints; KernelError with what it says if it fails."""
    result = subprocess.run(["g++", *map(str, arguments)], capture_output=True, text=True)
    if result.returncode:
        raise KernelError(f"g++ refuses {source.name}:\n{result.stderr.strip()}")
    return result.stdout


@functools.cache
def compiler_version() -> str:
    """Return what g++ says about itself, a part of every cache key."""
    return subprocess.run(["g++", "--version"], capture_output=True, text=True).stdout + platform.machine()


def cache_path(name: str, parts: list[str]) -> Path:
    """Return where a library made of these parts is kept: any change of them, or of our C++, moves it."""
    headers = [
        path.read_text(encoding="utf-8") for path in sorted(HERE.iterdir()) if path.suffix in (".h", ".cpp")
    ]
    digest = hashlib.sha256("\0".join([compiler_version(), *COMMON, *headers, *parts]).encode()).hexdigest()
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minidl"
    return folder / f"{name}-{digest[:16]}.so"


def cached(name: str, parts: list[str], build: Callable[[Path], None]) -> Path:
    """Return the library from the cache, or `build` it beside its place and rename it, never half-written."""
    library = cache_path(name, parts)
    if not library.exists():
        try:
            library.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory() as folder:
                build(Path(folder))
                with atomic_write(library) as file:
                    file.write((Path(folder) / "library.so").read_bytes())
        except OSError as error:
            raise KernelError(f"cannot keep compiled kernels: {error}; set XDG_CACHE_HOME") from error
    return library

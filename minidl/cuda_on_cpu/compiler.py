"""Compiling: turns a file of CUDA C into C++ and a shared library, by g++, and caches the library.

The source is changed in one respect only. `extern __shared__ T s[];`, the array whose size is set at the
launch, has no meaning inside a C++ function; it is replaced by a pointer to memory reserved for it. The other
keywords of CUDA are defined by `cuda_on_cpu.h`. A `#line` directive makes g++'s messages refer to the lines
of the .cu file.

Two kinds of instrumentation are enabled. `-fsanitize=kernel-address`, made for operating systems, inserts a
call before every memory access and leaves its implementation to us: checks.cpp compares the address with the
arrays of the launch. `-fsanitize=bounds,...` inserts checks for an index outside an array of known size, a
division by zero and integer overflow. Neither requires a library that is loaded before Python starts.
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

COMMON = ["-std=c++17", "-O2", "-fPIC", "-U_FORTIFY_SOURCE", f"-I{HERE}"]  # fortified longjmp rejects fibers
INSTRUMENTED = [
    *("-g1", "-gdwarf-4"),  # line numbers; addr2line 2.40 confuses files in DWARF 5
    "-fvisibility=hidden",
    "-ffp-contract=off",  # a * b + c is rounded twice, as in NumPy
    "-fno-strict-aliasing",
    "-fsanitize=kernel-address",
    "-fsanitize=bounds,alignment,integer-divide-by-zero,signed-integer-overflow",
    *("--param", "asan-instrumentation-with-call-threshold=0"),  # calls only, no inline checks
    *("--param", "asan-stack=0", "--param", "asan-globals=1"),
]

DYNAMIC_SHARED = re.compile(
    r"extern\s+__shared__\s+(?:__align__\s*\(\d+\)\s*)?([\w\s]+?)\s*\b(\w+)\s*\[\s*\]\s*;"
)
BOUNDS = r"(?:__launch_bounds__\s*\([^)]*\)\s*)?"
KERNEL = re.compile(rf'extern\s+"C"\s+__global__\s+{BOUNDS}void\s+{BOUNDS}(\w+)\s*\(([^)]*)\)')
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


class KernelError(RuntimeError):
    """A kernel does not compile, does not exist or did something illegal; the message says what and where."""


@functools.cache
def problem() -> str | None:
    """Return None if the emulator works on this machine, otherwise the reason in one line."""
    if platform.system() != "Linux":
        return (
            f"running kernels on the CPU needs Linux, and this is {platform.system()}; use Docker, or a GPU"
        )
    for tool, package in {"g++": "g++", "addr2line": "binutils"}.items():
        if shutil.which(tool) is None:
            return f"{tool} is not installed; apt install {package}"
    return None


def without_comments(text: str) -> str:
    """Return the text with every comment replaced by spaces; line numbers do not change."""
    return COMMENT.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


def find_kernels(text: str) -> dict[str, list[str]]:
    """Return the kernels in a file by name, each with the declarations of its parameters."""
    return {
        match[1]: [" ".join(parameter.split()) for parameter in match[2].split(",") if parameter.strip()]
        for match in KERNEL.finditer(text)
    }


def translate(source: Path, text: str, dtype: str, common: str = "") -> str:
    """Return C++ for the text of a CUDA C file, after the text `common`; `T` is the type of a number."""
    text = DYNAMIC_SHARED.sub(r"\1* \2 = reinterpret_cast<\1*>(cuda_on_cpu_dynamic_shared());", text)
    # The unnamed namespace makes g++ leave a red zone after the static arrays of templates, too.
    return (
        f'#include "cuda_on_cpu.h"\nnamespace {{\nusing T = {C_TYPES[dtype]};\n{common}\n'
        f'#line 1 "{source}"\n{text}\n}}\n#include "export.h"\n'
    )


def exports(source: Path, text: str, folder: Path) -> str:
    """Return the C++ that exports the kernels to Python; kernels may be defined by macros."""
    (folder / "kernels.cu").write_text(text, encoding="utf-8")
    expanded = run_compiler(source, "-E", "-P", "-x", "c++", folder / "kernels.cu")
    if expanded.count("__global__") != len(find_kernels(expanded)):
        raise KernelError(f'{source.name}: write every kernel as `extern "C" __global__ void name(...)`')
    declarations = "\n".join(match[0] for match in KERNEL.finditer(expanded))
    lines = [f"CUDA_ON_CPU_EXPORT({name})" for name in find_kernels(expanded)]
    return "\n".join([f'CUDA_ON_CPU_KERNELS(R"kernels({declarations})kernels")', *lines, ""])


def compile_kernels(source: Path, dtype: str, common: Path | None = None) -> Path:
    """Return the shared library of a .cu file after the text of `common`, compiled now or earlier.

    Raises KernelError with g++'s message if the file does not compile.
    """
    if why := problem():
        raise KernelError(why)
    runtime = compile_runtime()
    text = source.read_text(encoding="utf-8")
    front = f'#line 1 "{common}"\n{common.read_text(encoding="utf-8")}' if common else ""
    program = translate(source, text, dtype, front)

    def build(folder: Path) -> None:
        whole = program + exports(source, text, folder)
        (folder / "kernels.cpp").write_text(whole, encoding="utf-8")
        run_compiler(source, *COMMON, *INSTRUMENTED, "-c", folder / "kernels.cpp", "-o", folder / "kernels.o")
        # Linked separately: with -fsanitize g++ would link GCC's own libraries, which checks.cpp replaces.
        origin = "-Wl,-rpath,$ORIGIN"
        run_compiler(source, "-shared", folder / "kernels.o", runtime, origin, "-o", folder / "library.so")

    return cached(source.stem, [program, *INSTRUMENTED], build)


def compile_runtime() -> Path:
    """Return the shared library of the C++ files in this folder, which all compiled kernels use."""
    sources = sorted(HERE.glob("*.cpp"))
    name = "-Wl,-soname," + cache_path("runtime", []).name

    def build(folder: Path) -> None:
        run_compiler(sources[0], *COMMON, "-shared", name, *sources, "-o", folder / "library.so")

    return cached("runtime", [], build)


def run_compiler(source: Path, *arguments: str | Path) -> str:
    """Run g++ and return its output; raise KernelError with its message if it fails."""
    result = subprocess.run(["g++", *map(str, arguments)], capture_output=True, text=True)
    if result.returncode:
        raise KernelError(f"g++ cannot compile {source.name}:\n{result.stderr.strip()}")
    return result.stdout


@functools.cache
def compiler_version() -> str:
    """Return g++'s version and the machine type, which are part of every cache key."""
    return subprocess.run(["g++", "--version"], capture_output=True, text=True).stdout + platform.machine()


def cache_path(name: str, parts: list[str]) -> Path:
    """Return a library's path in the cache; it changes with any change of the parts or of the C++ here."""
    headers = [
        path.read_text(encoding="utf-8") for path in sorted(HERE.iterdir()) if path.suffix in (".h", ".cpp")
    ]
    digest = hashlib.sha256("\0".join([compiler_version(), *COMMON, *headers, *parts]).encode()).hexdigest()
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minidl"
    return folder / f"{name}-{digest[:16]}.so"


def cached(name: str, parts: list[str], build: Callable[[Path], None]) -> Path:
    """Return the library from the cache; if it is not there, or damaged, `build` it and write it atomically.

    Raises KernelError if the cache cannot be written, or if other users may write to it.
    """
    library = cache_path(name, parts)
    try:
        _make_private(library.parent)
        if not _is_whole(library):
            with tempfile.TemporaryDirectory() as folder:
                build(Path(folder))
                content = (Path(folder) / "library.so").read_bytes()
            with atomic_write(library) as file:  # several processes may compile
                file.write(content + hashlib.sha256(content).digest())
    except OSError as error:
        raise KernelError(f"cannot cache compiled kernels: {error}; set XDG_CACHE_HOME") from error
    return library


def _is_whole(library: Path) -> bool:
    """Return whether a library is as `cached` wrote it: its last 32 bytes are the SHA-256 of all before.

    The loader ignores them. It would fail on a truncated library for ever, and run the code of any other.
    """
    if not library.is_file():
        return False
    content = library.read_bytes()
    return hashlib.sha256(content[:-32]).digest() == content[-32:]


def _make_private(folder: Path) -> None:
    """Create the folder of the cache. Raises KernelError if other users can put a library into it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.geteuid():
        raise KernelError(
            f"{folder}: belongs to another user, whose libraries this program does not load; set "
            "XDG_CACHE_HOME to a folder of your own"
        )
    if status.st_mode & 0o022:
        raise KernelError(
            f"{folder}: other users may write to it, and this program would load their libraries; delete "
            "the folder, or set XDG_CACHE_HOME to a folder of your own"
        )
    folder.chmod(0o700)

"""Load a file of kernels and launch them, called as `cupy.RawModule` and `cupy.RawKernel` are."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import operator
import re
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from minidl.cuda_on_cpu.arguments import Region, merged, pack
from minidl.cuda_on_cpu.compiler import KernelError, compile_kernels, find_kernels, without_comments
from minidl.cuda_on_cpu.diagnosis import explain
from minidl.cuda_on_cpu.launch import Launch, Memory, Shared, variables

ORDERS = {"forward": 0, "reverse": 1, "shuffled": 2}

# What every GPU can do: threads in a block, all and along each axis; blocks along each axis; shared bytes.
MAX_THREADS, MAX_BLOCK, MAX_GRID = 1024, (1024, 1024, 64), (2**31 - 1, 65535, 65535)
MAX_SHARED = 48 << 10

_order: ContextVar[str] = ContextVar("thread_order", default="forward")


@contextlib.contextmanager
def thread_order(order: str) -> Iterator[None]:
    """Let blocks, and between barriers the threads of a block, run "forward", in "reverse" or "shuffled".

    A GPU promises no order: a kernel whose result depends on it lacks a barrier. Forward and in reverse, each
    warp runs through its shuffles to the next barrier before another one starts, as far ahead as it can get;
    shuffled, each thread of the block runs to where it must wait. The shuffle is seeded.
    """
    if order not in ORDERS:
        raise ValueError(f"thread_order: unknown order {order!r}; choose from {', '.join(ORDERS)}")
    token = _order.set(order)
    try:
        yield
    finally:
        _order.reset(token)


class Module:
    """The kernels of one file, compiled for one dtype."""

    def __init__(self, source: Path, dtype: str) -> None:
        self.source, self.path = source, compile_kernels(source, dtype)
        self.library = ctypes.PyDLL(str(self.path))  # PyDLL: one launch at a time, whichever thread asks
        self.kernels = find_kernels(text_from(self.library.cuda_on_cpu_kernels))
        self.shared = self._find_shared(without_comments(source.read_text(encoding="utf-8")))

    def get_function(self, name: str) -> Kernel:
        """Return a kernel by its name. Raises KernelError if the file has none of that name."""
        if name not in self.kernels:
            raise KernelError(f"{self.source.name} has no kernel {name}; it has {', '.join(self.kernels)}")
        return Kernel(self, name)

    def _find_shared(self, text: str) -> list[tuple[str, Shared]]:
        """Return the name and the place of each `__shared__` array."""
        lines = set()
        for match in re.finditer(r"__shared__[^;]*;", text):
            first = text.count("\n", 0, match.start()) + 1
            lines |= set(range(first, first + match[0].count("\n") + 1))
        found = []
        for v in variables(self.library):
            if v.place and v.place[0].file == str(self.source).encode() and v.place[0].line in lines:
                place = Shared(v.begin, v.begin + v.size, v.begin + v.size_with_red_zone)
                found.append((f"shared array `{v.name.decode()}`", place))
        return found


class Kernel:
    """One kernel, called as CuPy's are: `kernel(grid, block, arguments, shared_mem=0)`."""

    def __init__(self, module: Module, name: str) -> None:
        self.module, self.name, self.parameters = module, name, module.kernels[name]
        self.types = text_from(getattr(module.library, f"types_{name}")).split()

    def __call__(self, grid: tuple, block: tuple, args: tuple, shared_mem: int = 0) -> None:
        """Run the kernel for every thread of every block, and return when all have finished.

        Raises TypeError for arguments that the kernel does not take, and KernelError for a launch that no GPU
        takes, or if a thread touches memory that it must not, or waits for one that does not come.
        """
        module = self.module
        grid = self._size("grid", grid, MAX_GRID)
        block = self._size("block", block, MAX_BLOCK)
        if math.prod(block) > MAX_THREADS:
            raise KernelError(f"kernel {self.name}: a block {block} of more than {MAX_THREADS} threads")
        packed, regions = pack(self.name, self.parameters, self.types, args)
        memory = merged(regions)
        shared = (Shared * len(module.shared))(*(place for _, place in module.shared))
        launch = Launch(
            grid=grid,
            block=block,
            order=ORDERS[_order.get()],
            argument_count=len(args),
            dynamic_shared=self._shared(shared_mem),
            arguments=packed,
            memory=(Memory * len(memory))(*memory),
            memory_count=len(memory),
            shared=shared,
            shared_count=len(shared),
        )
        if getattr(module.library, f"launch_{self.name}")(ctypes.byref(launch)):
            regions += [Region(name, place.begin, place.end) for name, place in module.shared]
            module.library.cuda_on_cpu_dynamic_shared.restype = ctypes.c_uint64
            start = module.library.cuda_on_cpu_dynamic_shared()
            regions.append(Region("the `extern __shared__` array", start, start + shared_mem))
            raise KernelError(explain(self.name, module.source, module.path, launch, regions))
        self._shared(shared_mem, sum(array.end - array.begin for array in shared if array.used))

    def _size(self, name: str, size: tuple, largest: tuple[int, ...]) -> tuple[int, ...]:
        """Return a grid or a block as three numbers; KernelError for what no GPU takes."""
        if not isinstance(size, tuple) or not 1 <= len(size) <= 3:
            raise TypeError(
                f"kernel {self.name}: the {name} is a tuple of one to three integers, got {size!r}"
            )
        full = tuple(operator.index(n) for n in size) + (1,) * (3 - len(size))
        if any(not 1 <= n <= limit for n, limit in zip(full, largest, strict=True)):
            raise KernelError(f"kernel {self.name}: a {name} {size}; each number is from 1 to {largest}")
        return full

    def _shared(self, dynamic: int, static: int = 0) -> int:
        """Return the bytes of shared memory sized at the launch; KernelError if there are too many in all."""
        if not 0 <= dynamic <= MAX_SHARED - static:
            asked = f"{static} + {dynamic}" if static else f"{dynamic}"
            raise KernelError(f"kernel {self.name}: {asked} bytes of shared memory; a block has {MAX_SHARED}")
        return dynamic


@functools.cache
def load(source: Path, dtype: str) -> Module:
    """Compile a file of CUDA C in which `T` is the number type, "float32" or "float64", once.

    Raises KernelError with g++'s message, in the file's own line numbers, if it does not compile.
    """
    return Module(source, dtype)


def text_from(function: Any) -> str:
    """Call a function of C that returns text."""
    function.restype = ctypes.c_char_p
    return function().decode()

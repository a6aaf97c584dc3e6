"""Loading and launching kernels, with the interface of `cupy.RawModule` and `cupy.RawKernel`."""

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
from minidl.cuda_on_cpu.graph import recording
from minidl.cuda_on_cpu.launch import Launch, Memory, Shared, variables

ORDERS = {"forward": 0, "reverse": 1, "shuffled": 2}

# Limits of every GPU: threads per block, in all and along each axis; blocks along each axis; shared bytes.
MAX_THREADS, MAX_BLOCK, MAX_GRID = 1024, (1024, 1024, 64), (2**31 - 1, 65535, 65535)
MAX_SHARED = 48 << 10

_order: ContextVar[str] = ContextVar("thread_order", default="forward")


@contextlib.contextmanager
def thread_order(order: str) -> Iterator[None]:
    """Set the order of blocks, and of threads between barriers: "forward", "reverse" or "shuffled".

    A GPU guarantees no order, so a kernel whose result depends on the order lacks a barrier. In the first two
    orders each warp runs to the next barrier, past its warp shuffles, before the next warp starts: as far
    ahead as possible. In "shuffled" order each thread runs until it must wait. The order is seeded. Raises
    ValueError.
    """
    if order not in ORDERS:
        raise ValueError(f"thread_order: unknown order {order!r}; choose from {', '.join(ORDERS)}")
    token = _order.set(order)
    try:
        yield
    finally:
        _order.reset(token)


class Module:
    """The kernels of one file, compiled for one dtype; the text of `common` precedes it."""

    def __init__(self, source: Path, dtype: str, common: Path | None = None) -> None:
        self.source, self.path = source, compile_kernels(source, dtype, common)
        self.library = ctypes.PyDLL(str(self.path))  # PyDLL holds the GIL: one launch at a time
        self.kernels = find_kernels(text_from(self.library.cuda_on_cpu_kernels))
        self.shared = [found for path in (common, source) if path for found in self._find_shared(path)]

    def get_function(self, name: str) -> Kernel:
        """Return a kernel by name. Raises KernelError if the file has no kernel of that name."""
        if name not in self.kernels:
            raise KernelError(f"{self.source.name} has no kernel {name}; it has {', '.join(self.kernels)}")
        return Kernel(self, name)

    def _find_shared(self, path: Path) -> list[tuple[str, Shared]]:
        """Return the name and the memory of each `__shared__` array that a file declares."""
        lines, text = set(), without_comments(path.read_text(encoding="utf-8"))
        for match in re.finditer(r"__shared__[^;]*;", text):
            first = text.count("\n", 0, match.start()) + 1
            lines |= set(range(first, first + match[0].count("\n") + 1))
        found = []
        for v in variables(self.library):
            if v.place and v.place[0].file == str(path).encode() and v.place[0].line in lines:
                place = Shared(v.begin, v.begin + v.size, v.begin + v.size_with_red_zone)
                found.append((f"shared array `{v.name.decode()}`", place))
        return found


class Kernel:
    """One kernel, called as in CuPy: `kernel(grid, block, arguments, shared_mem=0)`."""

    def __init__(self, module: Module, name: str) -> None:
        self.module, self.name, self.parameters = module, name, module.kernels[name]
        self.types = text_from(getattr(module.library, f"types_{name}")).split()

    def __call__(self, grid: tuple, block: tuple, args: tuple, shared_mem: int = 0) -> None:
        """Run the kernel for every thread of every block, and return when all have finished.

        Raises TypeError for arguments that do not match the kernel's parameters. Raises KernelError for a
        launch beyond the limits of a GPU, for an illegal memory access, and for a barrier that some threads
        never reach. While a graph is captured, the launch is recorded instead, and checked at every replay.
        """
        if graph := recording():
            graph.add(self, grid, block, args, shared_mem)
            return
        module = self.module
        grid = self._size("grid", grid, MAX_GRID)
        block = self._size("block", block, MAX_BLOCK)
        if math.prod(block) > MAX_THREADS:
            raise KernelError(f"kernel {self.name}: the block {block} has more than {MAX_THREADS} threads")
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
        """Return a grid or block as three numbers; raise KernelError if it is beyond the limits of a GPU."""
        if not isinstance(size, tuple) or not 1 <= len(size) <= 3:
            raise TypeError(
                f"kernel {self.name}: the {name} must be a tuple of one to three integers, got {size!r}"
            )
        full = tuple(operator.index(n) for n in size) + (1,) * (3 - len(size))
        if any(not 1 <= n <= limit for n, limit in zip(full, largest, strict=True)):
            raise KernelError(f"kernel {self.name}: the {name} is {size}; each number must be 1 to {largest}")
        return full

    def _shared(self, dynamic: int, static: int = 0) -> int:
        """Return the dynamic shared memory in bytes; raise KernelError if the block has too much in all."""
        if not 0 <= dynamic <= MAX_SHARED - static:
            size = f"{static} + {dynamic}" if static else f"{dynamic}"
            raise KernelError(f"kernel {self.name}: {size} bytes of shared memory; a block has {MAX_SHARED}")
        return dynamic


@functools.cache
def load(source: Path, dtype: str, common: Path | None = None) -> Module:
    """Compile a file of CUDA C, in which `T` is the type of a number, "float32" or "float64"; only once.

    `common` is a file of functions whose text precedes that of `source`. Raises KernelError with g++'s
    message, which shows the file's own line numbers, if it does not compile.
    """
    return Module(source, dtype, common)


def text_from(function: Any) -> str:
    """Return the text returned by a C function."""
    function.restype = ctypes.c_char_p
    return function().decode()

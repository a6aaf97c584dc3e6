"""Compiling and launching CUDA kernels, each in a `.cu` file next to the Python file that launches it."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np

from minidl.backend.arrays import Array, device_of
from minidl.backend.devices import require

C_TYPES = {"float32": "float", "float64": "double"}
COMMON = Path(__file__).parents[1] / "common.cuh"  # functions that several kernels need
THREADS = 256  # per block, in kernels whose threads do not cooperate
TILE = (32, 8)  # threads of a block that covers a part of an image: along a row, and down the columns
# The largest index that a kernel can use in 32 bits. A thread strides by the size of the grid and so
# overshoots the last number before it stops, by less than 2^20.
LARGEST = 2**31 - 2**20


class TooLargeError(OverflowError):
    """An array has more numbers than a kernel can count; the message says how many and what to do.

    It is not a ValueError, because an operation reports a ValueError as a mismatch of shapes.
    """


def cover(threads: int, block: int = THREADS) -> tuple[tuple[int], tuple[int]]:
    """Return the (grid, block) of a launch with at least `threads` threads, rounded up to whole blocks."""
    return (math.ceil(threads / block),), (block,)


def cover_planes(shape: tuple[int, ...]) -> tuple[tuple[int, int, int], tuple[int, int]]:
    """Return the (grid, block) of a launch with a thread for every pixel of images (N, C, H, W).

    The first axis of the grid counts the N C planes, since CUDA allows it 2^31 blocks and the others 65535.
    """
    N, C, H, W = shape
    return (N * C, math.ceil(H / TILE[1]), math.ceil(W / TILE[0])), TILE


class Kernels:
    """The CUDA kernels in the `.cu` file next to a Python file, compiled at the first launch for each dtype.

    The type of a number is called `T` in the file. It becomes float or double, so that the same source serves
    training in float32 and gradient checks in float64.
    """

    def __init__(self, python_file: str) -> None:
        self.source = Path(python_file).with_suffix(".cu")

    def launch(
        self, name: str, grid: tuple[int, ...], block: tuple[int, ...], *arguments: Array | int | float
    ) -> None:
        """Run a kernel: a `grid` of blocks, each of `block` threads, with up to three axes each.

        The first argument is an array and determines the device and T. A Python int is passed as `int`, a
        float as `T`. Raises TypeError for an array on another device or with another floating-point dtype,
        ValueError for an array that is not contiguous, because the kernel would read its numbers in the wrong
        order, and TooLargeError for an integer or an array size above LARGEST.
        """
        if 0 in grid:
            return  # an empty array needs no threads, and CUDA rejects an empty grid
        device, dtype = device_of(arguments[0]), arguments[0].dtype
        kernel = _compiled(self.source, COMMON, name, device, str(dtype))
        kernel(grid, block, tuple(self._as_c(name, a, device, dtype) for a in arguments))

    @staticmethod
    def _as_c(name: str, argument: Array | int | float, device: str, dtype: np.dtype) -> Array | np.generic:
        """Convert an argument to the size that the kernel expects: CuPy passes a Python int as 8 bytes."""
        if isinstance(argument, float):
            return dtype.type(argument)
        if isinstance(argument, int):
            if argument > LARGEST:
                raise TooLargeError(
                    f"{name}: {argument} is too large for the kernel's 32 bits; use a smaller batch"
                )
            return np.int32(argument)
        if device_of(argument) != device or (argument.dtype.kind == "f" and argument.dtype != dtype):
            raise TypeError(
                f"{name}: {argument.dtype} on {device_of(argument)} and {dtype} on {device} in one launch; "
                "convert one of them"
            )
        if argument.size > LARGEST:
            raise TooLargeError(
                f"{name}: an array of {argument.size} numbers is too large for the kernel's 32 bits; "
                "use a smaller batch"
            )
        if not argument.flags.c_contiguous:
            raise ValueError(f"{name}: a kernel needs contiguous arrays, got strides {argument.strides}")
        return argument


def kernel_source(source: Path, dtype: str, common: Path = COMMON) -> str:
    """Return a `.cu` file's source for one dtype, after that of `common`, each with its own line numbers.

    T is a type and not a macro (-DT=float), because NVIDIA's headers have templates whose parameter is T.
    """
    texts = [f'#line 1 "{path.name}"\n{path.read_text(encoding="utf-8")}' for path in (common, source)]
    return "\n".join([f"using T = {C_TYPES[dtype]};", *texts])


@functools.cache
def _compiled(source: Path, common: Path, name: str, device: str, dtype: str) -> Any:
    """Return a kernel compiled for the device and the dtype: a cupy.RawKernel, or the emulator's Kernel.

    A file is read once. If it is edited, the next program uses the new text.
    """
    require(device)
    if device == "cuda":
        import cupy

        code = kernel_source(source, dtype, common)
        return cupy.RawModule(code=code, options=("--std=c++17",)).get_function(name)
    from minidl import cuda_on_cpu

    return cuda_on_cpu.load(source, dtype, common).get_function(name)

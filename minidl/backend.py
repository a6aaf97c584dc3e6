"""Where arrays live: NumPy on the CPU, CuPy on an NVIDIA GPU, or a GPU that the CPU plays.

CuPy repeats NumPy's interface on the GPU, so one line of array code runs on both if it asks the array
which library it belongs to: `xp = array_module(x)`, then `xp.exp(x)`. What CuPy has no fast answer for
is written by hand in CUDA C beside the Python (`ops/conv.cu` beside `ops/conv.py`) and launched from here:

    kernels = Kernels(__file__)                                       # in ops/conv.py: conv.cu
    kernels.launch("im2col", *cover(threads), x, col, threads, ...)   # compiled at the first launch

Three devices hold arrays. "cpu" is NumPy and runs no kernel. "cuda" is CuPy. "cuda-on-cpu" is NumPy memory
behind a type of its own, on which the same unchanged kernels run, built by g++ (`minidl.cuda_on_cpu`): slow,
but every line of CUDA can be run, tested and stepped through without a GPU.

This is the only file that imports cupy, and it does so when the first GPU array is asked for: importing
the project needs no CUDA, compiles nothing and costs no start-up time.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

Array = Any  # numpy.ndarray or cupy.ndarray: the latter cannot be named without importing cupy

DEVICES = ("cpu", "cuda", "cuda-on-cpu")  # where an array can be
DEVICE_CHOICES = ("auto", *DEVICES)  # what a person can ask for
C_TYPES = {"float32": "float", "float64": "double"}
THREADS = 256  # in a block, where a kernel's threads have nothing to do with each other
# The largest number that a kernel counts to: its threads step on by the size of the grid, and so beyond the
# last number before they stop, by less than 2^20.
LARGEST = 2**31 - 2**20
# What CuPy says where a part of CUDA is not installed.
LACKING = {"libnvrtc": "compiler", "cannot open source file": "headers", "libcublas": "cuBLAS"}


class DeviceError(RuntimeError):
    """A device was asked for that this machine cannot offer; the message says why and what to do."""


class TooLargeError(OverflowError):
    """More numbers than a kernel can count; the message says how many and what to do.

    No ValueError, which from inside an operation means shapes that do not fit.
    """


def array_module(array: Array) -> ModuleType:
    """Return the library an array belongs to: `numpy`, `cupy`, or what plays cupy on the CPU."""
    return library(device_of(array))


def device_of(array: Array) -> str:
    """Return "cpu", "cuda" or "cuda-on-cpu"; raises TypeError for what is no array.

    NumPy's sums of everything are scalars: they count too.
    """
    return _device_of_type(type(array))


@functools.cache  # asked many times a step
def _device_of_type(kind: type) -> str:
    if kind.__module__ == "minidl.cuda_on_cpu.array":
        return "cuda-on-cpu"
    if issubclass(kind, np.ndarray | np.generic):
        return "cpu"
    if kind.__module__.partition(".")[0] == "cupy":
        return "cuda"
    raise TypeError(f"want an array of NumPy or CuPy, got {kind.__module__}.{kind.__qualname__}")


def runs_kernels(array: Array) -> bool:
    """Return whether the array's device runs CUDA kernels; on the others the Python beside them computes."""
    return device_of(array) != "cpu"


def is_array(value: object) -> bool:
    """Return whether a value is an array of either library, without importing cupy to find out."""
    return isinstance(value, np.ndarray) or type(value).__module__.partition(".")[0] == "cupy"


def to_device(array: Array, device: str) -> Array:
    """Return the array on a device: itself if it is there, otherwise a copy. Raises DeviceError."""
    if device == device_of(array):
        return array
    if device_of(array) != "cpu":
        array = array.get()
    if device == "cpu":
        return array
    require(device)
    return library(device).asarray(array)


def to_numpy(array: Array) -> np.ndarray:
    """Return the array as NumPy's; copies only from another device."""
    return to_device(array, "cpu")


def contiguous(array: Array) -> Array:
    """Return the array with its numbers in a row, the last axis fastest, as kernels count them."""
    return array if array.flags.c_contiguous else array.copy()


def address(array: Array) -> int:
    """Return where an array's numbers begin, for a table of pointers; the array must outlive its use."""
    if device_of(array) == "cuda":
        return array.data.ptr
    from minidl.cuda_on_cpu import array as cuda_on_cpu

    return cuda_on_cpu.address(array)


def library(device: str) -> Any:
    """Return the array library of a device, whose functions have NumPy's names."""
    if device == "cpu":
        return np
    if device == "cuda":
        import cupy

        return cupy
    from minidl.cuda_on_cpu.array import xp

    return xp


@functools.cache
def cuda_problem() -> str | None:
    """Return None if CUDA works, otherwise the reason in one line.

    Found out by computing something: CuPy can be imported, and even say that it is available, on
    machines without a driver, a compiler, headers or cuBLAS, which it loads for the first product.
    """
    try:
        import cupy

        matrix = cupy.arange(4, dtype="f4").reshape(2, 2)
        if float((matrix @ matrix + 1).sum()) != 26:
            return "a small product on the GPU came out wrong; check the driver with `nvidia-smi`"
    except ModuleNotFoundError:
        return "CuPy is not installed; pip install -e '.[cuda13]', or '.[cuda12]' for older drivers"
    except Exception as error:  # of many types, which are CuPy's own: told apart by their words
        return _meaning_of(str(error.__cause__ or error).strip() or type(error).__name__)
    return None


def _meaning_of(reason: str) -> str:
    """Say in one line what CuPy's error means and what helps."""
    if "cudaErrorInsufficientDriver" in reason:
        return _driver_problem()
    if "cudaErrorNoDevice" in reason:
        return "the driver finds no GPU; check `nvidia-smi`, and that CUDA_VISIBLE_DEVICES does not hide it"
    for words, part in LACKING.items():
        if words in reason:
            return f"CUDA's {part} cannot be found; pip install 'cupy-cuda13x[ctk]', or 12x if that is yours"
    return f"CuPy cannot use the GPU ({reason.splitlines()[0]}); check `nvidia-smi`"


def _driver_problem() -> str:
    """Tell a driver that is too old from one that is not there: CUDA's error is the same."""
    from cupy.cuda import runtime

    driver, wanted = runtime.driverGetVersion(), runtime.runtimeGetVersion()  # 12040 is CUDA 12.4
    if driver == 0:
        return "there is no NVIDIA driver; install the one for your GPU"
    has, needs = (f"{version // 1000}.{version % 1000 // 10}" for version in (driver, wanted))
    return f"the driver is for CUDA {has} and CuPy for {needs}; update the driver, or install an older CuPy"


def problem_of(device: str) -> str | None:
    """Return None if the device works here, otherwise the reason in one line."""
    if device == "cpu":
        return None
    if device == "cuda":
        return cuda_problem()
    from minidl import cuda_on_cpu

    return cuda_on_cpu.problem()


def require(device: str) -> None:
    """Raise DeviceError, with the reason and the remedy, unless the device works."""
    if problem := problem_of(device):
        raise DeviceError(f"{device}: {problem}; or use --device cpu")


def resolve_device(name: str) -> str:
    """Turn one of DEVICE_CHOICES into the device to use; "auto" takes CUDA where it works, otherwise the CPU.

    Raises DeviceError if a device is asked for by name and does not work.
    """
    if name not in DEVICE_CHOICES:
        raise DeviceError(f"unknown device {name!r}; choose from {', '.join(DEVICE_CHOICES)}")
    if name == "auto":
        return "cpu" if cuda_problem() else "cuda"
    require(name)
    return name


def describe(device: str) -> str:
    """Return a device's name with what a person wants to know of it."""
    if device == "cuda":
        from cupy.cuda import runtime

        return f"cuda ({runtime.getDeviceProperties(0)['name'].decode()})"
    if device == "cuda-on-cpu":
        return "cuda-on-cpu (GPU code run by the CPU: for learning and testing, slow)"
    return device


def to_floats(scalars: Sequence[Array | float]) -> list[float]:
    """Return arrays of one number each, all on one device, as Python floats: in one copy, however many.

    A copy from a GPU waits until all work before it is done, and the GPU then has none to do.
    """
    if not scalars or isinstance(scalars[0], float) or device_of(scalars[0]) == "cpu":
        return [float(scalar) for scalar in scalars]
    return to_numpy(array_module(scalars[0]).stack(scalars)).tolist()


def synchronize(array: Array) -> None:
    """Wait until all that was started on the array's device is done; only a GPU works on by itself."""
    if device_of(array) == "cuda":
        import cupy

        cupy.cuda.get_current_stream().synchronize()


def cover(threads: int, block: int = THREADS) -> tuple[tuple[int], tuple[int]]:
    """Return the (grid, block) of a launch with at least so many threads; the last block may have more."""
    return (math.ceil(threads / block),), (block,)


class Kernels:
    """The CUDA kernels in the `.cu` file beside a Python file, compiled at the first launch for each dtype.

    The file writes `T` for the type of a number; it becomes float or double, so that one text serves training
    in float32 and gradient checks in float64.
    """

    def __init__(self, python_file: str) -> None:
        self.source = Path(python_file).with_suffix(".cu")

    def launch(
        self, name: str, grid: tuple[int, ...], block: tuple[int, ...], *arguments: Array | int | float
    ) -> None:
        """Run a kernel: a `grid` of blocks, each of `block` threads, up to three axes each.

        The first argument is an array and decides the device and T. A Python int goes to the kernel as
        `int`, a float as `T`. Raises TypeError for an array on another device or of floating-point numbers
        other than T, ValueError for one that is not contiguous, because a kernel would count its numbers in
        the wrong order, and TooLargeError for an integer or an array's size that a kernel cannot count to.
        """
        if 0 in grid:
            return  # arrays without numbers need no threads, and CUDA refuses a grid of none
        device, dtype = device_of(arguments[0]), arguments[0].dtype
        kernel = _compiled(self.source, name, device, str(dtype))
        kernel(grid, block, tuple(self._as_c(name, a, device, dtype) for a in arguments))

    @staticmethod
    def _as_c(name: str, argument: Array | int | float, device: str, dtype: np.dtype) -> Array | np.generic:
        """Give an argument the size that the kernel expects: CuPy would send 8 bytes for a Python int."""
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
                f"{name}: {argument.dtype} on {device_of(argument)} beside {dtype} on {device}; "
                "convert one of them"
            )
        if argument.size > LARGEST:
            raise TooLargeError(
                f"{name}: an array of {argument.size} numbers is too large for the kernel's 32 bits; "
                "use a smaller batch"
            )
        if not argument.flags.c_contiguous:
            raise ValueError(f"{name}: a kernel wants contiguous arrays, got strides {argument.strides}")
        return argument


def kernel_source(source: Path, dtype: str) -> str:
    """Return the text of a file of kernels for one dtype, its lines numbered as in the file.

    T is made a type, not a macro (-DT=float): NVIDIA's own headers have templates whose parameter is T.
    """
    return f'using T = {C_TYPES[dtype]};\n#line 1 "{source.name}"\n{source.read_text(encoding="utf-8")}'


@functools.cache
def _compiled(source: Path, name: str, device: str, dtype: str) -> Any:
    """Return a kernel, compiled for the device and the dtype: cupy.RawKernel, or what plays it on the CPU."""
    require(device)
    if device == "cuda":
        import cupy

        return cupy.RawModule(code=kernel_source(source, dtype), options=("--std=c++17",)).get_function(name)
    from minidl import cuda_on_cpu

    return cuda_on_cpu.load(source, dtype).get_function(name)

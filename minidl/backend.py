"""Where arrays live: NumPy on the CPU, CuPy on an NVIDIA GPU.

CuPy repeats NumPy's interface on the GPU, so one line of array code runs on both if it asks the array
which library it belongs to: `xp = array_module(x)`, then `xp.exp(x)`. What CuPy has no fast answer for
is written by hand in CUDA C beside the Python (`ops/conv.cu` beside `ops/conv.py`) and loaded here.

This is the only file that imports cupy, and it does so when the first GPU array is asked for: importing
the project needs no CUDA, compiles nothing and costs no start-up time.
"""

from __future__ import annotations

import functools
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

Array = Any  # numpy.ndarray or cupy.ndarray: the latter cannot be named without importing cupy

DEVICES = ("auto", "cpu", "cuda")
C_TYPES = {"float32": "float", "float64": "double"}


class DeviceError(RuntimeError):
    """A device was asked for that this machine cannot offer; the message says why and what to do."""


def array_module(array: Array) -> ModuleType:
    """Return the library an array belongs to: `numpy`, or `cupy` for an array on the GPU."""
    if device_of(array) == "cpu":
        return np
    import cupy

    return cupy.get_array_module(array)


def device_of(array: Array) -> str:
    """Return `"cpu"` or `"cuda"`. NumPy's sums of everything are scalars, not arrays: they count too."""
    return "cpu" if isinstance(array, np.ndarray | np.generic) else "cuda"


def is_array(value: object) -> bool:
    """Return whether a value is an array of either library, without importing cupy to find out."""
    return isinstance(value, np.ndarray) or type(value).__module__.partition(".")[0] == "cupy"


def to_device(array: Array, device: str) -> Array:
    """Return the array on `device` (`"cpu"` or `"cuda"`): itself if it is there, otherwise a copy."""
    if device == device_of(array):
        return array
    if device == "cpu":
        return array.get()
    require_cuda()
    import cupy

    return cupy.asarray(array)


def to_numpy(array: Array) -> np.ndarray:
    """Return the array as NumPy's; copies only from the GPU."""
    return to_device(array, "cpu")


@functools.cache
def cuda_problem() -> str | None:
    """Return None if CUDA works, otherwise the reason in one line.

    Found out by computing something: CuPy can be imported, and even say that it is available, on
    machines without a driver, a compiler or headers.
    """
    try:
        import cupy

        if int((cupy.arange(4, dtype="i4") + 1).sum()) != 10:
            return "a small sum on the GPU came out wrong; check the driver with `nvidia-smi`"
    except ModuleNotFoundError:
        return "CuPy is not installed; pip install -e '.[cuda13]', or '.[cuda12]' for older drivers"
    except Exception as error:  # CuPy raises many types here: no driver, an old driver, no compiler
        reason = str(error.__cause__ or error).strip() or type(error).__name__
        return f"CuPy cannot use the GPU ({reason.splitlines()[0]}); check `nvidia-smi`"
    return None


def require_cuda() -> None:
    """Raise DeviceError, with the reason and the remedy, unless CUDA works."""
    if problem := cuda_problem():
        raise DeviceError(f"cuda: {problem}; or use --device cpu")


def resolve_device(name: str) -> str:
    """Turn `"auto"`, `"cpu"` or `"cuda"` into the device to use; `"auto"` takes CUDA where it works.

    Raises DeviceError if CUDA is asked for by name and does not work.
    """
    if name not in DEVICES:
        raise DeviceError(f"unknown device {name!r}; choose from {', '.join(DEVICES)}")
    if name == "auto":
        return "cpu" if cuda_problem() else "cuda"
    if name == "cuda":
        require_cuda()
    return name


@functools.cache
def load_kernels(source: Path, dtype: str) -> Any:
    """Compile a file of CUDA C for one dtype, once, and return the module holding its kernels.

    The file writes `T` for the number type; it becomes float or double here, so that one text serves
    training in float32 and gradient checks in float64. `load_kernels(...).get_function(name)` is a kernel.
    """
    require_cuda()
    import cupy

    return cupy.RawModule(code=source.read_text(), options=("--std=c++17", f"-DT={C_TYPES[dtype]}"))

"""Arrays on the CPU or on a GPU, and the CUDA kernels that run on them.

CuPy provides NumPy's interface on the GPU. The same array code therefore runs on both, if it asks the array
for its library: `xp = array_module(x)`, then `xp.exp(x)`. Where CuPy has no fast function, the operation is
written in CUDA C in a file next to the Python file (`im2col.cu` next to `im2col.py`) and launched from there:

    kernels = Kernels(__file__)                                       # in im2col.py: finds im2col.cu
    kernels.launch("im2col", *cover(threads), x, col, threads, ...)   # compiled at the first launch

There are three devices:

| device | arrays | kernels |
|---|---|---|
| "cpu" | NumPy | none: array code computes the result |
| "cuda" | CuPy | compiled by NVIDIA's compiler, run on the GPU |
| "cuda-on-cpu" | NumPy memory, in a separate type | the same source, compiled by g++, run by an emulator |

The emulator (`minidl.cuda_on_cpu`) is slow, but with it every line of CUDA can be run, tested and debugged
without a GPU.

    devices.py     the devices: which of them work on this machine, and why the others do not
    arrays.py      an array's device and library
    transfers.py   copies between devices, some of them while the GPU computes; a device's free memory
    kernels.py     compiling and launching CUDA kernels
    precision.py   rounding in matrix products (TF32)
    graphs.py      recording the work of a function as a CUDA graph, and launching it again

This package is the only one that imports CuPy, and only when the first GPU array is created: importing the
project needs no CUDA and compiles nothing.
"""

from minidl.backend.arrays import Array, address, array_module, contiguous, device_of, is_array, library
from minidl.backend.devices import (
    CPU,
    DEVICE_CHOICES,
    DEVICES,
    GPU,
    DeviceError,
    cuda_problem,
    describe,
    problem_of,
    require,
    resolve_device,
)
from minidl.backend.graphs import CaptureError, DeviceGraph, Numbers, constant, refuse_capture
from minidl.backend.kernels import (
    C_TYPES,
    COMMON,
    LARGEST,
    THREADS,
    Kernels,
    TooLargeError,
    cover,
    cover_planes,
    kernel_source,
)
from minidl.backend.precision import tf32
from minidl.backend.transfers import (
    Copy,
    copy_stream,
    free_memory,
    pinned_empty,
    synchronize,
    to_device,
    to_floats,
    to_numpy,
)

__all__ = [
    "COMMON",
    "CPU",
    "C_TYPES",
    "DEVICES",
    "DEVICE_CHOICES",
    "GPU",
    "LARGEST",
    "THREADS",
    "Array",
    "CaptureError",
    "Copy",
    "DeviceError",
    "DeviceGraph",
    "Kernels",
    "Numbers",
    "TooLargeError",
    "address",
    "array_module",
    "constant",
    "contiguous",
    "copy_stream",
    "cover",
    "cover_planes",
    "cuda_problem",
    "describe",
    "device_of",
    "free_memory",
    "is_array",
    "kernel_source",
    "library",
    "pinned_empty",
    "problem_of",
    "refuse_capture",
    "require",
    "resolve_device",
    "synchronize",
    "tf32",
    "to_device",
    "to_floats",
    "to_numpy",
]

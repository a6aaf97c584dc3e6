"""The devices: which of them work on this machine, and why the others do not."""

from __future__ import annotations

import functools

CPU, GPU = ("cpu",), ("cuda", "cuda-on-cpu")  # the devices for array code only, and for CUDA kernels too
DEVICES = (*CPU, *GPU)  # where an array can be stored
DEVICE_CHOICES = ("auto", *DEVICES)  # what a user can ask for
# A part of CUDA that is not installed, by a fragment of CuPy's error message.
MISSING_PARTS = {"libnvrtc": "compiler", "cannot open source file": "headers", "libcublas": "cuBLAS"}


class DeviceError(RuntimeError):
    """The requested device does not work on this machine; the message says why and what to do."""


@functools.cache
def cuda_problem() -> str | None:
    """Return None if CUDA works, otherwise the reason in one line.

    The check computes a small product, because importing CuPy proves little: CuPy can be imported, and can
    even report that CUDA is available, without a driver, a compiler, headers or cuBLAS.
    """
    try:
        import cupy

        matrix = cupy.arange(4, dtype="f4").reshape(2, 2)
        if float((matrix @ matrix + 1).sum()) != 26:
            return "a small product on the GPU came out wrong; check the driver with `nvidia-smi`"
    except ModuleNotFoundError:
        return "CuPy is not installed; pip install -e '.[cuda13]', or '.[cuda12]' for older drivers"
    except Exception as error:  # CuPy raises many types; only their messages distinguish them
        return _explain(str(error.__cause__ or error).strip() or type(error).__name__)
    return None


def _explain(message: str) -> str:
    """Return the cause of CuPy's error message and its remedy, in one line."""
    if "cudaErrorInsufficientDriver" in message:
        return _driver_problem()
    if "cudaErrorNoDevice" in message:
        return "the driver finds no GPU; check `nvidia-smi`, and that CUDA_VISIBLE_DEVICES does not hide it"
    for fragment, part in MISSING_PARTS.items():
        if fragment in message:
            return (
                f"CUDA's {part} cannot be found; pip install 'cupy-cuda13x[ctk]', or 'cupy-cuda12x[ctk]' "
                "for older drivers"
            )
    return f"CuPy cannot use the GPU ({message.splitlines()[0]}); check `nvidia-smi`"


def _driver_problem() -> str:
    """Distinguish a missing driver from one that is too old; CUDA raises the same error for both."""
    from cupy.cuda import runtime

    driver, needed = runtime.driverGetVersion(), runtime.runtimeGetVersion()  # 12040 is CUDA 12.4
    if driver == 0:
        return "there is no NVIDIA driver; install the one for your GPU"
    has, needs = (f"{version // 1000}.{version % 1000 // 10}" for version in (driver, needed))
    return (
        f"the driver supports CUDA {has} but CuPy needs {needs}; update the driver, or install an older CuPy"
    )


def problem_of(device: str) -> str | None:
    """Return None if the device works on this machine, otherwise the reason in one line."""
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
    """Turn one of DEVICE_CHOICES into a device; "auto" is CUDA if it works, otherwise the CPU.

    Raises DeviceError for an unknown name, and for a device that does not work.
    """
    if name not in DEVICE_CHOICES:
        raise DeviceError(f"unknown device {name!r}; choose from {', '.join(DEVICE_CHOICES)}")
    if name == "auto":
        return "cpu" if cuda_problem() else "cuda"
    require(name)
    return name


def describe(device: str) -> str:
    """Return a device's name, followed by details for the user."""
    if device == "cuda":
        from cupy.cuda import runtime

        return f"cuda ({runtime.getDeviceProperties(0)['name'].decode()})"
    if device == "cuda-on-cpu":
        return "cuda-on-cpu (CUDA kernels emulated on the CPU: for learning and testing, slow)"
    return device

"""Copies between devices, waiting for a GPU, and the free memory of a device.

A GPU works through a *stream*, a queue of copies and kernels, while Python continues. A second stream can
copy to the GPU while the first one computes (`CopyStream`). The two are ordered only by *events*: an event
marks a position in a stream, and a stream or the CPU can wait for it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from minidl.backend.arrays import Array, array_module, device_of, library
from minidl.backend.devices import require


def to_device(array: Array, device: str) -> Array:
    """Return the array on a device: the array itself if it is there already, otherwise a copy.

    Raises DeviceError if the device does not work.
    """
    if device == device_of(array):
        return array
    if device_of(array) != "cpu":
        array = array.get()
    if device == "cpu":
        return array
    require(device)
    return library(device).asarray(array)


def to_numpy(array: Array) -> np.ndarray:
    """Return the array as a NumPy array; copies only from another device."""
    return to_device(array, "cpu")


def to_floats(scalars: Sequence[Array | float]) -> list[float]:
    """Return arrays of one number each, all on one device, as Python floats, with a single copy.

    A copy from a GPU waits for all work queued before it, and leaves the GPU idle: one copy, one stall.
    """
    if any(isinstance(scalar, float) or device_of(scalar) == "cpu" for scalar in scalars):
        return [float(scalar) for scalar in scalars]
    return to_numpy(array_module(scalars[0]).stack(scalars)).tolist() if scalars else []


def synchronize(array: Array) -> None:
    """Wait until the array's device has finished all work queued so far; only a GPU works asynchronously."""
    if device_of(array) == "cuda":
        import cupy

        cupy.cuda.get_current_stream().synchronize()


def free_memory(device: str) -> int:
    """Return the bytes that new arrays on the device can occupy; of a CPU, those that nothing else uses."""
    if device == "cuda":
        import cupy

        free, _ = cupy.cuda.runtime.memGetInfo()
        return free + cupy.get_default_memory_pool().free_bytes()  # the pool reuses freed memory
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def pinned_empty(size: int, dtype: np.dtype) -> np.ndarray:
    """Return an uninitialised 1-D NumPy array in pinned memory, which the operating system never moves.

    A GPU can read pinned memory by itself; a copy from other memory would stop Python until it is complete.
    """
    import cupy

    return np.frombuffer(cupy.cuda.alloc_pinned_memory(size * dtype.itemsize), dtype, size)


class Copy(NamedTuple):
    """A copy to the GPU that may still be running. It keeps its source alive."""

    source: np.ndarray  # pinned memory, not to be reused before the copy is complete
    event: Any  # cupy.cuda.Event, reached when the copy is complete

    def delay_kernels(self) -> None:
        """Make the kernels launched from now on wait for the copy; Python continues at once."""
        import cupy

        cupy.cuda.get_current_stream().wait_event(self.event)

    def wait(self) -> None:
        """Block until the copy is complete."""
        self.event.synchronize()


class CopyStream:
    """A stream of copies to the GPU, separate from the stream in which the GPU computes."""

    def __init__(self) -> None:
        import cupy

        self.stream = cupy.cuda.Stream(non_blocking=True)

    def send(self, pinned: np.ndarray) -> tuple[Array, Copy]:
        """Start copying a pinned array; return the array on the GPU, not yet complete, and the copy."""
        import cupy

        array = cupy.empty(pinned.size, pinned.dtype)
        # CuPy reuses an array's memory as soon as Python drops the array. Kernels in the queue may still read
        # that memory, so the copy must wait for them.
        self.stream.wait_event(cupy.cuda.get_current_stream().record())
        array.set(pinned, self.stream)
        return array, Copy(pinned, self.stream.record())


def copy_stream(device: str) -> CopyStream | None:
    """Return a stream for copies to the device; None for a device that computes in the CPU's memory."""
    return CopyStream() if device == "cuda" else None

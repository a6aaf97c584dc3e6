"""CUDA graphs: recording the work of a function once, and launching all of it with one call.

    graph = DeviceGraph(device)
    with graph.prepared():
        function()                          # as usual: compiles kernels and allocates memory
    outputs = graph.capture(function)       # records the same work, and executes nothing
    graph.launch()                          # executes it; the results are in `outputs`

`minidl.graph` explains what a function must observe so that it can be captured. This file has what differs
between the devices, and what such a function needs:

    constant          copies an array from the CPU; during a capture, the copy is made after it
    Numbers           numbers that change from step to step, at a fixed address
    refuse_capture    raises an exception during a capture

A graph has its own memory pool. Otherwise memory that CuPy frees in the function, and that the graph uses in
every launch, would be given to another array.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, TypeVar

import numpy as np

from minidl.backend.arrays import Array, array_module, library

Result = TypeVar("Result")

# Arrays to be copied to the device after the capture in progress, each with its source; None without one.
_late: ContextVar[list[tuple[Array, np.ndarray]] | None] = ContextVar("late", default=None)

CUBLAS = "cuBLAS computes a matrix product (of im2col, or of a large linear layer), which CuPy cannot capture"


class CaptureError(RuntimeError):
    """A function that cannot be captured as a graph; the message is the reason."""


def refuse_capture(reason: str) -> None:
    """Raise CaptureError if a graph is being captured."""
    if _late.get() is not None:
        raise CaptureError(reason)


def constant(array: np.ndarray, device: str) -> Array:
    """Return a copy of an array on the device, which no kernel may change.

    A copy from the CPU cannot be captured. During a capture, the memory is therefore allocated at once and
    filled after the capture. It must not come from the graph's pool: there it could be memory in which an
    earlier kernel of the graph keeps a result, which every launch would write over the constant.
    """
    late = _late.get()
    if late is None:
        return library(device).asarray(array)
    with _outside_the_graph(device):
        copy = library(device).empty(array.shape, array.dtype)
    late.append((copy, array))
    return copy


@contextmanager
def _outside_the_graph(device: str) -> Iterator[None]:
    """Allocate arrays in this block in the ordinary memory pool."""
    if device == "cuda":
        import cupy

        memory = cupy.cuda.using_allocator(cupy.get_default_memory_pool().malloc)
    else:
        from minidl.cuda_on_cpu.graph import outside

        memory = outside()
    with memory:
        yield


class Numbers:
    """A few numbers that change from step to step, in an array at a fixed address, where kernels read them.

    A number passed to a kernel as an argument would keep, in a graph, the value that it had in the capture.
    """

    def __init__(self, count: int, like: Array) -> None:
        self.array = array_module(like).zeros(count, like.dtype)

    def write(self, *values: float) -> None:
        """Write all numbers; on a GPU without waiting. Raises CaptureError during a capture."""
        refuse_capture("the numbers of a step must be written before the graph is launched")
        for i, value in enumerate(values):
            self.array[i] = value


class DeviceGraph:
    """The work of a function on "cuda" or "cuda-on-cpu", recorded by `capture` and repeated by `launch`."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.graph: Any = None  # cupy.cuda.Graph or minidl.cuda_on_cpu.graph.Graph
        self.constants: list[tuple[Array, np.ndarray]] = []
        if device == "cuda":
            import cupy

            # The default stream cannot be captured. The memory in a pool belongs to one stream.
            self.stream, self.pool = cupy.cuda.Stream(non_blocking=True), cupy.cuda.MemoryPool()

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Run the work of this block in the graph's stream, with memory from the graph's pool.

        It waits for the work that was queued before, and later work waits for it.
        """
        if self.device != "cuda":
            yield
            return
        import cupy

        outside = cupy.cuda.get_current_stream()
        self.stream.wait_event(outside.record())
        try:
            with self.stream, cupy.cuda.using_allocator(self.pool.malloc):
                yield
        finally:
            outside.wait_event(self.stream.record())

    def capture(self, function: Callable[[], Result]) -> Result:
        """Record the function's work and return its result, whose arrays get their values from `launch`.

        Raises CaptureError, with the reason, if the function does something that cannot be recorded.
        """
        self.constants = []
        token = _late.set(self.constants)
        try:
            with self.prepared():
                result = self._record(function)
        except CaptureError:
            raise
        except NotImplementedError as error:
            raise CaptureError(CUBLAS if "cuBLAS" in str(error) else str(error)) from error
        except MemoryError as error:
            raise CaptureError("there is not enough memory for the graph's own memory pool") from error
        except Exception as error:  # CUDA's and CuPy's exceptions have many types
            raise CaptureError(str(error).strip().partition("\n")[0] or type(error).__name__) from error
        finally:
            _late.reset(token)
        for copy, array in self.constants:
            copy[...] = library(self.device).asarray(array)
        return result

    def _record(self, function: Callable[[], Result]) -> Result:
        if self.device == "cuda-on-cpu":
            from minidl.cuda_on_cpu.graph import captured

            with captured() as self.graph:
                return function()
        self.stream.begin_capture()
        try:
            result = function()
        except BaseException:
            self._abandon()
            raise
        self.graph = self.stream.end_capture()
        return result

    def _abandon(self) -> None:
        """End a failed capture, so that the stream can be used again."""
        with suppress(Exception):  # CUDA may report here that the capture is invalid, which is known
            self.stream.end_capture()

    def launch(self) -> None:
        """Queue all recorded work, after the work that was queued before."""
        self.graph.launch()

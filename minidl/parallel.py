"""Data-parallel training: several processes share each batch and compute what one process would.

Every process has a copy of the network. Process i computes n_i of the N images of a batch, and their loss
L_i. With w_i = n_i / N, the loss of the batch is a weighted mean, and its gradient therefore a sum:

    L = sum_i w_i L_i,        dL/dp = sum_i  d(w_i L_i)/dp        for every parameter p

This takes one exchange in each step, an Allreduce: afterwards every process has the sum. Every process then
takes the same step from the same weights, so the weights never need to be sent again.

The copies stay equal, to the bit, because the processes agree in everything that a step depends on:

    first weights            those of process 0, broadcast
    order of the images      the same random numbers in every process; each takes its part of every batch
    augmentation             one seed for each image, drawn with the order (`minidl.data`)
    statistics of batch norm, and the sums of its gradient: exchanged in every layer (`minidl.ops.norm.batch`)
    loss                     the weight w_i is that of what the loss averages over: images, or class weights
    clipping, optimizer, moving average: computed from equal numbers, in every process again

Compared with a single process only the order of summation differs, and so the last digits.

**Idle processes.** The last batch of an epoch may have fewer images than there are processes. A process
without an image still takes part in every exchange. It computes the first image of the batch as well, with
the weight 0, and contributes zeros to the sums.

**Waiting.** MPI waits in a loop that occupies the processor. That is the fastest if every process has its own
core. If not, the processes that wait delay those that compute. So `_wait` asks in a loop for at most a
millisecond, and then sleeps between its questions.

MPI connects the processes, through mpi4py. On GPUs, NCCL adds the arrays (`minidl.backend.nccl`). Without
mpi4py there is one process, and nothing here imports it. `minidl.connect` finds out which of the two it is.
"""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from minidl.backend import Array, array_module, device_of, to_device, to_numpy
from minidl.backend.nccl import NCCL
from minidl.nn import BatchNorm2d, Module
from minidl.tensor import Parameter
from minidl.threads import available_cores

__all__ = ["GradientSum", "ParallelError", "Processes", "on_device", "share_batches"]

SPIN_SECONDS, SLEEP_SECONDS = 1e-3, 1e-4  # of `_wait`
ALL_END_SECONDS = 2.0  # how long a process with an error waits for the same error in the others
INSTALL = "install it with: pip install -e '.[mpi]'"


class ParallelError(Exception):
    """The processes cannot work together. The message says why, and how to mend it."""


class Processes:
    """Who am I, of how many? This class is the answer of a single process: number 0 of 1."""

    rank, size = 0, 1
    images = 0  # of the current batch, in all processes together
    weights: tuple[float, ...] = (1.0,)  # the share of each process in these images

    @property
    def weight(self) -> float:
        """The share of this process in the current batch; 0 if it is idle."""
        return self.weights[self.rank]

    def divide(self, images: int) -> None:
        """Set `images` and `weights` for a batch of so many images."""
        self.images = images
        self.weights = tuple((end - begin) / images for begin, end in pairwise(self._bounds(images)))

    def part(self, images: int) -> slice:
        """Return the slice of a batch that this process computes; the first image if it has none."""
        begin, end = self._bounds(images)[self.rank : self.rank + 2]
        return slice(begin, end) if begin < end else slice(0, 1)

    def _bounds(self, images: int) -> list[int]:
        return [images * rank // self.size for rank in range(self.size + 1)]

    def sum(self, array: Array) -> None:
        """Add the arrays of all processes, in place."""

    def gather(self, array: Array) -> Array:
        """Return the arrays of all processes in the order of their ranks, (...) -> (size, ...)."""
        return array[None]

    def broadcast(self, content: Any) -> Any:
        """Return what process 0 passes."""
        return content

    def from_first(self, call: Callable[[], Any]) -> Any:
        """Call a function in process 0 only; all processes return its result, or raise its exception."""
        result = error = None
        if self.rank == 0:
            try:
                result = call()
            except Exception as caught:
                error = caught
        result, error = self.broadcast((result, error))
        if error:
            raise error
        return result

    def collect(self, content: Any) -> list[Any]:
        """Return what the processes pass, in the order of their ranks."""
        return [content]

    def wait(self) -> None:
        """Wait until all processes have called this."""

    def total(self, number: float) -> float:
        """Return the sum of the numbers of all processes."""
        numbers = np.array([number], np.float64)
        self.sum(numbers)
        return float(numbers[0])

    def must_agree(self, what: str, *values: Any) -> None:
        """Raise ParallelError, in every process, unless all pass equal values (strings or bytes)."""
        digest = hashlib.sha256()
        for value in values:
            part = value if isinstance(value, bytes) else str(value).encode(errors="surrogateescape")
            digest.update(b"%d " % len(part) + part)
        first, *others = self.collect(digest.digest())
        for rank, other in enumerate(others, 1):
            if other != first:
                raise ParallelError(
                    f"process {rank} of {self.size} has other {what} than process 0; start all processes "
                    "with the same command, program and files"
                )

    def close(self) -> None:
        """Wait for all processes at the end of their work; from then on, each may end by itself."""
        self.wait()


class MPIProcesses(Processes):
    """The processes that mpiexec has started, connected by MPI. Raises ParallelError if one is lost."""

    def __init__(self) -> None:
        self.mpi = import_mpi()
        self.world = self.mpi.COMM_WORLD
        self.rank, self.size = self.world.rank, self.world.size
        here = self.world.Split_type(self.mpi.COMM_TYPE_SHARED)  # the processes on this machine
        self.ending = self.world.Dup()  # separate: the others may be in the middle of an exchange
        self.local_rank, self.closed = here.rank, False
        self.spin_seconds = SPIN_SECONDS if here.size <= available_cores() else 0.0
        self.weights = (1.0 / self.size,) * self.size

    def sum(self, array: Array) -> None:
        numbers = to_numpy(array)  # an array of the CPU itself, a copy of any other
        self._wait(lambda: self.world.Iallreduce(self.mpi.IN_PLACE, numbers))
        if numbers is not array:
            array[...] = to_device(numbers, device_of(array))

    def gather(self, array: Array) -> Array:
        own = np.ascontiguousarray(to_numpy(array))
        everyones = np.empty((self.size, *own.shape), own.dtype)
        self._wait(lambda: self.world.Iallgather(own, everyones))
        return to_device(everyones, device_of(array))

    def broadcast(self, content: Any) -> Any:
        self.wait()  # without occupying the processor, as MPI's own waiting would
        return self.world.bcast(content)

    def collect(self, content: Any) -> list[Any]:
        self.wait()
        return self.world.allgather(content)

    def wait(self) -> None:
        self._wait(self.world.Ibarrier)

    def close(self) -> None:
        self.wait()
        self.closed = True

    def all_end(self) -> bool:
        """Return whether all processes come here within two seconds: they have the same error."""
        with suppress(self.mpi.Exception):
            request, began = self.ending.Ibarrier(), time.perf_counter()
            while not self.closed and time.perf_counter() - began < ALL_END_SECONDS:
                self.closed = request.Test()
                time.sleep(SLEEP_SECONDS)
        return self.closed

    def _wait(self, start: Any) -> None:
        """Start an exchange and wait until it is done here."""
        try:
            request, began = start(), time.perf_counter()
            while not request.Test():
                if time.perf_counter() - began > self.spin_seconds:
                    time.sleep(SLEEP_SECONDS)
        except self.mpi.Exception as error:
            raise ParallelError(f"the connection to another process is lost ({error})") from None


class GradientSum:
    """The Allreduce of a step: all gradients, and the loss, in one row, because every exchange costs time."""

    def __init__(self, processes: Processes, parameters: Sequence[Parameter]) -> None:
        first = parameters[0].data
        self.processes, self.parameters = processes, list(parameters)
        offsets = [0, *accumulate(p.data.size for p in self.parameters)]
        self.row = array_module(first).zeros(offsets[-1] + 1, first.dtype)
        parts = [self.row[begin:end] for begin, end in pairwise(offsets)]
        self.views = [part.reshape(p.shape) for part, p in zip(parts, self.parameters, strict=True)]

    def __call__(self, loss: Array) -> Array:
        """Add the gradients of all processes, and their losses w_i L_i; return the loss of the batch.

        Afterwards every `grad` is a view of the row. A parameter without a gradient keeps none.
        """
        if self.processes.weight == 0.0:
            self.row[...] = 0.0
        else:
            for p, view in zip(self.parameters, self.views, strict=True):
                view[...] = 0.0 if p.grad is None else p.grad
            self.row[-1] = loss
        self.processes.sum(self.row)
        for p, view in zip(self.parameters, self.views, strict=True):
            p.grad = None if p.grad is None else view
        return self.row[-1].copy()


def share_batches(module: Module, processes: Processes) -> None:
    """Give a network the weights of process 0, and its batch norms the statistics of whole batches."""
    if processes.size > 1:
        module.load_state_dict(processes.broadcast(module.state_dict() if processes.rank == 0 else None))
        for _, layer in module.named_modules():
            if isinstance(layer, BatchNorm2d):
                layer.processes = processes


def on_device(processes: Processes, device: str) -> Processes:
    """Return processes that add arrays of this device. On "cuda", each process takes a GPU of its own."""
    return NCCL(processes) if device == "cuda" and processes.size > 1 else processes


def require_mpi4py() -> Any:
    """Import mpi4py, which does not start MPI yet. Raises ParallelError if it is not installed."""
    try:
        import mpi4py
    except ImportError:
        raise ParallelError(f"several processes need mpi4py; {INSTALL}") from None
    return mpi4py


def import_mpi() -> Any:
    """Import mpi4py's MPI, which starts it. Raises ParallelError if mpi4py or its MPI is missing."""
    require_mpi4py().rc.thread_level = "funneled"  # only one thread of a process calls MPI
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the wrong mpiexec, which is an error in `connect`
            from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ParallelError(f"mpi4py finds no MPI ({reason}); {INSTALL}") from None
    return MPI

"""Sums over several GPUs by NCCL, NVIDIA's library for exchanges between GPUs, through CuPy.

Each process owns one GPU, and its arrays never leave the GPUs. MPI is needed once, to send the identity of
the group from process 0 to the others, and for everything that is not an array on a GPU.

**This file has not been run**, because it needs several GPUs.
"""

from __future__ import annotations

from typing import Any

from minidl.backend.arrays import Array, device_of, library


class NCCL:
    """The processes `of`, with `sum` and `gather` on their GPUs; all else is theirs."""

    def __init__(self, of: Any) -> None:
        cupy = library("cuda")
        from cupy.cuda import nccl

        cupy.cuda.Device(of.local_rank).use()
        identity = of.broadcast(nccl.get_unique_id() if of.rank == 0 else None)
        self.of, self.nccl, self.cupy = of, nccl, cupy
        self.group = nccl.NcclCommunicator(of.size, identity, of.rank)
        self.types = {"float32": nccl.NCCL_FLOAT32, "float64": nccl.NCCL_FLOAT64}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.of, name)

    def sum(self, array: Array) -> None:
        """Add the arrays of all processes, in place."""
        if device_of(array) != "cuda":
            return self.of.sum(array)
        address, kind = array.data.ptr, self.types[str(array.dtype)]
        stream = self.cupy.cuda.get_current_stream().ptr
        return self.group.allReduce(address, address, array.size, kind, self.nccl.NCCL_SUM, stream)

    def gather(self, array: Array) -> Array:
        """Return the arrays of all processes, (...) -> (size, ...)."""
        if device_of(array) != "cuda":
            return self.of.gather(array)
        own = self.cupy.ascontiguousarray(array)
        everyones = self.cupy.empty((self.of.size, *own.shape), own.dtype)
        stream = self.cupy.cuda.get_current_stream().ptr
        kind = self.types[str(own.dtype)]
        self.group.allGather(own.data.ptr, everyones.data.ptr, own.size, kind, stream)
        return everyones

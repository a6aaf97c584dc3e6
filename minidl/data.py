"""Batches: which samples, in which order, changed how, prepared while the last batch is computed.

All chance of an epoch is drawn before its first batch: one permutation of the data set, and one seed for
each sample's augmentation. So the batches do not depend on how many threads prepare them or which is
faster, and an epoch that was interrupted after k batches can go on from batch k exactly as it would have:
draw the same again, skip k.

Batches for a GPU are on their way to it while it computes the one before (`prefetched`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from minidl.backend import Array, library, to_device


class DataLoader:
    """Yield a data set's samples in batches, each sample passed through `transform(sample, rng)`.

    `shuffle` and `transform` take their randomness from `rng`, which moves on by a fixed amount an epoch.
    `collate` turns a list of samples into a batch; without it the list is the batch. `threads` prepare
    batches ahead; with 0 each is made when it is asked for.
    """

    def __init__(
        self,
        dataset: Sequence[Any],
        batch_size: int,
        *,
        shuffle: bool = False,
        rng: np.random.Generator | None = None,
        transform: Callable[[Any, np.random.Generator], Any] | None = None,
        collate: Callable[[list[Any]], Any] | None = None,
        threads: int = 0,
    ) -> None:
        if batch_size < 1 or threads < 0:
            raise ValueError(
                f"DataLoader: want batch_size >= 1 and threads >= 0, got {batch_size}, {threads}"
            )
        if (shuffle or transform) and rng is None:
            raise ValueError(
                "DataLoader: shuffle and transform need a generator, rng=numpy.random.default_rng(seed)"
            )
        self.dataset, self.batch_size, self.shuffle, self.rng = dataset, batch_size, shuffle, rng
        self.transform, self.collate, self.threads = transform, collate, threads

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        return self.batches()

    def batches(self, start: int = 0) -> Iterator[Any]:
        """Yield the batches of an epoch from number `start` on, as they would come after the others."""
        order = np.arange(len(self.dataset))
        seeds = np.zeros(len(order), np.int64)
        if self.shuffle:
            order = self.rng.permutation(len(order))
        if self.transform:
            seeds = self.rng.integers(2**63, size=len(order))
        jobs = [
            (order[i : i + self.batch_size], seeds[i : i + self.batch_size])
            for i in range(start * self.batch_size, len(order), self.batch_size)
        ]
        return self._run_ahead(jobs) if self.threads else (self._batch(*job) for job in jobs)

    def _batch(self, indices: np.ndarray, seeds: np.ndarray) -> Any:
        samples = [self.dataset[int(i)] for i in indices]
        if self.transform:
            samples = [
                self.transform(s, np.random.default_rng(seed)) for s, seed in zip(samples, seeds, strict=True)
            ]
        return self.collate(samples) if self.collate else samples

    def _run_ahead(self, jobs: list[tuple[np.ndarray, np.ndarray]]) -> Iterator[Any]:
        """Keep two batches a thread under way, and hand them out in order."""
        with ThreadPoolExecutor(self.threads) as pool:
            under_way: deque[Future[Any]] = deque()
            try:
                for job in jobs:
                    under_way.append(pool.submit(self._batch, *job))
                    if len(under_way) > 2 * self.threads:
                        yield under_way.popleft().result()
                while under_way:
                    yield under_way.popleft().result()
            finally:  # whoever stops in the middle does not wait for batches nobody will see
                for future in under_way:
                    future.cancel()


class Prefetcher:
    """Carries arrays to a device; to a GPU, while that is computing.

    A GPU fetches by itself from pinned memory, which the system never moves, on a stream of its own: a queue
    of work beside the queue that computes. The two wait for each other only where an event says so:

        computing   | step 0  | step 1  | step 2  |      step 2 begins once batch 2 has arrived
        carrying    | batch 1 | batch 2 | batch 3 |
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.leaving: deque[tuple[np.ndarray, Any]] = deque()  # pinned memory, and the event of its arrival
        if device == "cuda":
            self.stream = library(device).cuda.Stream(non_blocking=True)

    def send(self, arrays: Sequence[np.ndarray]) -> tuple[Array, list[tuple[int, ...]], Any]:
        """Set out with arrays of one dtype as one; return, without waiting, what `receive` takes.

        Raises TypeError for arrays of several dtypes, which as one would all become the widest.
        """
        if len(dtypes := {str(a.dtype) for a in arrays}) > 1:
            raise TypeError(f"a batch travels as one array of one dtype, got {', '.join(sorted(dtypes))}")
        shapes, flat = [a.shape for a in arrays], [a.ravel() for a in arrays]
        if self.device != "cuda":
            return to_device(np.concatenate(flat), self.device), shapes, None
        cupy, size, dtype = library("cuda"), sum(a.size for a in arrays), arrays[0].dtype
        pinned = np.frombuffer(cupy.cuda.alloc_pinned_memory(size * dtype.itemsize), dtype, size)
        np.concatenate(flat, out=pinned)
        there = cupy.empty(size, dtype)
        # CuPy gives away memory as soon as Python lets go of it: queued work may still be using this piece.
        self.stream.wait_event(cupy.cuda.get_current_stream().record())
        there.set(pinned, self.stream)
        arrived = self.stream.record()
        self.leaving.append((pinned, arrived))
        if len(self.leaving) > 2:
            self.leaving.popleft()[1].synchronize()  # before its memory may be written again
        return there, shapes, arrived

    def receive(self, sent: tuple[Array, list[tuple[int, ...]], Any]) -> list[Array]:
        """Return the arrays on the device; on a GPU the work queued from now on waits for them."""
        there, shapes, arrived = sent
        if arrived is not None:
            library("cuda").cuda.get_current_stream().wait_event(arrived)
        arrays, start = [], 0
        for shape in shapes:
            end = start + math.prod(shape)
            arrays.append(there[start:end].reshape(shape))
            start = end
        return arrays

    def close(self) -> None:
        """Wait for all that is under way, so that nobody else gets its memory."""
        while self.leaving:
            self.leaving.popleft()[1].synchronize()


def prefetched(batches: Iterable[Any], device: str) -> Iterator[Any]:
    """Yield batches, which are named tuples, with their arrays on a device, each sent before it is wanted.

    So a GPU fetches a batch while it computes the one before. The arrays of a batch, of one dtype, travel as
    one: a copy takes some microseconds to begin, however little it brings. On the CPU nothing is copied.
    """
    if device == "cpu":
        yield from batches
        return
    carrier = Prefetcher(device)

    def unpack(batch: Any, sent: Any) -> Any:
        arrays = iter(carrier.receive(sent))
        return type(batch)(*(next(arrays) if isinstance(part, np.ndarray) else part for part in batch))

    last = None
    try:
        for batch in batches:
            sent = carrier.send([part for part in batch if isinstance(part, np.ndarray)])
            if last:
                yield unpack(*last)
            last = batch, sent
        if last:
            yield unpack(*last)
    finally:
        carrier.close()

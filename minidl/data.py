"""Loading data: samples in random order, augmented and collated into batches, ahead of the training step.

All random numbers of an epoch are drawn before its first batch: the order of the samples, and one seed for
the augmentation of each. The batches therefore do not depend on the number of threads that prepare them, nor
on which thread is faster. An epoch that was interrupted after k batches resumes exactly: draw the same
numbers again and skip k batches.

Batches for a GPU are copied to it while it computes the previous batch (`prefetched`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from minidl.backend import Array, Copy, copy_stream, pinned_empty, to_device

__all__ = ["DataLoader", "prefetched"]

ALIGNMENT = 16  # bytes; the address of an array is a multiple of the size of its numbers

Job = tuple[np.ndarray, np.ndarray]  # the indices of a batch's samples, and the seed of each


class Preparation(NamedTuple):
    """How a job becomes a batch. It has no state, so any thread and any process makes the same batch."""

    dataset: Sequence[Any]
    transform: Callable[[Any, np.random.Generator], Any] | None
    collate: Callable[[list[Any]], Any] | None

    def __call__(self, job: Job) -> Any:
        """Return the batch: the samples of the job, transformed and collated."""
        samples = [self.dataset[int(i)] for i in job[0]]
        if self.transform:
            generators = map(np.random.default_rng, job[1])
            samples = [self.transform(s, rng) for s, rng in zip(samples, generators, strict=True)]
        return self.collate(samples) if self.collate else samples


class DataLoader:
    """Yield a data set's samples in batches, each sample passed through `transform(sample, rng)`.

    `shuffle` and `transform` draw from `rng`, which advances by the same amount in every epoch. With
    `probabilities` (N,), one for each of the N samples, `shuffle` draws N samples with replacement instead of
    a permutation, so that a frequent class does not dominate the batches. `collate` turns a list of samples
    into a batch; without it the batch is the list. `threads` threads prepare batches in advance; with 0 each
    batch is prepared when it is requested. `part` maps the length of a batch to the slice of it that is
    loaded here; other processes load the rest (`minidl.parallel`). Raises ValueError for invalid settings.
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
        probabilities: np.ndarray | None = None,
        part: Callable[[int], slice] = slice,
    ) -> None:
        if batch_size < 1 or threads < 0:
            raise ValueError(
                f"DataLoader: expected batch_size >= 1 and threads >= 0, got {batch_size}, {threads}"
            )
        if (shuffle or transform) and rng is None:
            raise ValueError(
                "DataLoader: shuffle and transform need a generator, rng=numpy.random.default_rng(seed)"
            )
        if probabilities is not None:
            probabilities = checked_probabilities(probabilities, len(dataset), shuffle)
        self.dataset, self.batch_size, self.shuffle, self.rng = dataset, batch_size, shuffle, rng
        self.transform, self.threads, self.probabilities, self.part = transform, threads, probabilities, part
        self.prepare = Preparation(dataset, transform, collate)

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        return self.batches()

    def batches(self, start: int = 0) -> Iterator[Any]:
        """Yield the batches of the next epoch from batch `start` on, as if those before had been read."""
        return self.prepared(self.jobs(start))

    def jobs(self, start: int = 0) -> list[Job]:
        """Draw the random numbers of the next epoch; return those of its batches from `start` on."""
        order = np.arange(len(self.dataset))
        seeds = np.zeros(len(order), np.int64)
        if self.probabilities is not None:
            order = self.rng.choice(len(order), size=len(order), p=self.probabilities)
        elif self.shuffle:
            order = self.rng.permutation(len(order))
        if self.transform:
            seeds = self.rng.integers(2**63, size=len(order))
        batches = range(start * self.batch_size, len(order), self.batch_size)
        return [self._part(order[i : i + self.batch_size], seeds[i : i + self.batch_size]) for i in batches]

    def _part(self, indices: np.ndarray, seeds: np.ndarray) -> Job:
        part = self.part(len(indices))
        return indices[part], seeds[part]

    def prepared(self, jobs: Sequence[Job]) -> Iterator[Any]:
        """Yield the batches of some jobs, in order."""
        return self._in_advance(jobs) if self.threads else (self.prepare(job) for job in jobs)

    def _in_advance(self, jobs: Sequence[Job]) -> Iterator[Any]:
        """Yield the batches in order, with two per thread in preparation."""
        with ThreadPoolExecutor(self.threads) as pool:
            pending: deque[Future[Any]] = deque()
            try:
                for job in jobs:
                    pending.append(pool.submit(self.prepare, job))
                    if len(pending) > 2 * self.threads:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:  # if iteration stops early, do not prepare the rest
                for future in pending:
                    future.cancel()


def checked_probabilities(probabilities: np.ndarray, samples: int, shuffle: bool) -> np.ndarray:
    """Return a copy of the probabilities (samples,) in float64. Raises ValueError if they cannot be drawn."""
    if not shuffle:
        raise ValueError("DataLoader: without shuffle, probabilities have no effect; add shuffle=True")
    p = np.array(probabilities, np.float64)
    if p.shape != (samples,):
        raise ValueError(f"DataLoader: expected a probability for each of {samples} samples, got {p.shape}")
    if not (p >= 0.0).all():
        i = int(np.argmin(p))  # also of a NaN
        raise ValueError(f"DataLoader: probabilities must be at least 0, got {p[i]} for sample {i}")
    if not abs(p.sum() - 1.0) < 1e-8:
        raise ValueError(f"DataLoader: probabilities must sum to 1, got {p.sum()}; divide them by their sum")
    return p


class Sent(NamedTuple):
    """Arrays being sent to a device, joined into one array of bytes."""

    joined: Array  # (total bytes,) uint8
    arrays: list[tuple[tuple[int, ...], np.dtype]]  # the shape and the dtype of each
    copy: Copy | None  # None if the copy is complete


class Prefetcher:
    """Sends arrays to a device; to a GPU, while the GPU computes.

    Copies to a GPU start from pinned memory and run in their own stream, in parallel with the stream that
    computes. Each stream waits for the other only at events:

        computing   | step 0  | step 1  | step 2  |      step 2 starts when batch 2 has arrived
        copying     | batch 1 | batch 2 | batch 3 |
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.stream = copy_stream(device)
        self.copies: deque[Copy] = deque()  # the last two, which may still be running

    def send(self, arrays: Sequence[np.ndarray]) -> Sent:
        """Start to send arrays, joined into one, without waiting; `receive` takes the result."""
        parts = []
        for array in arrays:
            bytes_of_array = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            parts += [bytes_of_array, np.zeros(-len(bytes_of_array) % ALIGNMENT, np.uint8)]
        formats = [(a.shape, a.dtype) for a in arrays]
        if self.stream is None:
            return Sent(to_device(np.concatenate(parts), self.device), formats, None)
        pinned = pinned_empty(sum(map(len, parts)), np.dtype(np.uint8))
        np.concatenate(parts, out=pinned)
        joined, copy = self.stream.send(pinned)
        self.copies.append(copy)
        if len(self.copies) > 2:
            self.copies.popleft().wait()  # before its pinned memory is reused
        return Sent(joined, formats, copy)

    def receive(self, sent: Sent) -> list[Array]:
        """Return the arrays on the device; kernels launched from now on wait for them."""
        if sent.copy is not None:
            sent.copy.delay_kernels()
        arrays, start = [], 0
        for shape, dtype in sent.arrays:
            size = math.prod(shape) * dtype.itemsize
            arrays.append(sent.joined[start : start + size].view(dtype).reshape(shape))
            start += size + -size % ALIGNMENT
        return arrays

    def close(self) -> None:
        """Wait for all running copies, so that their memory can be reused."""
        while self.copies:
            self.copies.popleft().wait()


def prefetched(batches: Iterable[Any], device: str) -> Iterator[Any]:
    """Yield batches, which are named tuples, with their arrays on a device, each sent one batch ahead.

    A GPU therefore copies a batch while it computes the previous one. The arrays of a batch are sent as one,
    because every copy costs some microseconds to start. On the CPU nothing is copied.
    """
    if device == "cpu":
        yield from batches
        return
    prefetcher = Prefetcher(device)

    def unpack(batch: Any, sent: Sent) -> Any:
        arrays = iter(prefetcher.receive(sent))
        return type(batch)(*(next(arrays) if isinstance(part, np.ndarray) else part for part in batch))

    last = None
    try:
        for batch in batches:
            sent = prefetcher.send([part for part in batch if isinstance(part, np.ndarray)])
            if last:
                yield unpack(*last)
            last = batch, sent
        if last:
            yield unpack(*last)
    finally:
        prefetcher.close()

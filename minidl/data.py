"""Batches: which samples, in which order, changed how, prepared while the last batch is computed.

All chance of an epoch is drawn before its first batch: one permutation of the data set, and one seed for
each sample's augmentation. So the batches do not depend on how many threads prepare them or which is
faster, and an epoch that was interrupted after k batches can go on from batch k exactly as it would have:
draw the same again, skip k.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np


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

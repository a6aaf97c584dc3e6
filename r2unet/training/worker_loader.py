"""A DataLoader whose batches are prepared by processes: Python executes one thread of a process at a time.

Threads that augment images wait for each other, and keep the thread waiting that launches the training step.
A process has a Python of its own. Its images are the same memory (`r2unet.data.shared_samples`). It gets the
numbers of a batch's images and a seed for each, and returns arrays. The order and the seeds are drawn here,
so the batches do not depend on the number of processes, nor on which is faster, nor on whether one is killed:
its batch is then prepared by another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from minidl.data import DataLoader, Job, Preparation
from r2unet.processes import Processes


class WorkerLoader(DataLoader):
    """A DataLoader with `workers` processes, or with the threads of a DataLoader if `workers` is 0.

    The processes start with the first batch and remain for all epochs. They end with the context that this
    is. The data set, `transform` and `collate` must be picklable.
    """

    def __init__(self, *arguments: Any, workers: int = 0, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.workers = workers
        self._processes: Processes[Job, Any] | None = None

    def prepared(self, jobs: Sequence[Job]) -> Iterator[Any]:
        """Yield the batches of some jobs, in order. Each process prepares one ahead."""
        if not self.workers:
            return super().prepared(jobs)
        if self._processes is None:
            self._processes = Processes(partial(_itself, self.prepare), self.workers, keep_on=True)
        return self._processes.map(jobs)

    def __enter__(self) -> WorkerLoader:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._processes is not None:
            self._processes.__exit__(*error)
            self._processes = None


def _itself(prepare: Preparation) -> Callable[[Job], Any]:
    return prepare

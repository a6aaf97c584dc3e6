"""The shapes and the numbers of rounds. `--quick` runs the same code on shapes too small to compare."""

from __future__ import annotations

from dataclasses import dataclass

STEPS = 2  # the recurrence's t, in the block and in the network


@dataclass(frozen=True)
class Plan:
    """The shapes of all measurements; images are square, sizes are in pixels per side."""

    repeats: int = 15  # rounds; a third of them for processes and long series
    blocks: tuple[tuple[int, int], ...] = ((8, 128), (32, 32))  # channels, size
    block_batch: int = 4
    networks: tuple[tuple[int, int], ...] = ((128, 4), (256, 2))  # size, batch
    sizes: tuple[int, ...] = (64, 128, 256, 512)  # batches of one image
    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32)  # batches of images of `batch_size`
    batch_size: int = 64
    loaded: tuple[int, int] = (256, 8)  # size, batch
    folders: tuple[tuple[int, int, int], ...] = (
        (128, 128, 16),
        (1024, 128, 8),
    )  # side, network, count
    shared: tuple[tuple[int, int], ...] = ((128, 4), (128, 8), (256, 2))  # size, batch, for two processes

    @property
    def slow_repeats(self) -> int:
        """The number of rounds of slow measurements."""
        return max(1, self.repeats // 3)


FULL = Plan()
QUICK = Plan(
    repeats=2,
    blocks=((4, 16),),
    block_batch=2,
    networks=((32, 2),),
    sizes=(16, 32, 64),
    batches=(1, 2, 4),
    batch_size=16,
    loaded=(64, 4),
    folders=((40, 32, 3),),
    shared=((32, 2),),
)

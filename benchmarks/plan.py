"""What is measured: the shapes, and how often. `--quick` runs the same code on shapes too small to tell."""

from __future__ import annotations

from dataclasses import dataclass

STEPS = 2  # the recurrence's t, here and in the network


@dataclass(frozen=True)
class Plan:
    """The shapes of every measurement; images are square, sizes in pixels a side."""

    repeats: int = 15  # rounds; processes and the longest series take a third of them
    blocks: tuple[tuple[int, int], ...] = ((8, 128), (32, 32))  # channels, size
    block_batch: int = 4
    networks: tuple[tuple[int, int], ...] = ((128, 4), (256, 2))  # size, batch
    sizes: tuple[int, ...] = (64, 128, 256, 512)  # one image each
    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32)  # images of `batch_size`
    batch_size: int = 64
    loaded: tuple[int, int] = (256, 8)  # size, batch

    @property
    def few(self) -> int:
        """How often something slow is repeated."""
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
)

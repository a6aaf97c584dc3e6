"""Samples, which every data set returns, and batches, which a network takes as input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

# Bytes are scaled to numbers around zero of about unit size. The constants are not statistics of a training
# set, so that all images are scaled in the same way and no statistics need to be stored with the weights.
CENTRE, SCALE = 127.5, 63.75


class Sample(NamedTuple):
    """One image and its mask, as bytes, which take a quarter of the memory of float32."""

    image: np.ndarray  # (H, W, 3) uint8, RGB
    mask: np.ndarray  # (H, W) uint8, 1 is lesion and 0 is skin
    name: str  # the file's stem, "ISIC_0000001", for messages and predictions
    diagnosis: str | None = None  # "melanoma", "nevus", ...; None where the data set does not include it
    lesion: str = ""  # the lesion's identity; images of one lesion have the same. Empty: the name is it


class Batch(NamedTuple):
    """Samples as the input and the target of a network."""

    images: np.ndarray  # (N, 3, H, W) float32, about -2 to 2
    masks: np.ndarray  # (N, 1, H, W) float32, 0 or 1
    names: list[str]
    targets: np.ndarray | None = None  # (N, K) float32, see `r2unet.data.targets`; None without a diagnosis


def to_input(images: Sequence[np.ndarray]) -> np.ndarray:
    """Convert N images of one size, each (H, W, 3) uint8, to a network's input (N, 3, H, W) float32."""
    pixels = np.stack(images).transpose(0, 3, 1, 2)  # (N, H, W, 3) -> (N, 3, H, W)
    return np.ascontiguousarray((pixels - np.float32(CENTRE)) / np.float32(SCALE))


def collate(
    samples: Sequence[Sample], targets: Callable[[Sequence[Sample]], np.ndarray] | None = None
) -> Batch:
    """Join samples of one size into a batch; `targets` returns the target of their diagnosis (N, K)."""
    masks = np.stack([s.mask for s in samples])[:, None].astype(np.float32)  # (N, 1, H, W)
    images, names = to_input([s.image for s in samples]), [s.name for s in samples]
    return Batch(images, masks, names, targets(samples) if targets else None)

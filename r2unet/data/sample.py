"""What every data set of this package hands out, and what a network takes: samples, and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Bytes become numbers around zero of about unit size. The two constants are round on purpose: an image from
# anywhere is scaled alike, and no statistics of the training set have to travel with the weights.
CENTRE, SCALE = 127.5, 63.75


class Sample(NamedTuple):
    """One image and the outline that belongs to it, as bytes: a quarter of float32's memory."""

    image: np.ndarray  # (H, W, 3) uint8, RGB
    mask: np.ndarray  # (H, W) uint8, 1 is lesion and 0 is skin
    name: str  # the file's stem, "ISIC_0000001", for messages and predictions
    diagnosis: str | None = None  # "melanoma", "nevus", ...; None where the data set does not say


class Batch(NamedTuple):
    """Samples as a network takes them."""

    images: np.ndarray  # (N, 3, H, W) float32, about -2 to 2
    masks: np.ndarray  # (N, 1, H, W) float32, 0 or 1
    names: list[str]


def to_input(images: Sequence[np.ndarray]) -> np.ndarray:
    """Turn images of one size into a network's input, each (H, W, 3) uint8 -> (N, 3, H, W) float32."""
    pixels = np.stack(images).transpose(0, 3, 1, 2)  # (N, H, W, 3) -> (N, 3, H, W)
    return np.ascontiguousarray((pixels - np.float32(CENTRE)) / np.float32(SCALE))


def collate(samples: Sequence[Sample]) -> Batch:
    """Join samples of one size into a batch."""
    masks = np.stack([s.mask for s in samples])[:, None].astype(np.float32)  # (N, 1, H, W)
    return Batch(to_input([s.image for s in samples]), masks, [s.name for s in samples])

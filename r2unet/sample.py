"""What every data set of this package hands out, and every augmentation takes: one image with its mask."""

from typing import NamedTuple

import numpy as np


class Sample(NamedTuple):
    """One image and the outline that belongs to it, as bytes: a quarter of float32's memory."""

    image: np.ndarray  # (H, W, 3) uint8, RGB
    mask: np.ndarray  # (H, W) uint8, 1 is lesion and 0 is skin
    name: str  # the file's stem, "ISIC_0000001", for messages and predictions
    diagnosis: str | None = None  # "melanoma", "nevus", ...; None where the data set does not say

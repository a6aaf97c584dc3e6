"""The memory of a prediction, estimated from the settings, and the limit of what a checkpoint may claim.

A checkpoint says at which size its network sees an image. Its weights do not depend on the size, so a file of
a few kilobytes could make a command fill the memory. The size is therefore believed only if the prediction
takes little memory; beyond it, the user must give the size.

**Estimate.** Level l has w_l channels on P / 4^l pixels, with P = N H W: its features take

    f_l = 4 w_l P / 4^l bytes.

While the network runs, the features of every level are kept for the skip connections, at most sum f_l. The
block that is being computed takes the most on the level with the largest features, in the decoder: its input
has 2C channels, and a recurrent block keeps its input, the sum x + y, and their convolutions. Nine f_l are an
upper bound, by measurement. The image, the probabilities, and the eight views of test-time augmentation have
values for every pixel, too, whatever the widths: at most 60 bytes. Together

    9 max f_l + sum f_l + 60 P.

This is between 1 and 4 times what a prediction takes: U-Net's blocks take less than recurrent ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from minidl.profiler import MiB
from r2unet.errors import InputError
from r2unet.training.settings import Settings

# Bytes that a prediction may take without the user's consent, in addition to the size of the weights.
UNASKED = 52 * MiB
# Generated lesions that are scored without the user's consent: more than the default training has.
GENERATED = 1000


def prediction_memory(settings: Settings, images: int = 1) -> int:
    """Return an upper bound of the memory, in bytes, of predicting this many images at once."""
    channels = [width / 4**level for level, width in enumerate(settings.widths)]  # on P pixels
    return round((4 * (9 * max(channels) + sum(channels)) + 60) * images * settings.size**2)


def images_at_once(settings: Settings) -> int:
    """Return how many images to predict at once: a batch of the training, or fewer to bound the memory."""
    return min(settings.batch_size, max(1, UNASKED // prediction_memory(settings)))


def check_size(
    path: str | Path,
    settings: Settings,
    weights: Mapping[str, np.ndarray],
    images: int = 1,
    remedy: str = "add --size {size}, otherwise a smaller one",
) -> None:
    """Raise InputError if the size of the images in a checkpoint makes a prediction take too much memory.

    `remedy` says what permits it; "{size}" in it is the size.
    """
    limit, size = UNASKED + sum(array.nbytes for array in weights.values()), settings.size
    if (needed := prediction_memory(settings, images)) > limit:
        batch = f"{images} images" if images > 1 else "an image"
        raise InputError(
            f"{path}: its network sees {batch} of {size} x {size} pixels, for which a prediction takes up to "
            f"{needed // MiB:,} MiB, more than the {limit // MiB:,} MiB that a checkpoint may claim; if you "
            f"trust it, {remedy.format(size=size)}"
        )


def check_generated(path: str | Path, count: int, remedy: str) -> None:
    """Raise InputError if a checkpoint claims so many generated lesions that they take very long."""
    if count > GENERATED:
        raise InputError(
            f"{path}: was trained with settings that give {count:,} generated lesions to score, more than "
            f"the {GENERATED:,} that a checkpoint may claim; {remedy}"
        )

"""Draws the outline of a mask into its image, pixel by pixel."""

import math

import numpy as np

from r2unet.figures import PREDICTION


def overlay_image(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Draw the outline of a mask: image (H, W, 3) uint8 and mask (H, W) of 0 and 1 -> new (H, W, 3) uint8.

    The outline is the mask minus its erosion, so it is just inside the mask, and it follows the border of the
    image where the lesion is cut off. Its width is 1/200 of the longer side, so that it looks the same at any
    size, but at most 1/50 of the shorter one. Raises ValueError if the sizes differ.
    """
    if image.shape[:2] != mask.shape:
        raise ValueError(f"overlay_image: image {image.shape} and mask {mask.shape} differ in size")
    lesion = mask.astype(np.bool_)
    eroded = lesion
    for _ in range(math.ceil(min(max(mask.shape) / 200, min(mask.shape) / 50))):
        eroded = _erode(eroded)
    drawn = image.copy()
    drawn[lesion & ~eroded] = tuple(bytes.fromhex(PREDICTION[1:]))
    return drawn


def _erode(mask: np.ndarray) -> np.ndarray:
    """Keep the pixels of a boolean mask (H, W) whose four neighbours are lesion, too; outside is skin."""
    padded = np.pad(mask, 1)  # (H, W) -> (H + 2, W + 2)
    vertical = padded[:-2, 1:-1] & padded[2:, 1:-1]
    horizontal = padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & vertical & horizontal

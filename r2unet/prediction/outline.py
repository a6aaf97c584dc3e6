"""Draws the outline of a mask into its image, pixel by pixel."""

import math

import numpy as np

from r2unet.figures import PREDICTION


def overlay_image(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Draw the outline of a mask: image (H, W, 3) uint8 and mask (H, W) in [0, 1] -> new (H, W, 3) uint8.

    The outline is the mask minus its erosion, so it is just inside the mask, and it follows the border of the
    image where the lesion is cut off. Its width is 1/200 of the longer side, so that it looks the same at any
    size, but at most 1/50 of the shorter one. A value between 0 and 1 is the share of the pixel that is
    lesion, and the outline covers as much of it, which smooths its edges. Raises ValueError if the sizes
    differ.
    """
    if image.shape[:2] != mask.shape:
        raise ValueError(f"overlay_image: image {image.shape} and mask {mask.shape} differ in size")
    lesion = mask.astype(np.float32)
    eroded = lesion
    for _ in range(math.ceil(min(max(mask.shape) / 200, min(mask.shape) / 50))):
        eroded = _erode(eroded)
    line = lesion > eroded
    opacity = (lesion - eroded)[line][:, None]  # (pixels, 1)
    colour = np.array(tuple(bytes.fromhex(PREDICTION[1:])), np.float32)
    drawn = image.copy()
    drawn[line] = np.rint(opacity * colour + (1 - opacity) * image[line]).astype(np.uint8)
    return drawn


def _erode(mask: np.ndarray) -> np.ndarray:
    """Take the minimum of each pixel (H, W) and its four neighbours; outside is skin, 0."""
    padded = np.pad(mask, 1)  # (H, W) -> (H + 2, W + 2)
    vertical = np.minimum(padded[:-2, 1:-1], padded[2:, 1:-1])
    horizontal = np.minimum(padded[1:-1, :-2], padded[1:-1, 2:])
    return np.minimum(mask, np.minimum(vertical, horizontal))

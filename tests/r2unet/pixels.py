"""The pixels of a drawn figure, and the number of pixels of a colour."""

import numpy as np
from PIL import Image


def read_pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)  # (H, W, 3)


def count_pixels(path, colour):
    distance = np.abs(read_pixels(path) - list(bytes.fromhex(colour[1:]))).max(axis=2)  # (H, W)
    return int(np.sum(distance <= 8))

"""Images stored as bytes, changed by every function of `minidl.images`, as arrays on a device."""

import numpy as np

from minidl import images
from minidl.backend import to_device


def photographs(rng, shape, device):
    """Return random bytes."""
    return to_device(rng.integers(0, 256, shape, dtype=np.uint8), device)


def sampled(device):
    """Return images through two affine maps that reach beyond all borders."""
    rng = np.random.default_rng(0)
    maps = np.array([[[1.7, -0.9, -9.3], [0.6, 2.1, -11.2]], [[-1.1, 0.2, 20.4], [-3.0, -0.7, 31.9]]])
    which = to_device(np.array([2, 1], np.int32), device)
    return [images.affine_sample(photographs(rng, (3, 17, 11, 3), device), which, to_device(maps, device))]


def recoloured(device):
    """Return images with colours, of which some are clipped at black and some at white."""
    rng = np.random.default_rng(0)
    of_pixel, of_mean = (to_device(rng.normal(0.1, 0.7, (3, 3, 3)), device) for _ in range(2))
    tables = photographs(rng, (3, 256), device)
    return [images.recolour(photographs(rng, (3, 3, 13, 9), device), of_pixel, of_mean, tables)]


def blurred(device):
    """Return images of which one is blurred less than a pixel, one more, and one not at all."""
    boxes = to_device(
        np.array([[0, 12_000_000, 2_388_608], [2, 3_000_000, 888_608], [0, 1 << 24, 0.0]]), device
    )
    return [images.gaussian_blur(photographs(np.random.default_rng(0), (3, 2, 9, 13), device), boxes)]


def windowed(device):
    """Return images and masks outside two windows and without one."""
    rng = np.random.default_rng(0)
    rows = [[0.1, -0.05, 0.3, 0.5, 20.0], [0.0, 0.1, 0.2, 0.3, 5.7], [0.0, 0.0, np.inf, np.inf, 0.0]]
    masks = to_device(rng.integers(0, 2, (3, 1, 17, 12), dtype=np.uint8), device)
    return images.round_window(
        photographs(rng, (3, 3, 17, 12), device), masks, to_device(np.array(rows), device)
    )

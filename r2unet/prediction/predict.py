"""Predicts the lesion probability of every pixel of an image of any size.

    image (H, W, 3) -> resized to the training size -> padded so that every level can halve it -> network
        -> sigmoid -> padding removed -> resized back to (H, W) -> probability > 0.5

The probability is resized back, not the mask. Interpolated between the network's pixels, the probability
crosses one half along a smooth line, where a resized mask would have steps.

**Test-time augmentation.** A lesion's outline does not depend on the orientation of the camera, but the
network's prediction does, slightly. The network therefore predicts all eight flips and quarter turns of the
image, each prediction is turned back, and the mean of the eight is returned. The mean no longer depends on
the orientation, and errors that the eight predictions do not share are reduced. This takes eight times as
long.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minidl import Tensor, no_grad
from minidl.backend import to_device, to_numpy
from minidl.ops.activation import stable_sigmoid
from r2unet.data.images import resize_image, resize_probability
from r2unet.data.sample import to_input
from r2unet.network.model import UShape

THRESHOLD = 0.5


def pad_to_multiple(x: np.ndarray, multiple: int) -> np.ndarray:
    """Repeat the last row and column until `multiple` divides both sides, (N, C, H, W) -> (N, C, H+h, W+w).

    Repeated pixels look like more of the same skin, whereas zeros would look like an edge.
    """
    below, right = -x.shape[2] % multiple, -x.shape[3] % multiple
    return np.pad(x, ((0, 0), (0, 0), (0, below), (0, right)), mode="edge") if below or right else x


def probabilities(
    model: UShape, images: Sequence[np.ndarray], device: str = "cpu", tta: bool = False
) -> np.ndarray:
    """Predict the lesion probability of every pixel: N images (H, W, 3) uint8 -> (N, H, W) float32.

    `tta` averages the predictions for the eight flips and quarter turns.
    """
    x = to_input(images)  # (N, 3, H, W)
    if not tta:
        return _probabilities(model, x, device)
    total = np.zeros(())
    for step in (1, -1):  # unchanged, and mirrored
        for k in range(4):
            turned = np.rot90(x[..., ::step], k, axes=(2, 3))
            turned_back = np.rot90(_probabilities(model, turned, device), -k, axes=(1, 2))
            total = total + turned_back[..., ::step]  # (N, H, W)
    return (total / 8).astype(np.float32)


def _probabilities(model: UShape, x: np.ndarray, device: str) -> np.ndarray:
    """Run the network once: x (N, 3, H, W) -> (N, H, W) float32."""
    H, W = x.shape[2:]
    with no_grad():
        logits = model(Tensor(to_device(pad_to_multiple(x, model.multiple), device)))
    return to_numpy(stable_sigmoid(logits.data))[:, 0, :H, :W]


def predict_image(
    model: UShape, image: np.ndarray, size: int, device: str = "cpu", tta: bool = False
) -> np.ndarray:
    """Predict the lesion probability of every pixel of one image: (H, W, 3) uint8 -> (H, W) float32.

    The network sees the image resized to (size, size), the size that it was trained on.
    """
    small = resize_image(image, (size, size))
    probability = probabilities(model, [small], device, tta)[0]  # (size, size)
    return resize_probability(probability, image.shape[:2])

"""Predicts the outline and the diagnosis of a lesion in an image of any size.

    image (H, W, 3) -> resized to the training size -> padded so that every level can halve it -> network
        -> sigmoid -> padding removed -> resized back to (H, W) -> probability > 0.5

The probability is resized back, not the mask. Interpolated between the network's pixels, the probability
crosses one half along a smooth line, where a resized mask would have steps.

**Test-time augmentation.** A lesion's outline does not depend on the orientation of the camera, but the
network's prediction does, slightly. The network therefore predicts all eight flips and quarter turns of the
image, each prediction is turned back, and the mean of the eight is returned. The mean no longer depends on
the orientation, and errors that the eight predictions do not share are reduced. This takes eight times as
long. Of the diagnosis, the logits are averaged.

**Correction.** The probabilities of the classes are

    p = softmax((x - log w) / T)

for the logits x. Training with class weights w, which multiply the loss, teaches the network probabilities
that are proportional to w_k p_k; subtracting log w divides the weights out. The temperature T corrects the
confidence. It is fitted when the training ends (`r2unet.training.calibrate`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import product
from typing import NamedTuple

import numpy as np

from minidl import Tensor, no_grad
from minidl.backend import to_device, to_numpy
from minidl.ops.activation import stable_sigmoid
from minidl.ops.loss.softmax import log_softmax
from r2unet.data.images import resize_image, resize_probability
from r2unet.data.sample import to_input
from r2unet.errors import InputError
from r2unet.network.model import UShape

THRESHOLD = 0.5

Stage = Callable[[str], AbstractContextManager[None]]  # the context of a stage, by its name


def pad_to_multiple(x: np.ndarray, multiple: int) -> np.ndarray:
    """Repeat the last row and column until `multiple` divides both sides, (N, C, H, W) -> (N, C, H+h, W+w).

    Repeated pixels look like more of the same skin, whereas zeros would look like an edge.
    """
    below, right = -x.shape[2] % multiple, -x.shape[3] % multiple
    return np.pad(x, ((0, 0), (0, 0), (0, below), (0, right)), mode="edge") if below or right else x


class Prediction(NamedTuple):
    """What a network predicts; None for what its task does not include."""

    outline: np.ndarray | None  # lesion probabilities (N, H, W) float32, or (H, W) of a single image
    diagnosis: np.ndarray | None  # class probabilities (N, K) float64, or (K,) of a single image


class Correction(NamedTuple):
    """What turns class logits (N, K) into probabilities that can be believed."""

    temperature: float = 1.0
    log_weights: np.ndarray | float = 0.0  # (K,), the logarithm of the class weights in training

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        return np.exp(log_softmax((logits - self.log_weights) / self.temperature))


NO_CORRECTION = Correction()


def predict(
    model: UShape,
    images: Sequence[np.ndarray],
    device: str = "cpu",
    tta: bool = False,
    correction: Correction = NO_CORRECTION,
) -> Prediction:
    """Predict N images (H, W, 3) uint8 of one size; `tta` averages over the eight flips and quarter turns.

    Raises InputError if a number is not finite: NaN > 0.5 is false, so it would look like skin. Raises
    ValueError in training mode, where batch norm uses the statistics of this image and changes the running
    ones.
    """
    if model.training:
        raise ValueError("the network is in training mode: call model.eval() before it predicts")
    x = to_input(images)  # (N, 3, H, W)
    outlines, logits = [], []
    for step, k in product((1, -1), range(4)) if tta else ((1, 0),):  # step -1 mirrors, k are quarter turns
        outline, diagnosis = _answer(model, np.rot90(x[..., ::step], k, axes=(2, 3)), device)
        if outline is not None:
            outlines.append(np.rot90(outline, -k, axes=(1, 2))[..., ::step])  # turned back, (N, H, W)
        if diagnosis is not None:
            logits.append(diagnosis)
    return Prediction(
        _mean(outlines).astype(np.float32) if outlines else None,
        finite(correction(_mean(logits))) if logits else None,
    )


def _mean(views: list[np.ndarray]) -> np.ndarray:
    """Return the mean over the views; a single view as it is."""
    return sum(views[1:], start=views[0].astype(np.float64)) / len(views) if len(views) > 1 else views[0]


def _answer(model: UShape, x: np.ndarray, device: str) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Run the network once: x (N, 3, H, W) -> lesion probabilities (N, H, W) and class logits (N, K)."""
    H, W = x.shape[2:]
    with no_grad(), np.errstate(all="ignore"):  # overflow is an error below, not a warning
        answer = model.answer(Tensor(to_device(pad_to_multiple(x, model.multiple), device)))
    outline, diagnosis = (None if part is None else finite(to_numpy(part.data)) for part in answer)
    return (
        None if outline is None else stable_sigmoid(outline)[:, 0, :H, :W],
        None if diagnosis is None else diagnosis.astype(np.float64),
    )


def finite(answer: np.ndarray) -> np.ndarray:
    """Return an answer of the network. Raises InputError if it contains NaN or infinity."""
    if not np.isfinite(answer).all():
        raise InputError(
            "the network's answer contains NaN or infinity; its weights are unusable: give another checkpoint"
        )
    return answer


def probabilities(
    model: UShape, images: Sequence[np.ndarray], device: str = "cpu", tta: bool = False
) -> np.ndarray:
    """Predict the lesion probability of every pixel: N images (H, W, 3) uint8 -> (N, H, W) float32."""
    return predict(model, images, device, tta).outline


def predict_lesion(
    model: UShape,
    image: np.ndarray,
    size: int,
    device: str = "cpu",
    tta: bool = False,
    correction: Correction = NO_CORRECTION,
    stage: Stage = lambda name: nullcontext(),
) -> Prediction:
    """Predict one image (H, W, 3) uint8: lesion probabilities (H, W) and class probabilities (K,).

    The network sees the image resized to (size, size), the size that it was trained on. `stage` is the
    context of each stage, such as a `Stages`.
    """
    with stage("shrink for the network"):
        small = resize_image(image, (size, size))
    with stage("network"):
        outline, diagnosis = predict(model, [small], device, tta, correction)
    with stage("enlarge the probabilities"):
        return Prediction(
            None if outline is None else resize_probability(outline[0], image.shape[:2]),
            None if diagnosis is None else diagnosis[0],
        )


def predict_image(
    model: UShape, image: np.ndarray, size: int, device: str = "cpu", tta: bool = False
) -> np.ndarray:
    """Predict the lesion probability of every pixel of one image: (H, W, 3) uint8 -> (H, W) float32."""
    return predict_lesion(model, image, size, device, tta).outline

"""Predictions for the samples of a data set, each with its true mask, ready to be scored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from minidl.data import DataLoader
from r2unet.data.isic import Pair
from r2unet.data.lesion_images import read_pair
from r2unet.data.sample import Sample
from r2unet.network.model import UShape
from r2unet.prediction.clean_up import clean_up
from r2unet.prediction.predict import THRESHOLD, predict_image, probabilities

Prediction = tuple[Sample, np.ndarray]  # a sample and the lesion probability of its pixels, (H, W) float32


def predict_samples(
    model: UShape, dataset: Sequence[Sample], batch_size: int, device: str = "cpu", tta: bool = False
) -> Iterator[Prediction]:
    """Yield every sample with the lesion probability of its pixels, (H, W) float32."""
    for samples in DataLoader(dataset, batch_size):
        images = [s.image for s in samples]
        yield from zip(samples, probabilities(model, images, device, tta), strict=True)


def predict_originals(
    model: UShape, pairs: Iterable[Pair], size: int, device: str = "cpu", tta: bool = False
) -> Iterator[Prediction]:
    """Yield every pair of files as a sample of the *original* size, with its probability, (H, W) float32.

    The official scoring compares masks of the original size, so the network's output is resized to it.
    """
    for pair in pairs:
        sample = read_pair(pair)
        yield sample, predict_image(model, sample.image, size, device, tta)


def cleaned_up(predictions: Iterable[Prediction]) -> Iterator[Prediction]:
    """Yield every sample with the mask of its largest component, holes filled, as (H, W) uint8."""
    for sample, probability in predictions:
        yield sample, clean_up(probability > THRESHOLD)

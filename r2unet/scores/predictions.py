"""Predictions for the samples of a data set, each with its truth, ready to be scored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from minidl.data import DataLoader
from r2unet.data.isic import Pair
from r2unet.data.lesion_images import read_pair
from r2unet.data.sample import Sample
from r2unet.errors import InputError
from r2unet.network.model import UShape
from r2unet.prediction.clean_up import clean_up
from r2unet.prediction.predict import (
    NO_CORRECTION,
    THRESHOLD,
    Correction,
    Prediction,
    predict,
    predict_lesion,
)

Answered = tuple[Sample, Prediction]  # a sample, its outline (H, W) and its class probabilities (K,)
Outlined = tuple[Sample, np.ndarray]  # a sample and the lesion probability of its pixels, (H, W) float32


def answer_samples(
    model: UShape,
    dataset: Sequence[Sample],
    batch_size: int,
    device: str = "cpu",
    tta: bool = False,
    correction: Correction = NO_CORRECTION,
) -> Iterator[Answered]:
    """Yield every sample with everything that the network predicts for it."""
    for samples in DataLoader(dataset, batch_size):
        with _named(samples[0].name):
            outlines, diagnoses = predict(model, [s.image for s in samples], device, tta, correction)
        for i, sample in enumerate(samples):
            outline, diagnosis = (None if part is None else part[i] for part in (outlines, diagnoses))
            yield sample, Prediction(outline, diagnosis)


def answer_originals(
    model: UShape,
    pairs: Iterable[Pair],
    size: int,
    device: str = "cpu",
    tta: bool = False,
    correction: Correction = NO_CORRECTION,
) -> Iterator[Answered]:
    """Yield every pair of files as a sample of the *original* size, with everything that is predicted for it.

    The official scoring compares masks of the original size, so the predicted outline is resized to it.
    """
    for pair in pairs:
        sample = read_pair(pair)
        with _named(sample.name):
            prediction = predict_lesion(model, sample.image, size, device, tta, correction)
        yield sample, prediction


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Add the name of an image, or of the first in a batch, to errors in predicting it."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def predict_samples(
    model: UShape, dataset: Sequence[Sample], batch_size: int, device: str = "cpu", tta: bool = False
) -> Iterator[Outlined]:
    """Yield every sample with the lesion probability of its pixels, (H, W) float32."""
    return outlines(answer_samples(model, dataset, batch_size, device, tta))


def predict_originals(
    model: UShape, pairs: Iterable[Pair], size: int, device: str = "cpu", tta: bool = False
) -> Iterator[Outlined]:
    """Yield every pair of files as a sample of the original size, with its outline, (H, W) float32."""
    return outlines(answer_originals(model, pairs, size, device, tta))


def outlines(answers: Iterable[Answered]) -> Iterator[Outlined]:
    """Yield every sample with its outline alone."""
    for sample, prediction in answers:
        yield sample, prediction.outline


def cleaned_up(predictions: Iterable[Outlined]) -> Iterator[Outlined]:
    """Yield every sample with the mask of its largest component, holes filled, as (H, W) uint8."""
    for sample, probability in predictions:
        yield sample, clean_up(probability > THRESHOLD)

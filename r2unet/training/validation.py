"""The scores of the validation images, from the network's answers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from minidl.backend import Array, to_numpy
from r2unet.diagnosis.roc import mean_auc
from r2unet.network.model import Answer
from r2unet.prediction.predict import Correction
from r2unet.scores.metrics import Confusion, confusion, summarize


class Validated(NamedTuple):
    """The results of some images: the pixel counts of each outline, and the class logits (K,) of each."""

    counts: Sequence[Confusion] = ()
    logits: Sequence[np.ndarray] = ()

    @classmethod
    def of(cls, answer: Answer, masks: Array) -> Validated:
        """Compare a network's answer with the masks, (N, 1, H, W)."""
        counts, logits = [], []
        if answer.outline is not None:
            predicted = answer.outline.numpy() > 0.0  # a logit above 0 is a probability above 0.5
            counts = [confusion(*pair) for pair in zip(predicted, to_numpy(masks) > 0.5, strict=True)]
        if answer.diagnosis is not None:
            logits = list(answer.diagnosis.numpy())
        return cls(counts, logits)


def in_order(everyones: Sequence[Sequence[Validated]]) -> Validated:
    """Join the results of all processes, which have one for each batch, in the order of the images.

    The order is batch by batch and, within a batch, by the rank of the process.
    """
    parts = list(chain.from_iterable(zip(*everyones, strict=True)))
    return Validated(*(list(chain.from_iterable(column)) for column in zip(*parts, strict=True)))


def mean_scores(
    results: Validated, log_weights: np.ndarray | None, labels: np.ndarray | None
) -> dict[str, float]:
    """Return the mean scores of all outlines and, with the weights of the classes, the mean AUC."""
    means = {}
    if results.counts:
        means |= summarize(results.counts, np.random.default_rng(0))["mean"]
    if results.logits:
        without_weights = Correction(log_weights=log_weights)
        means["auc"] = mean_auc(without_weights(np.stack(results.logits).astype(np.float64)), labels)
    return means

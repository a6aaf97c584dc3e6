"""Refits the diagnosis head of a trained network, with everything before it unchanged.

The head is linear: its logits are W v + b for the pooled features v of an image (`r2unet.network.diagnosis`).
With the features fixed, their loss is convex in W and b, and Newton's method finds its minimum
(`r2unet.diagnosis.baselines`). Training the head anew on fixed features is classifier re-training (Kang et
al. 2020, Decoupling representation and classifier). It helps because a training ends far from this minimum:
pooled features are correlated and of different sizes, which makes gradient descent slow.

The fit standardises the features. Its logits U (v - mean) / scale + c are those of a head with

    W = U / scale        (each column divided by the scale of its feature)
    b = c - W mean

The classes have the same weights in the loss as in training, so the same weights are divided out of the
probabilities. The penalty on U is the one of `PENALTIES` whose head gives the images that are kept for
calibration (`r2unet.data.targets`) the highest likelihood. Neither the encoder nor the fit has learned their
classes. The features of the others are those of images that the encoder has learned; without a penalty the
head would rely on them too much.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from minidl import Tensor, no_grad
from minidl.backend import to_device
from minidl.data import DataLoader
from r2unet.data.classes import CLASSES
from r2unet.data.sample import Sample, to_input
from r2unet.data.targets import DiagnosisTargets, class_labels, for_calibration
from r2unet.diagnosis.baselines import LogisticRegression
from r2unet.diagnosis.calibration import apply_temperature, fit_temperature, negative_log_likelihood
from r2unet.errors import InputError
from r2unet.network.model import UShape
from r2unet.training.settings import Settings

LARGEST = 10_000  # numbers of a head: their Hessian takes 0.8 GB
PENALTIES = (0.01, 0.03, 0.1)  # the middle one, if no image is kept for calibration


def refit_head(model: UShape, settings: Settings, training: Sequence[Sample], device: str = "cpu") -> None:
    """Replace the weights and the bias of the diagnosis head, for a trained network in evaluation mode.

    Raises InputError for features that are not finite, and for a head with more than `LARGEST` numbers.
    """
    check_head(model)
    classes = CLASSES[settings.classes]
    head = model.diagnosis.linear
    targets = DiagnosisTargets(training, classes, settings.class_weights)
    log_weights = targets.log_weights(settings.balanced)  # (K,)
    batches = DataLoader(training, settings.batch_size)
    features = np.concatenate(list(pooled_features(model, batches, device)))  # (N, D)
    known = targets.labels >= 0
    fits = [
        LogisticRegression.fit(
            features[known], targets.labels[known], len(classes), penalty, np.exp(log_weights)
        )
        for penalty in PENALTIES
    ]
    labels = class_labels(training, classes)
    kept = [i for i, label in enumerate(labels) if label >= 0 and for_calibration(training[i])]
    losses = (
        [_calibrated_loss(fit, features[kept], labels[kept], log_weights) for fit in fits] if kept else ()
    )
    best = fits[int(np.argmin(losses)) if kept else len(fits) // 2]
    weight = best.weights / best.scale  # (K, D)
    bias = best.biases - weight @ best.mean  # (K,)
    for parameter, values in ((head.weight, weight), (head.bias, bias)):
        parameter.data = to_device(values.astype(np.float32), device)


def check_head(model: UShape) -> None:
    """Raise InputError if the diagnosis head has more than `LARGEST` numbers."""
    head = model.diagnosis.linear
    if (numbers := head.weight.size + head.bias.size) > LARGEST:
        raise InputError(
            f"--refit-head: the head has {numbers:,} numbers, and Newton's method stores a number for each "
            f"pair of them; the limit is {LARGEST:,}; omit the option, or choose fewer --widths or "
            "--pooled-levels bottleneck"
        )


def pooled_features(model: UShape, batches: DataLoader, device: str = "cpu") -> Iterator[np.ndarray]:
    """Yield the pooled features of each batch of samples, (n, D) float64."""
    for samples in batches:
        x = Tensor(to_device(to_input([sample.image for sample in samples]), device))  # (n, 3, H, W)
        with no_grad(), np.errstate(all="ignore"):  # overflow is an error below, not a warning
            levels = model.encode(x)
            read = levels[-model.diagnosis.levels :]
            outline = model.decode(levels) if model.task == "both" else None
            pooled = model.diagnosis.pool(read, outline).numpy().astype(np.float64)
        if not np.isfinite(pooled).all():
            raise InputError(f"{samples[0].name}: its features contain NaN or infinity; give other weights")
        yield pooled


def _calibrated_loss(
    fit: LogisticRegression, features: np.ndarray, labels: np.ndarray, log_weights: np.ndarray
) -> float:
    """Return the mean of -log p of the true class, without class weights, at the best temperature."""
    p = fit.probabilities(features)  # (N, K)
    logits = np.log(np.maximum(p, np.finfo(np.float64).tiny)) - log_weights
    p = apply_temperature(logits, fit_temperature(logits, labels))
    return float(negative_log_likelihood(p, labels))

"""Calibration: what a diagnosis needs besides the weights, computed when the training ends.

    log_weights    the logarithm of the class weights in training, which prediction divides out
    temperature    for one view and for the mean of eight: softmax(x / T) is as confident as it is right
    shares         of the classes among the training images: the prior, and the baseline "class shares"
    regression     logistic regression on colour, area, asymmetry and border of the predicted lesions

They are stored in the checkpoint as the entry "diagnosis". The temperatures are fitted on the training
images whose classes the network was not given (`r2unet.data.targets`). On the images that it has learned, it
is right far more often, and the fit would justify its confidence.

The regression is a baseline. It gets what the network has: the training images and the predicted outlines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from r2unet.data.classes import CLASSES
from r2unet.data.sample import Sample
from r2unet.data.targets import DiagnosisTargets, class_labels, for_calibration
from r2unet.diagnosis.baselines import LogisticRegression
from r2unet.diagnosis.calibration import fit_temperature
from r2unet.diagnosis.lesion_features import lesion_features
from r2unet.network.model import UShape
from r2unet.prediction.predict import THRESHOLD, Correction
from r2unet.scores.predictions import Answered, answer_samples
from r2unet.training.checkpoints import VIEWS, load_model, write_state
from r2unet.training.refit import refit_head
from r2unet.training.settings import Settings

REGRESSION_IMAGES = 2000  # twelve features need no more


def calibrate(
    model: UShape, settings: Settings, training: Sequence[Sample], device: str = "cpu"
) -> dict[str, Any]:
    """Return the entry "diagnosis" of a checkpoint, for a trained network in evaluation mode."""
    classes = CLASSES[settings.classes]
    targets = DiagnosisTargets(training, classes, settings.class_weights, settings.label_smoothing)
    log_weights = targets.log_weights(settings.balanced)
    labels = class_labels(training, classes)  # (N,)
    held_back = [i for i, label in enumerate(labels) if label >= 0 and for_calibration(training[i])]

    def predictions(indices: Sequence[int], tta: bool = False) -> Iterator[Answered]:
        samples, without_weights = [training[int(i)] for i in indices], Correction(log_weights=log_weights)
        return answer_samples(model, samples, settings.batch_size, device, tta, without_weights)

    temperature = dict.fromkeys(VIEWS, 1.0)
    for views, tta in VIEWS.items() if held_back else ():
        p = np.array([prediction.diagnosis for _, prediction in predictions(held_back, tta)])  # (n, K)
        # Logarithms of probabilities are logits, up to a constant that softmax ignores.
        logits = np.log(np.maximum(p, np.finfo(p.dtype).tiny))
        temperature[views] = fit_temperature(logits, labels[held_back])
    shares = targets.counts / targets.counts.sum()
    entry = {"log_weights": log_weights, "temperature": temperature, "shares": shares}
    if settings.task == "both":
        known = np.flatnonzero(targets.labels >= 0)
        chosen = known[np.linspace(0, len(known) - 1, min(len(known), REGRESSION_IMAGES)).astype(int)]
        features = [lesion_features(s.image, p.outline > THRESHOLD) for s, p in predictions(chosen)]
        regression = LogisticRegression.fit(np.array(features), targets.labels[chosen], len(classes))
        entry["regression"] = vars(regression)
    return entry


def add_calibration(path: Path, training: Sequence[Sample], device: str = "cpu") -> None:
    """Add the entry "diagnosis" to a checkpoint that lacks it.

    If its setting `refit_head` is on, the head is refitted first, and the trained one is kept, too. Raises
    InputError if the file cannot be written, and as `refit_head` does.
    """
    model, settings, state = load_model(path)
    if "diagnosis" in state:
        return
    model.to(device)
    if settings.refit_head:
        trained = {name: a for name, a in state["model"].items() if name.startswith("diagnosis.")}
        refit_head(model, settings, training, device)
        state = {**state, "model": model.state_dict(), "trained_head": trained}
    write_state(path, {**state, "diagnosis": calibrate(model, settings, training, device)})


def correction(state: dict[str, Any], tta: bool) -> Correction:
    """Return the correction that a checkpoint stores; none if its network was not trained to the end."""
    entry = state.get("diagnosis")
    if entry is None:
        return Correction()
    views = next(views for views, several in VIEWS.items() if several == tta)
    return Correction(float(entry["temperature"][views]), np.asarray(entry["log_weights"]))

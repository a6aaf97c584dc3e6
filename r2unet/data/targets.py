"""The targets of a diagnosis: for each image a distribution over the classes, times the weight of the image.

`minidl.ops.softmax_cross_entropy` takes one array t (N, K). This module computes it:

    a class           t_k = 1 for the class k of the image, 0 elsewhere
    label smoothing   t <- (1 - s) t + s / K: the network is not rewarded for certainty (Szegedy et al. 2016)
    class weights     t <- w_k t, because nevi outnumber all others. For n_k training images of class k:
                          none      w_k = 1
                          sqrt      w_k ~ n_k^(-1/2)
                          balanced  w_k ~ n_k^(-1): all classes have the same total weight
                      scaled so that the mean weight of an image is 1
    no class          t = 0: the image teaches the outline only

**A part of the training images is kept for calibration.** The temperature that corrects a network's
confidence must be fitted on images whose diagnosis the network has not learned. About a tenth of the
training lesions, chosen by a hash of their identity, therefore have the target 0 in training. Their masks
are used as all others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from r2unet.data.classes import class_index
from r2unet.data.pairs import held_out
from r2unet.data.sample import Sample
from r2unet.errors import InputError

# w_k ~ n_k to this power. The first is the default.
EXPONENTS = {"sqrt": -0.5, "none": 0.0, "balanced": -1.0}
CLASS_WEIGHTS = tuple(EXPONENTS)
CALIBRATION = 0.1  # of the lesions: those with the largest hashes, because the smallest are for validation


def lesion_of(sample: Sample) -> str:
    """Return the identity of the lesion in an image: its own or, where it is unknown, the image's name."""
    return sample.lesion or sample.name


def for_calibration(sample: Sample) -> bool:
    """Return whether the diagnosis of a training image is kept for calibration."""
    return held_out(lesion_of(sample), CALIBRATION, start=1.0 - CALIBRATION)


def class_labels(samples: Sequence[Sample], classes: tuple[str, ...]) -> np.ndarray:
    """Return the class of each image (N,), -1 for an image without a class."""
    return np.array([_label(samples[i], classes) for i in range(len(samples))], dtype=np.int64)


class DiagnosisTargets:
    """The class weights of a training set, and the targets of its images.

    `labels` (N,) are the classes of the images, -1 for none and for calibration. `counts` (K,) are the images
    of each class, and `weights` (K,) the weights of the classes. Raises InputError if a class has no image.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        classes: tuple[str, ...],
        weights: str = "sqrt",
        smoothing: float = 0.0,
    ) -> None:
        self.classes, self.smoothing = classes, smoothing
        self.labels = self._labels(samples)  # (N,)
        self.counts = np.bincount(self.labels[self.labels >= 0], minlength=len(classes))  # (K,)
        if not self.counts.all():
            _refuse_empty_class(samples, classes, self.counts)
        relative = self.counts ** EXPONENTS[weights]  # (K,)
        self.weights = relative * self.counts.sum() / (relative * self.counts).sum()

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """Return the targets (N, K) float32 of training images."""
        labels = self._labels(samples)  # (N,)
        target = np.eye(len(self.classes))[labels]  # (N, K); the row of a label -1 is set to 0 below
        target = (1.0 - self.smoothing) * target + self.smoothing / len(self.classes)
        target *= np.where(labels >= 0, self.weights[labels], 0.0)[:, None]
        return target.astype(np.float32)

    def log_weights(self, balanced: bool) -> np.ndarray:
        """Return the logarithm of how much an image of each class counts in training, (K,).

        An image counts as its class weight, times n_k^-1 if all classes are drawn equally often.
        """
        return np.log(self.weights / self.counts if balanced else self.weights)

    def sampling(self) -> np.ndarray:
        """Return probabilities (N,) for drawing images such that all classes are equally frequent.

        An image without a class keeps its share, 1/N.
        """
        share = np.full(len(self.labels), 1.0 / len(self.labels))
        known = self.labels >= 0
        share[known] = known.mean() / len(self.classes) / self.counts[self.labels[known]]
        return share

    def _labels(self, samples: Sequence[Sample]) -> np.ndarray:
        """Return the class of each training image (N,), -1 for none and for calibration."""
        kept = [for_calibration(samples[i]) for i in range(len(samples))]
        return np.where(kept, -1, class_labels(samples, self.classes))


def _label(sample: Sample, classes: tuple[str, ...]) -> int:
    index = class_index(sample.diagnosis, classes)
    return -1 if index is None else index


def _refuse_empty_class(samples: Sequence[Sample], classes: tuple[str, ...], counts: np.ndarray) -> None:
    """Raise InputError that names the first class without an image, and the diagnoses that there are."""
    empty = classes[int(np.argmin(counts))]
    diagnoses = Counter(samples[i].diagnosis or "without a diagnosis" for i in range(len(samples)))
    found = ", ".join(f"{count} {name}" for name, count in diagnoses.most_common())
    raise InputError(
        f"--classes: no training image is of the class {empty} (the images: {found}); choose other classes, "
        "or add images"
    )

"""Explains a diagnosis for `explain`: the evidence for the most probable classes, and the mask of the head.

The diagnosis head does not see the image. It sees the features of the bottleneck and, for each of their
positions, how much of it the predicted lesion covers. Both have few positions, 8 x 8 for a network with five
levels and 128 x 128 pixels. The maps are therefore drawn as squares. A head that reads all levels also sees
the features of those above; their evidence is added to the square that contains their position.

The evidence (`heat_map`) divides the logit of a class, minus the mean logit, among the positions:

    logit - mean logit = bias + sum of the positive evidence + sum of the negative evidence.

The positive evidence is drawn over the grey image, and the three terms are printed below it. All classes
have the same colour scale, so that their maps can be compared. The evidence explains the logits. The
probabilities also depend on the class weights and the temperature, which are the same for all images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from minidl import no_grad
from minidl.backend import Array, to_numpy
from minidl.ops import sigmoid
from r2unet.data.images import bounded_size, resize_probability
from r2unet.figures import PREDICTION, draw_outline
from r2unet.network.diagnosis import DiagnosisHead, cell_means
from r2unet.network.model import Answer
from r2unet.prediction.diagnosis_picture import DISCLAIMER, heat_on_grey, spoken
from r2unet.prediction.feature_maps import LARGEST_SIDE
from r2unet.prediction.heat_map import head_evidence
from r2unet.prediction.predict import THRESHOLD, Correction

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_CLASSES = 3
TITLE = "What drove the diagnosis"
NOTE = f"Numbers: parts of the logit minus the mean logit. Colours: the part for the class. {DISCLAIMER}"


class Evidence(NamedTuple):
    """The evidence for one class; `map.sum() + bias` is its logit minus the mean of all logits."""

    name: str  # of the class
    probability: float
    map: np.ndarray  # (h, w), signed
    bias: float


class ExplainedDiagnosis(NamedTuple):
    """The evidence for the most probable classes, and the mask by which the head weights the positions."""

    classes: list[Evidence]  # the most probable first
    mask: np.ndarray | None  # (h, w) in [0, 1]; None for a head that does not use the outline


def explain_diagnosis(
    head: DiagnosisHead,
    features: Sequence[Array],
    answer: Answer,
    classes: tuple[str, ...],
    correction: Correction,
) -> ExplainedDiagnosis:
    """Explain the diagnosis of one image from the features that its network's head reads, and the answer.

    `features` are (1, C, h, w) for each level, the bottleneck last. Raises ValueError unless `classes` are
    the names of all classes of the head.
    """
    logits = to_numpy(answer.diagnosis.data)[0].astype(np.float64)  # (K,)
    if len(classes) != len(logits):
        raise ValueError(f"explain: the network has {len(logits)} classes, but got {len(classes)} names")
    probabilities = correction(logits[None])[0]
    explained = []
    for k in np.argsort(-probabilities, kind="stable")[:MOST_CLASSES].tolist():
        values = to_numpy(head_evidence(head, features, answer.outline, k))
        bias = float(logits[k] - logits.mean() - values.sum())
        explained.append(Evidence(classes[k], float(probabilities[k]), values, bias))
    mask = None
    if head.pooling != "image":
        with no_grad():
            mask = to_numpy(cell_means(sigmoid(answer.outline), *features[-1].shape[2:]).data)[0, 0]
    return ExplainedDiagnosis(explained, mask)


def highest_evidence(diagnosis: ExplainedDiagnosis) -> float:
    """Return the value at the upper end of the colour scale; 1 if there is no positive evidence."""
    highest = max(float(evidence.map.max()) for evidence in diagnosis.classes)
    return highest if highest > 0 else 1.0


def draw_evidence(
    axes: Axes, evidence: Evidence, image: np.ndarray, probability: np.ndarray | None, highest: float
) -> None:
    """Draw the positive evidence over the grey image (H, W, 3), the outline, and the terms of the logit."""
    heat = np.maximum(evidence.map, 0) / highest  # (h, w)
    cells = [np.arange(H) * h // H for H, h in zip(image.shape, heat.shape, strict=False)]  # of every pixel
    axes.imshow(heat_on_grey(image, heat[np.ix_(*cells)]))  # every position a square of pixels
    if probability is not None:
        draw_outline(axes, probability, THRESHOLD, PREDICTION)
    axes.set_title(f"{spoken(evidence.name)} {evidence.probability:.3f}", fontsize=11)
    parts = {
        "for": evidence.map[evidence.map > 0].sum(),
        "against": evidence.map[evidence.map < 0].sum(),
        "bias": evidence.bias,
    }
    # Adding 0 turns a rounded -0.0 into 0.0.
    text = ", ".join(f"{name} {round(float(part), 2) + 0.0:+.2f}" for name, part in parts.items())
    axes.set_xlabel(text.replace("-", "\N{MINUS SIGN}"), fontsize=8)


def draw_mask(axes: Axes, mask: np.ndarray) -> None:
    """Draw the mask (h, w) as the head sees it: white is lesion."""
    h, w = mask.shape
    picture = resize_probability(mask, bounded_size(mask, LARGEST_SIDE))
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title("mask as the head sees it", fontsize=11)
    axes.set_xlabel(f"share of lesion in {h} x {w} cells", fontsize=8)


def draw_scale(axes: Axes, highest: float) -> None:
    """Draw the colours of the evidence from 0 to `highest`, as they look on middle grey."""
    ramp = np.linspace(0, 1, 256)[:, None]  # (256, 1)
    picture = heat_on_grey(np.full((256, 1, 3), 128, np.uint8), ramp)
    axes.imshow(picture, aspect="auto", origin="lower", extent=(0, 1, 0, highest))
    axes.yaxis.tick_right()
    axes.set_xticks([])
    axes.locator_params(axis="y", nbins=4)
    axes.tick_params(labelsize=7)

"""The heat map of a diagnosis: how much each position of the image contributed to the logit of a class.

The diagnosis head computes the logits z (K,) from the features f (C, h, w) of the bottleneck. The map is the
gradient times the activation, summed over the channels:

    e(y, x) = sum_c  d l_k / d f_c(y, x)  *  f_c(y, x),        l_k = z_k - (z_1 + ... + z_K) / K.

**Why the logit minus the mean logit.** The same number added to all logits changes no probability. A map of
z_k alone would also show what raises all classes alike. Softmax depends on l only; for two classes,
l_1 = (z_1 - z_0) / 2, half the log odds.

**Why the product.** The gradient alone is the effect of a small change of a feature, whatever the size of the
feature. The product is the first-order estimate of the effect of removing it,

    l(f) - l(f with f_c(y, x) = 0) = gradient * f_c(y, x) + terms of second order.

In general, such estimates do not sum to the whole. Here they do, because the head pools the features and then
applies a linear layer. With the outline as a constant, the mean, the maximum, and both over the lesion are
homogeneous: pool(a f) = a pool(f) for every a > 0. The derivative of both sides with respect to a, at a = 1,
is Euler's identity: the sum of (d pool / d f) f over channels and positions is pool(f). Therefore

    l_k = (b_k - mean of b) + sum over y, x of e(y, x),        b the bias of the linear layer.

The map divides the logit among the positions and leaves no remainder. A mean divides its share in proportion
to the features. A maximum gives all of its share to the position where it is.

Grad-CAM (Selvaraju et al. 2017) averages the gradient over the positions before it multiplies. That would
lose which positions are inside the lesion and where the maxima are. The product without the average is
HiResCAM (Draelos and Carin 2020). Both are equal if the head only takes the mean over the image.

**A head that reads all levels** pools them one by one, so the same holds for the features of all levels
together. A position of the bottleneck is a cell of 2 x 2, 4 x 4, ... positions of the levels above it. Their
evidence is added to that of the cell, and the map has the positions of the bottleneck, as before.

The map is exact for the head and coarse for the image. A network with five levels and 128 x 128 pixels has
8 x 8 positions, the receptive field of each is much larger than its cell, and the encoder is not linear. The
map shows where the network found evidence, which need not be the lesion. A sticker on the skin is evidence
for a nevus if the training images have stickers beside nevi only. In the ISIC archive, coloured stickers lie
beside many benign lesions (Rieger et al. 2020), and ink marks made a commercial network call many more nevi
melanomas (Winkler et al. 2019).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from minidl import Tensor, no_grad
from minidl.backend import Array, to_device, to_numpy
from minidl.nn import Module
from minidl.tensor import Parameter
from r2unet.data.images import resize_image
from r2unet.data.sample import to_input
from r2unet.network.diagnosis import DiagnosisHead
from r2unet.network.hooks import forward_hooks
from r2unet.network.model import UShape
from r2unet.prediction.predict import pad_to_multiple


@dataclass
class HeadInputs:
    """What a diagnosis head reads: the features of its levels and, with a decoder, the outline."""

    features: list[Tensor] = field(default_factory=list)  # (N, C, h, w) each, the bottleneck last
    outline: Tensor | None = None  # logits (N, 1, H, W)


def heat_map(
    model: UShape, image: np.ndarray, size: int, class_index: int, device: str = "cpu"
) -> np.ndarray:
    """Return where the evidence for a class is: image (H, W, 3) uint8 -> (H, W) float32 in [0, 1].

    The network, in evaluation mode, sees the image resized to (size, size). The map is the positive part of
    `evidence` divided by its maximum; it is 0 everywhere if nothing speaks for the class. Raises ValueError
    as `evidence` does.
    """
    small = resize_image(image, (size, size))
    x = pad_to_multiple(to_input([small]), model.multiple)  # (1, 3, size + p, size + p)
    cells = evidence(model, to_device(x, device), class_index)  # (h, w)
    return as_heat(cells, size / model.multiple, image.shape[:2])


def as_heat(cells: Array, used: float, size: tuple[int, int]) -> np.ndarray:
    """Return the heat map (H, W) of `size` from the evidence (h, w), whose padding begins at `used` cells."""
    heat = _enlarge(np.maximum(to_numpy(cells), 0), used, size)
    highest = heat.max()
    return heat / highest if highest > 0 else heat


@contextmanager
def head_inputs(model: UShape) -> Iterator[HeadInputs]:
    """Keep what the diagnosis head reads in the first forward pass of this block, for `head_evidence`."""
    kept, levels = HeadInputs(), model.diagnosis.levels

    def keep(name: str, module: Module, x: Tensor, y: Tensor) -> None:
        if name == "outline" and kept.outline is None:
            kept.outline = y
        elif name == "features" and len(kept.features) < levels:
            kept.features.append(y)

    modules = [("features", block) for block in model.encoder[-levels:]]
    if model.task == "both":
        modules.append(("outline", model.head))
    with forward_hooks(modules, keep):
        yield kept


def evidence(model: UShape, x: Array, class_index: int) -> Array:
    """Divide the logit of a class, minus the mean logit, among positions: x (1, 3, H, W) -> (h, w), signed.

    h = H / model.multiple. The mode of the network and its gradients do not change. Raises ValueError for a
    network without a diagnosis and for a class that it does not have. Source: Draelos and Carin (2020).
    """
    if model.task == "outline":
        raise ValueError('evidence: the task of this network is "outline"; only a diagnosis has a heat map')
    classes = model.diagnosis.linear.bias.size
    if not 0 <= class_index < classes:
        raise ValueError(
            f"evidence: class {class_index} does not exist; the network has classes 0 to {classes - 1}"
        )
    with no_grad():
        levels = model.encode(Tensor(x))
        # Decoding removes the elements of its list.
        outline = model.decode(list(levels)) if model.task == "both" else None
    features = [level.data for level in levels[-model.diagnosis.levels :]]
    return head_evidence(model.diagnosis, features, outline, class_index)


def head_evidence(
    head: DiagnosisHead, features: Sequence[Array], outline: Tensor | None, class_index: int
) -> Array:
    """Return `evidence` from the head's inputs, features (1, C, h, w) and outline logits -> (h, w)."""
    leaves = [Tensor(level, requires_grad=True) for level in features]  # the graph starts here
    with constant(head.parameters()):
        logits = head(leaves, outline)  # (1, K)
        (logits[0, class_index] - logits.mean()).backward()
    h, w = features[-1].shape[2:]
    return sum(cell_sums((leaf.grad * leaf.data)[0].sum(axis=0), h, w) for leaf in leaves)


def cell_sums(positions: Array, h: int, w: int) -> Array:
    """Add the numbers of the positions within each of h x w equal cells, (H, W) -> (h, w)."""
    H, W = positions.shape
    return positions.reshape(h, H // h, w, W // w).sum(axis=(1, 3))


@contextmanager
def constant(parameters: Sequence[Parameter]) -> Iterator[None]:
    """Treat parameters as constants in a `with` block: the graph recorded there leaves them out."""
    before = [p.requires_grad for p in parameters]
    for p in parameters:
        p.requires_grad = False
    try:
        yield
    finally:
        for p, required in zip(parameters, before, strict=True):
            p.requires_grad = required


def _enlarge(cells: np.ndarray, used: float, size: tuple[int, int]) -> np.ndarray:
    """Resize the first `used` rows and columns of (h, w) to `size` = (H, W); the remainder is padding.

    Bicubic, because the kinks of bilinear interpolation are visible as diamonds when a cell becomes a hundred
    pixels wide. What it undershoots below 0 is set to 0.
    """
    from PIL import Image

    height, width = size
    enlarged = Image.fromarray(cells.astype(np.float32)).resize(
        (width, height), Image.Resampling.BICUBIC, box=(0, 0, used, used)
    )
    return np.maximum(np.array(enlarged), 0)

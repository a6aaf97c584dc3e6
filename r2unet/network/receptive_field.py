"""The receptive field of every layer: the part of the image that an output pixel depends on.

Along one axis, a pixel of a layer depends on the pixels first ... last of the image. For the image itself
first = last = i. The functions of the computational graph (`minidl.tensor`) pass the two numbers on:

    convolution, pooling    pixel i reads the pixels S i - P ... S i - P + K - 1 of its input
    transposed convolution  pixel i reads the pixels j with S j - P <= i <= S j - P + K - 1: its adjoint
    nearest upsampling      pixel i reads the pixel i // S
    sum, concatenation      pixel i reads pixel i of every input: the smallest first, the largest last
    anything else           pixel i reads pixel i of its input

The receptive field is last - first + 1, the largest of a layer if its pixels differ, as they do after a
transposed convolution. The border of the image would cut it off, so the numbers are computed for an axis that
is long enough. Norms count as if their statistics were constants: group norm's depend on the whole image.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minidl.nn import Module
from minidl.ops.conv import Conv2d, ConvTranspose2d
from minidl.ops.pool import MaxPool2d
from minidl.ops.upsample import UpsampleNearest
from minidl.tensor import Function, Tensor
from r2unet.network.hooks import forward_hooks


class Extent(NamedTuple):
    """The first and the last pixel of the image on which each pixel along an axis depends, (n,) each."""

    first: np.ndarray
    last: np.ndarray


def receptive_fields(model: Module, x: Tensor) -> dict[str, int | None]:
    """Return the side in pixels of every layer's receptive field, by its name; of all its calls, the last.

    x (N, C, H, W) is an image for the model; only its number of channels matters for a U-shape. None stands
    for the whole image, where a layer no longer has pixels: the diagnosis. The model must be in evaluation
    mode, and is not changed.
    """
    layers = recorded_layers(model, x)
    pixels = 1
    while True:
        extents = {None: Extent(*2 * [np.arange(pixels * getattr(model, "multiple", 1))])}
        fields = {name: size(extent_of(function, extents)) for name, function in layers}
        if max(filter(None, fields.values()), default=0) <= pixels // 2:
            return fields  # no receptive field in the middle of the axis reaches its ends
        pixels *= 2


def recorded_layers(model: Module, x: Tensor) -> list[tuple[str, Function]]:
    """Run a small part of x through the model; return every call of a layer as the function that ended it."""
    side = getattr(model, "multiple", x.shape[2])
    image = Tensor(x.data[:1, :, :side, :side], requires_grad=True)
    leaves = [(name, module) for name, module in model.named_modules() if not any(module.named_children())]
    layers: list[tuple[str, Function]] = []
    recompute = vars(model).get("checkpoint_blocks")
    if recompute:
        model.checkpoint_blocks = False  # recomputed blocks record no graph
    try:
        with forward_hooks(leaves, lambda name, module, x, y: layers.append((name, y.creator))):
            getattr(model, "answer", model)(image)
    finally:
        if recompute:
            model.checkpoint_blocks = True
    return layers


def extent_of(function: Function, extents: dict[Function | None, Extent | None]) -> Extent | None:
    """Return the extent of a function's output, and store it and those below it in `extents`.

    None as a function is the image, None as an extent the whole image.
    """
    if function not in extents:
        inputs = [x for x in function.inputs if len(x.shape) == 4 and not is_weight(function, x)]
        below = [extent_of(x.creator, extents) for x in inputs]
        if not below or None in below:
            extents[function] = None
        else:
            extents[function] = passed_on(function, inputs[0].shape, below)
    return extents[function]


def is_weight(function: Function, x: object) -> bool:
    """Return whether x is the kernel of a convolution."""
    return isinstance(function, Conv2d | ConvTranspose2d) and x is not function.inputs[0]


def passed_on(function: Function, shape: tuple[int, ...], below: list[Extent]) -> Extent:
    """Return the extent of a function's output, from the extents of its inputs."""
    first, last = below[0]
    n = len(first)
    if isinstance(function, Conv2d | MaxPool2d):
        kernel = function.inputs[1].shape[3] if isinstance(function, Conv2d) else function.kernel[1]
        stride, padding = function.stride[1], function.padding[1]
        start = stride * np.arange((n + 2 * padding - kernel) // stride + 1) - padding
        return Extent(first[np.maximum(start, 0)], last[np.minimum(start + kernel - 1, n - 1)])
    if isinstance(function, ConvTranspose2d | UpsampleNearest):
        if isinstance(function, ConvTranspose2d):
            kernel, stride, padding = function.inputs[1].shape[3], function.stride[1], function.padding[1]
        else:
            kernel, stride, padding = function.scale_factor, function.scale_factor, 0
        i = np.arange(stride * n)
        start, end = -((kernel - 1 - padding - i) // stride), (i + padding) // stride
        return Extent(first[np.maximum(start, 0)], last[np.minimum(end, n - 1)])
    return Extent(np.minimum.reduce([e.first for e in below]), np.maximum.reduce([e.last for e in below]))


def size(extent: Extent | None) -> int | None:
    """Return the largest number of pixels, from first to last."""
    return None if extent is None else int((extent.last - extent.first).max()) + 1

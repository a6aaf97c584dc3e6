"""The inputs at which each operation is checked: away from kinks, and chosen to expose mistakes.

The shapes are small, odd and all different, and the settings are not the defaults, so that an exchanged axis,
an off-by-one or a forgotten stride changes the result. The inputs are far from all kinks: that of a ReLU at
0, and those of a maximum where two numbers are equal.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minidl import ops
from minidl.backend import to_device
from minidl.nn import Module
from minidl.recompute import Recomputed
from minidl.tensor import Tensor


def off_zero(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Draw numbers with absolute values between 0.5 and 1.5: away from ReLU's kink, from 1/0 and log 0."""
    return rng.uniform(0.5, 1.5, shape) * rng.choice((-1.0, 1.0), shape)


def all_different(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Draw numbers no two of which are closer than 0.01: away from the kinks of a maximum."""
    count = int(np.prod(shape))
    return 0.01 * rng.permutation(count).reshape(shape) - 0.005 * count


def with_negatives(x: np.ndarray) -> np.ndarray:
    """Insert after each channel its negative, x (N, C, H, W) -> (N, 2 C, H, W): the mean of every pair is 0.

    A group norm of such pairs has no z near the kink of a ReLU if x has no number near 0.
    """
    N, C, H, W = x.shape
    return np.stack((x, -x), axis=2).reshape(N, 2 * C, H, W)


def by_recomputing(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return f as a module whose activations are recomputed in the backward pass."""

    def function(x: Tensor, *weights: Tensor) -> Tensor:
        module = Module()
        module.forward = lambda x: f(x, *weights)
        return Recomputed(module)(x, *weights)

    return function


def function_cases(
    rng: np.random.Generator, device: str = "cpu"
) -> dict[str, tuple[Callable[..., Tensor], list[np.ndarray]]]:
    """Return, for each Function by its name, a function that calls it on a device, and the inputs.

    If a backward pass has several branches, each has its own case, named after the Function and the branch.
    """
    image, other, weights = rng.normal(size=(2, 3, 7, 6)), rng.normal(size=(2, 4, 7, 6)), off_zero(rng, 3)
    mask = (rng.random((2, 1, 5, 4)) > 0.5).astype(np.float64)
    logits = 2.0 * rng.normal(size=mask.shape)
    mean, var = rng.normal(size=3), rng.uniform(0.5, 2.0, 3)
    statistics = to_device(mean, device), to_device(var, device)
    target = Tensor(to_device(mask, device))
    class_logits = 2.0 * rng.normal(size=(5, 4))
    rows_of_classes = rng.random((5, 4)) * [[1.0], [0.0], [2.0], [0.5], [1.0]]  # the second has no class
    classes = Tensor(to_device(rows_of_classes, device))
    # Batch norm's z = g n + b is far from 0 if x is far from the mean, and b is small. In training the second
    # image is the first one's negative, so that the mean is 0.
    half, small = off_zero(rng, 1, 3, 7, 6), rng.uniform(-0.1, 0.1, 3)
    around_zero, around_mean = np.concatenate((half, -half)), mean[:, None, None] + off_zero(rng, 2, 3, 7, 6)
    rows, columns = rng.normal(size=(4, 1, 3)), off_zero(rng, 5, 1)  # broadcast to (4, 5, 3)
    kernel, back = rng.normal(size=(4, 3, 3, 2)), rng.normal(size=(3, 4, 3, 2))
    return {
        "Add": (ops.add, [rows, columns]),
        "Add, one shape": (ops.add, [image, rng.normal(size=image.shape)]),
        "Subtract": (ops.subtract, [rows, columns]),
        "Multiply": (ops.multiply, [rows, columns]),
        "Multiply, one shape": (ops.multiply, [image, rng.normal(size=image.shape)]),
        "Divide": (ops.divide, [rows, columns]),
        "Negative": (ops.negative, [rows]),
        "Power": (lambda x: ops.power(x, 2.5), [np.abs(off_zero(rng, 3, 4))]),
        "Power, negative": (lambda x: ops.power(x, -2.0), [off_zero(rng, 3, 4)]),
        "Power, zero": (lambda x: ops.power(x, 0.0), [off_zero(rng, 3, 4)]),
        "Exp": (ops.exp, [rows]),
        "Log": (ops.log, [np.abs(off_zero(rng, 3, 4))]),
        "ReLU": (ops.relu, [off_zero(rng, 3, 5)]),
        "Sigmoid": (ops.sigmoid, [logits]),
        "Sum": (lambda x: ops.sum(x, axis=(0, 2)), [image]),
        "Sum, of everything": (ops.sum, [image]),
        "Mean": (lambda x: ops.mean(x, axis=1, keepdims=True), [image]),
        "Mean, of everything": (ops.mean, [image]),
        "Max": (lambda x: ops.max(x, axis=1), [all_different(rng, 4, 5, 3)]),
        "Max, of everything": (ops.max, [all_different(rng, 4, 5, 3)]),
        "Reshape": (lambda x: ops.reshape(x, (3, -1)), [image]),
        "Transpose": (lambda x: ops.transpose(x, (1, 3, 0, 2)), [image]),
        "Concat": (lambda a, b: ops.concat((a, b), axis=1), [image, other]),
        "Pad": (lambda x: ops.pad(x, (1, 2), (0, 3)), [image]),
        "GetItem": (lambda x: ops.getitem(x, (slice(None), [0, 2, 0], slice(1, 6, 2))), [image]),
        "GetItem, a slice": (lambda x: ops.getitem(x, (..., slice(1, 4))), [image]),
        "MatMul": (ops.matmul, [rng.normal(size=(2, 4, 3)), rng.normal(size=(3, 5))]),
        "MatMul, two matrices": (ops.matmul, [rng.normal(size=(4, 3)), rng.normal(size=(3, 5))]),
        "MatMul, two batches": (ops.matmul, [rng.normal(size=(2, 4, 3)), rng.normal(size=(2, 3, 5))]),
        "UpsampleNearest": (lambda x: ops.upsample_nearest(x, 3), [image]),
        "Conv2d": (
            lambda x, w, b: ops.conv2d(x, w, b, stride=(2, 1), padding=(1, 2)),
            [image, kernel, rng.normal(size=4)],
        ),
        "Conv2d, stride 1": (lambda x, w: ops.conv2d(x, w, padding=(1, 0)), [image, kernel]),
        "Conv2d, wide padding": (lambda x, w: ops.conv2d(x, w, padding=(3, 2)), [image, kernel]),
        "ConvTranspose2d": (
            lambda x, w, b: ops.conv_transpose2d(
                x, w, b, stride=(2, 3), padding=(1, 0), output_padding=(1, 2)
            ),
            [image, back, rng.normal(size=4)],
        ),
        "ConvTranspose2d, stride 1": (lambda x, w: ops.conv_transpose2d(x, w, padding=1), [image, back]),
        "ConvTranspose2d, stride 2": (lambda x, w: ops.conv_transpose2d(x, w, stride=2), [image, back]),
        "MaxPool2d": (
            lambda x: ops.max_pool2d(x, kernel_size=(3, 2), stride=(2, 1), padding=(1, 1)),
            [all_different(rng, 2, 3, 7, 6)],
        ),
        "BatchNorm": (lambda x, g, b: ops.batch_norm(x, g, b)[0], [image, weights, rng.normal(size=3)]),
        "BatchNorm, ReLU": (
            lambda x, g, b: ops.batch_norm(x, g, b, relu=True)[0],
            [around_zero, weights, small],
        ),
        "BatchNormInference": (
            lambda x, g, b: ops.batch_norm(x, g, b, statistics)[0],
            [image, weights, rng.normal(size=3)],
        ),
        "BatchNormInference, ReLU": (
            lambda x, g, b: ops.batch_norm(x, g, b, statistics, relu=True)[0],
            [around_mean, weights, small],
        ),
        "BinaryCrossEntropyWithLogits": (
            lambda x: ops.binary_cross_entropy_with_logits(x, target),
            [logits],
        ),
        "SoftDiceLoss": (lambda x: ops.soft_dice_loss(x, target), [logits]),
        "FocalLoss": (lambda x: ops.focal_loss(x, target, gamma=1.5), [logits]),
        "SoftmaxCrossEntropy": (lambda x: ops.softmax_cross_entropy(x, classes), [class_logits]),
        "SoftmaxCrossEntropy, focal": (
            lambda x: ops.softmax_cross_entropy(x, classes, gamma=1.5),
            [class_logits],
        ),
        "TverskyLoss": (lambda x: ops.tversky_loss(x, target, 0.2, 0.9), [logits]),
        "GroupNorm": (
            lambda x, g, b: ops.group_norm(x, 2, g, b),
            [other, off_zero(rng, 4), rng.normal(size=4)],
        ),
        "GroupNorm, ReLU": (
            lambda x, g, b: ops.group_norm(x, 2, g, b, relu=True),
            [with_negatives(off_zero(rng, 2, 2, 7, 6)), off_zero(rng, 4), rng.uniform(-0.1, 0.1, 4)],
        ),
        "Conv2d, 3x3": (
            lambda x, w, b: ops.conv2d(x, w, b, padding=(1, 0)),
            [image, rng.normal(size=(4, 3, 3, 3)), rng.normal(size=4)],
        ),
        "ConvTranspose2d, 3x3": (
            lambda x, w: ops.conv_transpose2d(x, w, padding=1),
            [image, rng.normal(size=(3, 4, 3, 3))],
        ),
        "Recomputed": (by_recomputing(ops.conv2d), [image, kernel, rng.normal(size=4)]),
        "Conv2d, 1x1": (ops.conv2d, [image, rng.normal(size=(4, 3, 1, 1)), rng.normal(size=4)]),
        "ConvTranspose2d, 3x3, stride 2": (
            lambda x, w, b: ops.conv_transpose2d(x, w, b, stride=2, padding=(1, 0), output_padding=1),
            [image, rng.normal(size=(3, 4, 3, 3)), rng.normal(size=4)],
        ),
    }

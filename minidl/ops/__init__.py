"""The operations: one idea in each file, forward and backward together, derived in the file's docstring."""

from minidl.ops.activation import relu, sigmoid
from minidl.ops.conv import conv2d, conv_transpose2d
from minidl.ops.elementwise import add, divide, exp, log, multiply, negative, power, subtract
from minidl.ops.linear import linear, matmul
from minidl.ops.loss import (
    binary_cross_entropy_with_logits,
    focal_loss,
    soft_dice_loss,
    softmax_cross_entropy,
    tversky_loss,
)
from minidl.ops.norm import batch_norm, group_norm
from minidl.ops.pool import max_pool2d
from minidl.ops.reduce import max, mean, sum
from minidl.ops.shape import concat, getitem, pad, reshape, transpose
from minidl.ops.upsample import upsample_nearest

__all__ = [
    "add",
    "batch_norm",
    "binary_cross_entropy_with_logits",
    "concat",
    "conv2d",
    "conv_transpose2d",
    "divide",
    "exp",
    "focal_loss",
    "getitem",
    "group_norm",
    "linear",
    "log",
    "matmul",
    "max",
    "max_pool2d",
    "mean",
    "multiply",
    "negative",
    "pad",
    "power",
    "relu",
    "reshape",
    "sigmoid",
    "soft_dice_loss",
    "softmax_cross_entropy",
    "subtract",
    "sum",
    "transpose",
    "tversky_loss",
    "upsample_nearest",
]

"""Batch norm folded into the convolution before it, for prediction.

In evaluation batch norm is one multiply-add a channel, z = a y + c (`minidl/ops/norm.py`), and so the
convolution y = w * x + b before it can do it alone:

    a (w * x + b) + c  =  (a w) * x + (a b + c),      a = g / sqrt(var + eps),   c = beta - a mean

A recurrent convolution has a norm for every step, hence from one kernel a folded one for every step: what
one application costs falls by a pass over the image, at the price of a few more weights. Only prediction
gains: in training the statistics are those of the batch, and not known before the convolution is done.
"""

from __future__ import annotations

import copy

from minidl.backend import array_module
from minidl.nn import BatchNorm2d, Conv2d, ConvTranspose2d, Module
from minidl.tensor import Parameter, Tensor
from r2unet.network.blocks import ConvNormReLU, RecurrentConv, UpConv


class ReLUInPlace(Module):
    """What is left of a folded norm: max(x, 0), written over x, which nobody needs once it is known."""

    def forward(self, x: Tensor, relu: bool = True) -> Tensor:
        array_module(x.data).maximum(x.data, 0.0, out=x.data)
        return x


def fold(layer: Conv2d | ConvTranspose2d, norm: BatchNorm2d) -> Conv2d | ConvTranspose2d:
    """Return a copy of the convolution that does the norm's evaluation as well."""
    mean, var = norm.statistics()
    a = norm.weight.data / array_module(var).sqrt(var + norm.eps)  # (OC,)
    folded = copy.copy(layer)
    # The output channels come first in a convolution's kernel, second in that of its adjoint.
    along = a[:, None, None] if isinstance(layer, ConvTranspose2d) else a[:, None, None, None]
    folded.weight = Parameter(layer.weight.data * along)
    folded.bias = Parameter((layer.bias.data - mean) * a + norm.bias.data)
    return folded


def fold_all(model: Module) -> Module:
    """Return a copy of a network for prediction, its batch norms folded into the convolutions.

    Where a block's norm is a group norm, which depends on the image, the block is left as it is. The copy
    is to be run in `no_grad` only: its ReLUs write over their inputs.
    """
    model = copy.deepcopy(model).eval()
    for _, block in list(model.named_modules()):
        norms = getattr(block, "norm", None)
        if isinstance(block, RecurrentConv) and isinstance(norms[0], BatchNorm2d):
            layers = [block.conv, *(block.further or [block.conv] * block.steps)]
            block.conv, *block.further = (fold(*pair) for pair in zip(layers, norms, strict=True))
            block.norm = [ReLUInPlace()] * len(norms)
        elif isinstance(block, ConvNormReLU) and isinstance(norms, BatchNorm2d):
            block.conv, block.norm = fold(block.conv, norms), ReLUInPlace()
        elif isinstance(block, UpConv) and isinstance(norms, BatchNorm2d):
            block.up, block.norm = fold(block.up, norms), ReLUInPlace()
    return model

"""Folding batch norm into the preceding convolution, for faster prediction.

In evaluation batch norm is one multiply-add per element, z = a y + c (`minidl/ops/norm/fused.py`). The
convolution y = w * x + b that precedes it can do both:

    a (w * x + b) + c  =  (a w) * x + (a b + c),      a = g / sqrt(var + eps),   c = beta - a mean

This saves one pass over the image for every application. A recurrent convolution has a norm for every step,
so its kernel is folded into one kernel for every step, which costs some memory. In training nothing can be
folded: there mean and var are those of the batch, known only after the convolution.
"""

from __future__ import annotations

import copy

from minidl.backend import array_module
from minidl.nn import BatchNorm2d, Conv2d, ConvTranspose2d, Module
from minidl.tensor import Parameter, Tensor

Convolution = Conv2d | ConvTranspose2d


class ReLUInPlace(Module):
    """Replaces a folded norm: max(x, 0), written over x, which nothing else reads."""

    def forward(self, x: Tensor, relu: bool = True) -> Tensor:
        array_module(x.data).maximum(x.data, 0.0, out=x.data)
        return x


def fold(conv: Convolution, norm: Module) -> tuple[Convolution, Module]:
    """Return a copy of the convolution that includes the batch norm, and the ReLU that remains.

    A group norm depends on the image and cannot be folded: convolution and norm are then returned unchanged.
    """
    if not isinstance(norm, BatchNorm2d):
        return conv, norm
    mean, var = norm.statistics()
    a = norm.weight.data / array_module(var).sqrt(var + norm.eps)  # (OC,)
    folded = copy.copy(conv)
    # A convolution's kernel is (OC, C, KH, KW), a transposed convolution's is (C, OC, KH, KW).
    scale = a[:, None, None] if isinstance(conv, ConvTranspose2d) else a[:, None, None, None]
    folded.weight = Parameter(conv.weight.data * scale)
    folded.bias = Parameter((conv.bias.data - mean) * a + norm.bias.data)
    return folded, ReLUInPlace()


def fold_all(model: Module) -> Module:
    """Return a copy of a network for prediction, in which every module with a `fold` method is folded.

    Run the copy only inside `no_grad`: its ReLUs overwrite their inputs.
    """
    model = copy.deepcopy(model).eval()
    for _, module in list(model.named_modules()):
        if hasattr(module, "fold"):
            module.fold()
    return model

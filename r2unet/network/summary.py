"""A summary of a network: output shape, receptive field, parameters and multiply-adds of every layer.

Forward hooks record the layers while one image runs through the network. So a convolution that is applied
three times counts its parameters once and its multiply-adds three times. Its receptive field
(`receptive_field.py`) is that of the last time.

    conv2d              y has OC OH OW elements, each a sum of C KH KW products
    conv_transpose2d    x has C H W elements, each multiplied by OC KH KW weights
    linear              y has N OC elements, each a sum of C products
    batch norm          one multiply-add per element, in evaluation
    group norm          two per element: one is for the variance, which evaluation computes as well
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minidl import Tensor, no_grad
from minidl.nn import BatchNorm2d, Conv2d, ConvTranspose2d, GroupNorm, Linear, Module
from r2unet.network.hooks import forward_hooks
from r2unet.network.receptive_field import receptive_fields


@dataclass
class Layer:
    """One layer of the summary."""

    name: str
    kind: str
    output: tuple[int, ...]  # (N, C, H, W), of a linear layer (N, C)
    parameters: int  # without those already counted in a layer above
    multiply_adds: int  # sum over all calls
    calls: int = 1
    receptive_field: int | None = None  # the side in pixels of the image; None for the whole image


def multiply_adds(module: Module, x: Tensor, y: Tensor) -> int:
    """Return the number of multiply-adds of one call of a module with input x and output y."""
    if isinstance(module, Conv2d | Linear):
        return y.size * module.weight.data[0].size
    if isinstance(module, ConvTranspose2d):
        return x.size * module.weight.data[0].size
    if isinstance(module, BatchNorm2d):
        return y.size
    if isinstance(module, GroupNorm):
        return 2 * y.size
    return 0


def summarize(model: Module, x: Tensor) -> list[Layer]:
    """Run x through the model in evaluation and return a row for every module that has no submodules.

    The model's state and mode are unchanged afterwards.
    """
    mode = model.training
    layers: dict[str, Layer] = {}
    counted: set[int] = set()

    def record(name: str, module: Module, x: Tensor, y: Tensor) -> None:
        if name in layers:
            layers[name].calls += 1
            layers[name].multiply_adds += multiply_adds(module, x, y)
        else:
            new = [p for p in module.parameters() if id(p) not in counted]
            counted.update(id(p) for p in new)
            kind, parameters = type(module).__name__, sum(p.size for p in new)
            layers[name] = Layer(name, kind, y.shape, parameters, multiply_adds(module, x, y))

    leaves = [(name, module) for name, module in model.named_modules() if not any(module.named_children())]
    try:
        with forward_hooks(leaves, record), no_grad():
            getattr(model.eval(), "answer", model)(x)  # of a U-shape, also the diagnosis
        fields = receptive_fields(model, x)
    finally:
        model.train(mode)
    for name, layer in layers.items():
        layer.receptive_field = fields[name]
    return list(layers.values())


def as_table(layers: list[Layer]) -> str:
    """Return the layers as a text table with totals."""
    width = max(len(layer.name) for layer in layers)
    rows = [
        f"{'layer':{width}}  {'kind':15}  {'output':>17}  {'receptive field':>15}  {'parameters':>10}  "
        f"{'multiply-adds':>13}  calls"
    ]
    for layer in layers:
        output, field = " x ".join(map(str, layer.output[1:])), layer.receptive_field
        rows.append(
            f"{layer.name:{width}}  {layer.kind:15}  {output:>17}  "
            f"{f'{field} x {field}' if field else 'whole image':>15}  {layer.parameters:10,}  "
            f"{layer.multiply_adds:13,}  {layer.calls:5}"
        )
    parameters = sum(layer.parameters for layer in layers)
    products = sum(layer.multiply_adds for layer in layers)
    rows.append(f"{'total':{width}}  {'':15}  {'':17}  {'':15}  {parameters:10,}  {products:13,}")
    return "\n".join(rows)


def image_of_zeros(size: int, channels: int = 3) -> Tensor:
    """Return an image of zeros for `summarize`, (1, channels, size, size)."""
    return Tensor(np.zeros((1, channels, size, size), np.float32))

"""What a network is made of: a line a layer, with its output, its parameters and its multiply-adds.

The layers are found by running one image through the network and watching, so recurrence shows as it is: a
convolution applied three times has its parameters once and its multiply-adds three times.

    conv2d              y has OC OH OW numbers, each a sum of C KH KW products
    conv_transpose2d    x has C H W numbers, each multiplied by OC KH KW weights
    batch norm          one multiply-add an element, in evaluation
    group norm          two: one for the variance, which it needs in evaluation too
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minidl import Tensor, no_grad
from minidl.nn import BatchNorm2d, Conv2d, ConvTranspose2d, GroupNorm, Module
from r2unet.network.watch import watching


@dataclass
class Line:
    """One layer as it ran."""

    name: str
    kind: str
    output: tuple[int, ...]  # (N, C, H, W)
    parameters: int  # those that no line above has counted
    multiply_adds: int  # over all calls
    calls: int = 1


def multiply_adds(layer: Module, x: Tensor, y: Tensor) -> int:
    """Return how many products of two numbers a layer sums, for input x and output y."""
    if isinstance(layer, Conv2d):
        return y.size * layer.weight.data[0].size
    if isinstance(layer, ConvTranspose2d):
        return x.size * layer.weight.data[0].size
    if isinstance(layer, BatchNorm2d):
        return y.size
    if isinstance(layer, GroupNorm):
        return 2 * y.size
    return 0


def summarize(model: Module, x: Tensor) -> list[Line]:
    """Run x through the model in evaluation and return a line for each layer that has no layers below it.

    The model is left as it was.
    """
    mode = model.training
    lines: dict[str, Line] = {}
    counted: set[int] = set()

    def see(name: str, layer: Module, x: Tensor, y: Tensor) -> None:
        if name in lines:
            lines[name].calls += 1
            lines[name].multiply_adds += multiply_adds(layer, x, y)
        else:
            fresh = [p for p in layer.parameters() if id(p) not in counted]
            counted.update(id(p) for p in fresh)
            kind, parameters = type(layer).__name__, sum(p.size for p in fresh)
            lines[name] = Line(name, kind, y.shape, parameters, multiply_adds(layer, x, y))

    leaves = [(n, m) for n, m in model.named_modules() if not any(m.named_children())]
    try:
        with watching(leaves, see), no_grad():
            model.eval()(x)
    finally:
        model.train(mode)
    return list(lines.values())


def as_table(lines: list[Line]) -> str:
    """Lay the lines out as text, with totals."""
    width = max(len(line.name) for line in lines)
    rows = [
        f"{'layer':{width}}  {'kind':15}  {'output':>17}  {'parameters':>10}  {'multiply-adds':>13}  calls"
    ]
    for line in lines:
        output = " x ".join(map(str, line.output[1:]))
        rows.append(
            f"{line.name:{width}}  {line.kind:15}  {output:>17}  {line.parameters:10,}  "
            f"{line.multiply_adds:13,}  {line.calls:5}"
        )
    parameters, products = (sum(getattr(x, k) for x in lines) for k in ("parameters", "multiply_adds"))
    rows.append(f"{'total':{width}}  {'':15}  {'':17}  {parameters:10,}  {products:13,}")
    return "\n".join(rows)


def image_of_zeros(size: int, channels: int = 3) -> Tensor:
    """Return one empty image to run through a network, (1, channels, size, size)."""
    return Tensor(np.zeros((1, channels, size, size), np.float32))

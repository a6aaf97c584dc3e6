"""The sum of partial weight gradients on the GPU, in a fixed order.

A layer has few weights, and each is a sum over all pixels. Many blocks share the pixels, and each writes the
weight gradient of its share, one *part*. A second launch adds the parts, as `parts.cu` describes. Atomic
additions would make it unnecessary, but their order, and with it the last bits, would differ in every run.
"""

from __future__ import annotations

from minidl.backend import Array, Kernels, array_module, cover

kernels = Kernels(__file__)

WEIGHTS = 8  # neighbouring numbers that a block adds, as in parts.cu
ROWS = 64  # threads for each of them, at most MOST_ROWS in parts.cu


def add_parts(parts: Array) -> Array:
    """Return the sum over the first axis, parts (P, ...) -> (...)."""
    if len(parts) == 1:
        return parts[0]
    total = array_module(parts).empty(parts.shape[1:], parts.dtype)
    grid, _ = cover(total.size, WEIGHTS)
    kernels.launch("add_parts", grid, (WEIGHTS, min(ROWS, len(parts))), parts, total, len(parts), total.size)
    return total

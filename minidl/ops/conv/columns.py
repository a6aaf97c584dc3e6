"""The weight gradient of 3x3 convolutions of stride 1 or 2 on the GPU: each thread walks down a column.

    dw[oc,c,kh,kw] = sum over n,i,j of dy[n,oc,i,j] x[n,c, S i + kh - PH, S j + kw - PW]

Each of the few numbers of dw is a sum over all pixels. In `columns.cu` a thread owns an input channel and a
column. It keeps the 3x3 window under its pixel in registers. One row further down, six of the window's pixels
are the same if the stride S is 1, so it reads three pixels of x and one of dy for each of 8 output channels,
and adds 72 products to 72 sums. If S = 2, three are the same, and it reads six.

The blocks own different weights or different *segments* of columns. `parts.py` adds their sums in a fixed
order, so that every run gives the same bits.

On an H200 the layers of stride 1 with 8, 16, 32 and 64 channels take 65, 56, 51 and 50 us (shapes as in
`strips.py`): 36 to 47 % of the rate of a large matrix product.
"""

from __future__ import annotations

import math

from minidl.backend import Array, Kernels, array_module, contiguous
from minidl.ops.conv.parts import add_parts

kernels = Kernels(__file__)

CHANNELS, TILE, COLUMNS, ROWS = 8, 8, 16, 8  # as in columns.cu
# Rows of a segment, and blocks: four for each of an H100's 132 multiprocessors. An earlier version of the
# kernel was measured there at six shapes: with 528 blocks it was at most 3 % slower than with 1056 or 2112,
# and with segments of 32 rows at most 3 % slower than with 16 or 64. At stride 2 no others have been tried.
SEGMENT, BLOCKS = 32, 528


def weight_gradient(x: Array, dy: Array, padding: tuple[int, int], stride: int = 1) -> Array:
    """Return dw, summed over images, x (N, C, H, W), dy (N, OC, OH, OW) -> dw (OC, C, 3, 3).

    The stride is 1 or 2, and the same in both directions.
    """
    (N, C, H, W), (_, OC, OH, OW) = x.shape, dy.shape
    tiles = math.ceil(C / CHANNELS), math.ceil(OC / TILE)
    segments = N * math.ceil(OH / SEGMENT) * math.ceil(OW / COLUMNS)
    pieces = max(1, min(segments, BLOCKS // (tiles[0] * tiles[1])))
    parts = array_module(x).empty((pieces, OC, C, 3, 3), x.dtype)
    sizes = N, C, H, W, OC, OH, OW, *padding, SEGMENT
    arguments = contiguous(x), contiguous(dy), parts, *sizes
    name = f"columns_weight_gradient_{stride}"
    kernels.launch(name, (*tiles, pieces), (CHANNELS * COLUMNS,), *arguments)
    return add_parts(parts)

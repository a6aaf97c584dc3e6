"""The geometry of a sliding window, which convolution and pooling share.

A window of KH x KW pixels moves over an image of H x W, SH rows and SW columns at a time, and the image has
PH rows and PW columns of padding on each side. Window number i starts at row SH i of the padded image, which
is row SH i - PH of the image itself, and the last window must still fit:

    SH (OH - 1) + KH <= H + 2 PH    =>    OH = (H + 2 PH - KH) // SH + 1
"""

from __future__ import annotations

from collections.abc import Iterator

Pair = tuple[int, int]


def as_pair(value: int | Pair) -> Pair:
    """Return 3 as (3, 3), and (3, 1) unchanged."""
    return (int(value),) * 2 if hasattr(value, "__index__") else tuple(value)


def output_size(size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Pair:
    """Return (OH, OW), the number of window positions, for an image of (H, W)."""
    (H, W), (KH, KW), (SH, SW), (PH, PW) = size, kernel, stride, padding
    return (H + 2 * PH - KH) // SH + 1, (W + 2 * PW - KW) // SW + 1


def transposed_output_size(size: Pair, kernel: Pair, stride: Pair, padding: Pair, extra: Pair) -> Pair:
    """Return the (H, W) whose `output_size` is `size`; with a stride, `extra` selects one of several."""
    settings = zip(size, kernel, stride, padding, extra, strict=True)
    return tuple((n - 1) * s - 2 * p + k + e for n, k, s, p, e in settings)


def windows(size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Iterator[tuple[int, int, slice, slice]]:
    """Yield (kh, kw, rows, columns): the pixels of the padded image under weight (kh, kw), for all windows.

    This loops over the KH KW weights and never over pixels: nine iterations for a 3x3 window.
    """
    OH, OW = output_size(size, kernel, stride, padding)
    for kh in range(kernel[0]):
        for kw in range(kernel[1]):
            yield kh, kw, slice(kh, kh + stride[0] * OH, stride[0]), slice(kw, kw + stride[1] * OW, stride[1])

"""Solutions of the exercises of chapter 11, docs/11-how-fast-and-why.md."""

import math
from collections.abc import Sequence


def arithmetic_channels(kernel: int, bandwidth: float, rate: float) -> int:
    """Return from how many channels C on a convolution is limited by arithmetic: the roofline's corner."""
    # 2 kernel^2 C^2 operations and 8 C bytes for each pixel: an intensity of kernel^2 C / 4.
    return math.ceil(rate / bandwidth * 4 / kernel**2)


def needed_speedup(part: float, whole: float, target: float) -> float:
    """Return how many times faster a part must become, so that the whole becomes `target` times faster."""
    left = whole / target - (whole - part)  # The seconds that remain for the part
    return part / left if left > 0 else math.inf


def step_seconds(kernels: Sequence[float], launch: float) -> float:
    """Return when the last kernel of a step ends."""
    end = 0.0
    for k, seconds in enumerate(kernels):
        end = max(end, (k + 1) * launch) + seconds
    return end

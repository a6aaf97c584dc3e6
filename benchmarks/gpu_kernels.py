"""Every kernel that a training step launches: its time, its bytes a second, its operations a second.

Each launch is timed where it happens, in the middle of real training steps, between two marks in the GPU's
queue (`gpu_clock.py`), while the GPU is kept busy so that the queue is full: so the caches hold what they
hold in training, and neither Python nor the empty queue is timed. A mark costs the GPU a microsecond or
two, which is in every launch's time.

What a kernel can reach is measured beside it: `copy`, the bytes read and written a second by one large
copy, and `product`, the operations a second of one large product of matrices. A kernel that does little
with each number it reads can be as fast as the copy. Its bytes are those of its arrays, each counted once:
what it reads twice is its own fault, and what it finds in the cache, where an array came from the kernel
before, can bring it above 100 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.gpu_clock import CudaClock, HostClock, clock_of, tf32
from benchmarks.timing import Spread, spread
from minidl.backend import Kernels, library

FLOOR = 0.5  # of the copy's rate: what a kernel that only moves numbers should reach
LARGE_BYTES = 8 << 20  # below, a launch costs more than the work
OCCUPY_MS = 40.0  # Python needs about so long to fill the queue with a step
COPY_BYTES, PRODUCT_SIZE = 1 << 30, 8192

Arrays = list[Any]

# Floating-point operations, by the beginning of the kernel's name, from its arrays; two for a multiply-add.
# Zeros around the image are counted, as everyone does.
OPERATIONS: dict[str, Callable[[Arrays], float]] = {
    # x (N, C, H, W), w (OC, C, KH, KW), b, y (N, OC, OH, OW): C KH KW for each number of y
    "direct_forward": lambda a: 2.0 * a[3].size * a[1].size / a[1].shape[0],
    # dy (N, OC, OH, OW), w (OC, C, KH, KW), b, dx: C KH KW for each number of dy
    "direct_adjoint": lambda a: 2.0 * a[0].size * a[1].size / a[1].shape[0],
    # x (N, C, H, W), dy (N, OC, OH, OW), parts (pieces, OC, C, KH, KW): C KH KW for each number of dy
    "direct_weight_gradient": lambda a: 2.0 * a[1].size * math.prod(a[2].shape[2:]),
    "im2col": lambda a: 0.0,
    "col2im": lambda a: float(a[0].size),
    "upsample_forward": lambda a: 0.0,
    "adam": lambda a: 15.0 * a[0].size,
    "batch_norm": lambda a: 4.0 * a[0].size,
    "sigmoid": lambda a: 4.0 * a[0].size,
    "cross_entropy": lambda a: 8.0 * a[0].size,
    "soft_dice": lambda a: 8.0 * a[0].size,
}
COMPUTES = ("direct_",)  # these are limited by arithmetic, not by memory

# Kernels that get tables of addresses: m and v read and written, p and g read, the new p written.
BYTES: dict[str, Callable[[Arrays], float]] = {"adam": lambda a: 7.0 * a[0].nbytes}
UNKNOWN = ("sums_of_squares", "scale_to_norm")  # what their tables lead to is on the GPU


@dataclass
class Record:
    """One kernel on arrays of one set of shapes."""

    name: str
    shapes: tuple[tuple[int, ...], ...]
    bytes: float | None  # of one launch
    operations: float  # of one launch
    marks: list[tuple[Any, Any]] = field(default_factory=list)


@contextmanager
def watched(clock: HostClock | CudaClock) -> Iterator[dict[Any, Record]]:
    """Record every launch inside this block, by name and shapes."""
    records: dict[Any, Record] = {}
    launch = Kernels.launch

    def watched_launch(kernels: Kernels, name: str, grid: Any, block: Any, *arguments: Any) -> None:
        arrays = [a for a in arguments if hasattr(a, "shape")]
        key = name, tuple(a.shape for a in arrays)
        if key not in records:
            records[key] = Record(*key, moved(name, arrays), operations(name, arrays))
        begin = clock.mark()
        launch(kernels, name, grid, block, *arguments)
        records[key].marks.append((begin, clock.mark()))

    Kernels.launch = watched_launch
    try:
        yield records
    finally:
        Kernels.launch = launch


def operations(name: str, arrays: Arrays) -> float:
    """Return the floating-point operations of a launch; of most kernels one for each number of an array."""
    rule = next((rule for start, rule in OPERATIONS.items() if name.startswith(start)), None)
    return rule(arrays) if rule else float(max(a.size for a in arrays))


def moved(name: str, arrays: Arrays) -> float | None:
    """Return the fewest bytes that a launch can read and write, None where its arrays do not tell."""
    if name in UNKNOWN:
        return None
    return BYTES[name](arrays) if name in BYTES else float(sum(a.nbytes for a in arrays))


def measure(step: Callable[[], Any], device: str, steps: int, quick: bool) -> dict[str, Any]:
    """Return the device's limits, a step's kernels, the most expensive first, and its time in all."""
    clock = clock_of(device)
    for _ in range(1 if quick else 3):
        step()
    limits = {"copy": copy_rate(device, clock, quick), "product": product_rate(device, clock, quick)}
    whole = []
    for _ in range(steps):  # without marks inside
        clock.occupy(OCCUPY_MS)
        begin = clock.mark()
        step()
        whole.append(clock.seconds(begin, clock.mark()))
    with watched(clock) as records:
        for _ in range(steps):
            clock.occupy(OCCUPY_MS)
            step()
            clock.wait()
    rows = [row(record, clock, steps, limits) for record in records.values()]
    rows.sort(key=lambda r: -r["seconds_a_step"])
    return {
        "limits": limits,
        "step": spread(whole),
        "in_kernels": sum(r["seconds_a_step"] for r in rows),
        "launches": sum(r["launches"] for r in rows),
        "kernels": rows,
        "slow": [r for r in rows if r["slow"]],
    }


def row(
    record: Record, clock: HostClock | CudaClock, steps: int, limits: dict[str, Spread]
) -> dict[str, Any]:
    """Return a kernel's seconds, its bytes and operations a second, and their shares of the limits."""
    seconds = spread(clock.seconds(*marks) for marks in record.marks)
    rate = None if record.bytes is None else record.bytes / seconds.median
    share = None if rate is None else rate / limits["copy"].median
    memory_bound = not record.name.startswith(COMPUTES)
    return {
        "name": record.name,
        "shapes": record.shapes,
        "launches": len(record.marks) / steps,
        "seconds": seconds,
        "seconds_a_step": seconds.median * len(record.marks) / steps,
        "bytes": record.bytes,
        "bytes_a_second": rate,
        "share_of_copy": share,
        "operations_a_second": record.operations / seconds.median,
        "share_of_product": record.operations / seconds.median / limits["product"].median,
        "slow": memory_bound and share is not None and share < FLOOR and record.bytes >= LARGE_BYTES,
    }


def copy_rate(device: str, clock: HostClock | CudaClock, quick: bool) -> Spread:
    """Return the bytes a second, read and written, of a large copy on the device."""
    size = (1 << 20 if quick else COPY_BYTES) // 4
    a, b = (library(device).zeros(size, "f4") for _ in range(2))

    def copy() -> None:
        b[...] = a

    return spread(2.0 * a.nbytes / s for s in timed(copy, clock))


def product_rate(device: str, clock: HostClock | CudaClock, quick: bool, allowed: bool = False) -> Spread:
    """Return the operations a second of a large product of random float32 matrices, TF32 allowed or not."""
    import numpy as np

    n = 64 if quick else PRODUCT_SIZE
    rng = np.random.default_rng(0)
    a, b = (library(device).asarray(rng.standard_normal((n, n), np.float32)) for _ in range(2))
    with tf32(allowed, device, torch=False):
        return spread(2.0 * n**3 / s for s in timed(lambda: a @ b, clock))


def timed(call: Callable[[], Any], clock: HostClock | CudaClock, repeats: int = 10) -> list[float]:
    """Return the seconds of some calls, one after the other, after three that do not count."""
    seconds = []
    for turn in range(3 + repeats):
        begin = clock.mark()
        call()
        elapsed = clock.seconds(begin, clock.mark())
        if turn >= 3:
            seconds.append(elapsed)
    return seconds

"""Measure every kernel that a training step launches: its time, bytes per second and operations per second.

Each launch is timed inside real training steps, between two events in the GPU's queue (`gpu_clock.py`). The
GPU is kept busy first, so that the queue is full. The caches then have the same contents as in training, and
neither Python nor an empty queue is timed. Every launch's time includes the microsecond or two that an event
costs the GPU.

The queue must not run empty during the step. It holds about 1024 operations; the others are launched while
the GPU computes. A step of (8, 16, 32, 64) has 586 launches of our kernels and about 440 of CuPy's own
(additions, sums, copies; counted on the CPU); through im2col 675 and about 600. Two events for each of our
launches would make 2200 operations, half of which Python would have to launch within the few milliseconds
that the GPU needs for the first 1024. Therefore a step has events only for every PARTS-th launch, and the
next step for others:

                        launches   CuPy's   events          all    beyond 1024
    direct                   586      440   2 x 586 / 8    1170            150
    im2col                   675      600   2 x 675 / 8    1440            420

Reckoned from the times of whole steps on an H200, the GPU needs 10 ms for the first 1024 (im2col: 23 ms), and
Python 5 ms (18 ms) to launch what is beyond. If Python is half as fast (with im2col, two thirds as fast), the
queue may run empty, and the last launches of the step then seem slower than they are.

Two limits of the GPU are measured as well: `copy`, the bytes read and written per second by one large copy,
and `product`, the operations per second of one large matrix product. A kernel that does little arithmetic per
number (a memory-bound kernel) can be as fast as the copy. The bytes of a kernel are the sizes of its arrays,
each counted once. A kernel that reads an array twice therefore gets a lower rate. A kernel that finds the
previous kernel's output in the cache can exceed 100 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from benchmarks.gpu_clock import CudaClock, HostClock, clock_of
from benchmarks.timing import Spread, spread
from minidl.backend import Kernels, library, tf32

SLOW_SHARE = 0.5  # share of the copy's rate that a memory-bound kernel should reach
LARGE_BYTES = 8 << 20  # for smaller arrays, a launch costs more than the work
OCCUPY_MS = 150.0  # more than the time that Python needs to fill the queue, even in a slow step
PARTS = 8  # of the launches of a step; each step has events for one of them
REPEATS = 3  # events for each launch, in steps that are PARTS apart
COPY_BYTES, PRODUCT_SIZE = 1 << 30, 8192

Arrays = list[Any]

# Floating-point operations by the prefix of the kernel's name, computed from its arrays. A multiply-add is
# counted as two. Operations on the padding are included, as is usual.
OPERATIONS: dict[str, Callable[[Arrays], float]] = {
    # x (N, C, H, W), w (OC, C, KH, KW), b, y (N, OC, OH, OW): C KH KW for each number of y
    "implicit_gemm_forward": lambda a: 2.0 * a[3].size * a[1].size / a[1].shape[0],
    # dy (N, OC, OH, OW), w (OC, C, KH, KW), b, dx: C KH KW for each number of dy
    "implicit_gemm_adjoint": lambda a: 2.0 * a[0].size * a[1].size / a[1].shape[0],
    # x (N, C, H, W), dy (N, OC, OH, OW), parts (pieces, OC, C, KH, KW): C KH KW for each number of dy
    "implicit_gemm_weight_gradient": lambda a: 2.0 * a[1].size * math.prod(a[2].shape[2:]),
    "small_product": lambda a: 2.0 * a[2].size * a[0].shape[1],  # a (n, K), b (K, m), y (n, m)
    "strips_forward": lambda a: 2.0 * a[3].size * a[1].size / a[1].shape[0],
    "strips_halving": lambda a: 2.0 * a[3].size * a[1].size / a[1].shape[0],
    "strips_adjoint": lambda a: 2.0 * a[0].size * a[1].size / a[1].shape[0],
    "columns_weight_gradient": lambda a: 2.0 * a[1].size * math.prod(a[2].shape[2:]),
    "phases_adjoint": lambda a: 2.0 * a[0].size * a[1].size / a[1].shape[0],
    "pointwise_forward": lambda a: 2.0 * a[3].size * a[1].size / a[1].shape[0],
    "pointwise_adjoint": lambda a: 2.0 * a[0].size * a[1].size / a[1].shape[0],
    "pointwise_weight_gradient": lambda a: 2.0 * a[1].size * a[2].shape[2],
    "im2col": lambda a: 0.0,
    "col2im": lambda a: float(a[0].size),
    "side_by_side": lambda a: 0.0,
    "upsample_forward": lambda a: 0.0,
    "adam": lambda a: 15.0 * a[0].size,
    "moment": lambda a: 3.0 * a[0].size,  # moment_sums, moments
    "normalise": lambda a: 2.0 * a[0].size,
    "gradient_sums": lambda a: 5.0 * a[0].size,
    "input_gradient": lambda a: 5.0 * a[0].size,
    # group norm: its statistics are computed by moment_sums and moments
    "group_normalise": lambda a: 2.0 * a[0].size,
    "group_gradient_sums": lambda a: 5.0 * a[0].size,
    "group_gradient_means": lambda a: 2.0 * a[0].size,
    "group_input_gradient": lambda a: 7.0 * a[0].size,
    "sigmoid": lambda a: 4.0 * a[0].size,
    "cross_entropy": lambda a: 8.0 * a[0].size,
    "soft_dice": lambda a: 8.0 * a[0].size,
    # x (N, K): for each logit the sums and products, exp, log, expm1 and pow
    "softmax_cross_entropy": lambda a: 12.0 * a[0].size,
}
COMPUTE_BOUND = ("implicit_gemm_", "strips_", "columns_", "phases_")  # limited by arithmetic, not by memory

# Kernels whose arguments are tables of pointers. Adam reads m, v, p and g, and writes m, v and the new p.
BYTES: dict[str, Callable[[Arrays], float]] = {"adam": lambda a: 7.0 * a[0].nbytes}
# The sizes of the arrays in their tables of addresses are on the GPU.
UNKNOWN = ("sums_of_squares", "scale_to_norm", "moving_average", "copy_all")


@dataclass
class Record:
    """The launches of one kernel on arrays of the same shapes."""

    name: str
    shapes: tuple[tuple[int, ...], ...]
    bytes: float | None  # per launch
    operations: float  # per launch
    launches: int = 0
    marks: list[tuple[Any, Any]] = field(default_factory=list)


@contextmanager
def recorded_launches(
    clock: HostClock | CudaClock, records: dict[Any, Record], part: int = 0, parts: int = 1
) -> Iterator[None]:
    """Count every launch inside this block in `records`, by name and shapes, and time one of `parts` parts.

    The launches are numbered from 0. Those whose number has the remainder `part` when divided by `parts` get
    marks.
    """
    launch, numbers = Kernels.launch, count()

    def recorded_launch(kernels: Kernels, name: str, grid: Any, block: Any, *arguments: Any) -> None:
        arrays = [a for a in arguments if hasattr(a, "shape")]
        key = name, tuple(a.shape for a in arrays)
        if key not in records:
            records[key] = Record(*key, bytes_moved(name, arrays), operations(name, arrays))
        record = records[key]
        record.launches += 1
        if next(numbers) % parts != part:
            launch(kernels, name, grid, block, *arguments)
            return
        start = clock.mark()
        launch(kernels, name, grid, block, *arguments)
        record.marks.append((start, clock.mark()))

    Kernels.launch = recorded_launch
    try:
        yield
    finally:
        Kernels.launch = launch


def operations(name: str, arrays: Arrays) -> float:
    """Return the floating-point operations of a launch; for most kernels one per element of an array."""
    rule = next((rule for start, rule in OPERATIONS.items() if name.startswith(start)), None)
    return rule(arrays) if rule else float(max(a.size for a in arrays))


def bytes_moved(name: str, arrays: Arrays) -> float | None:
    """Return the minimum number of bytes that a launch reads and writes, or None if it is unknown."""
    if name in UNKNOWN:
        return None
    return BYTES[name](arrays) if name in BYTES else float(sum(a.nbytes for a in arrays))


def measure(
    step: Callable[[], Any], device: str, quick: bool, parts: int = PARTS, repeats: int = REPEATS
) -> dict[str, Any]:
    """Return the limits of the device, the kernels of a step (slowest first), and the time of the step.

    Each launch is timed in `repeats` of `parts * repeats` steps, which must launch the same kernels.
    """
    clock = clock_of(device)
    for _ in range(1 if quick else 3):
        step()
    limits = {"copy": copy_rate(device, clock, quick), "product": product_rate(device, clock, quick)}
    whole = []
    for _ in range(parts):  # without events inside
        clock.occupy(OCCUPY_MS)
        start = clock.mark()
        step()
        whole.append(clock.seconds(start, clock.mark()))
    records: dict[Any, Record] = {}
    steps = parts * repeats
    for turn in range(steps):
        clock.occupy(OCCUPY_MS)
        with recorded_launches(clock, records, turn % parts, parts):
            step()
        clock.synchronize()
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
    """Return a kernel's seconds, its bytes and operations per second, and their shares of the limits."""
    seconds = spread(clock.seconds(*marks) for marks in record.marks)
    rate = None if record.bytes is None else record.bytes / seconds.median
    share = None if rate is None else rate / limits["copy"].median
    memory_bound = not record.name.startswith(COMPUTE_BOUND)
    return {
        "name": record.name,
        "shapes": record.shapes,
        "launches": record.launches / steps,
        "seconds": seconds,
        "seconds_a_step": seconds.median * record.launches / steps,
        "bytes": record.bytes,
        "bytes_a_second": rate,
        "share_of_copy": share,
        "operations_a_second": record.operations / seconds.median,
        "share_of_product": record.operations / seconds.median / limits["product"].median,
        "slow": memory_bound and share is not None and share < SLOW_SHARE and record.bytes >= LARGE_BYTES,
    }


def copy_rate(device: str, clock: HostClock | CudaClock, quick: bool) -> Spread:
    """Return the bytes read and written per second by a large copy on the device."""
    size = (1 << 20 if quick else COPY_BYTES) // 4
    a, b = (library(device).zeros(size, "f4") for _ in range(2))

    def copy() -> None:
        b[...] = a

    return spread(2.0 * a.nbytes / s for s in timed(copy, clock))


def product_rate(device: str, clock: HostClock | CudaClock, quick: bool, allowed: bool = False) -> Spread:
    """Return the operations per second of a large product of random float32 matrices."""
    import numpy as np

    n = 64 if quick else PRODUCT_SIZE
    rng = np.random.default_rng(0)
    a, b = (library(device).asarray(rng.standard_normal((n, n), np.float32)) for _ in range(2))
    with tf32(allowed, device):
        return spread(2.0 * n**3 / s for s in timed(lambda: a @ b, clock))


def timed(call: Callable[[], Any], clock: HostClock | CudaClock, repeats: int = 10) -> list[float]:
    """Return the seconds of `repeats` consecutive calls, after three untimed calls."""
    seconds = []
    for turn in range(3 + repeats):
        start = clock.mark()
        call()
        elapsed = clock.seconds(start, clock.mark())
        if turn >= 3:
            seconds.append(elapsed)
    return seconds

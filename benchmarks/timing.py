"""Time measurement on a machine with varying load.

If A and B were measured one after the other, A might run in a busy minute and B in a quiet one. Measurements
are therefore interleaved in rounds, A B C, A B C, ..., and a ratio is computed within each round. A slowdown
that lasts longer than a round then affects both and cancels. The result is the median over the rounds, which
a few disturbed rounds hardly change. The minimum and the maximum show its uncertainty.

Scaling is summarised by an exponent. If time = c * work^p, then log time is a linear function of log work,
and p is its slope, fitted by least squares.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

# Idle threads of OpenBLAS and OpenMP spin for some tens of milliseconds before they sleep, and would occupy a
# core during the next measurement.
REST_SECONDS = 0.05


class Spread(NamedTuple):
    """A summary of repeated measurements."""

    median: float
    minimum: float
    maximum: float


def spread(values: Iterable[float]) -> Spread:
    """Return the median, the minimum and the maximum of one or more numbers."""
    values = list(values)
    return Spread(statistics.median(values), min(values), max(values))


def interleave(
    contenders: dict[str, Callable[[], Any]], repeats: int, warmup: int = 1
) -> dict[str, list[float]]:
    """Return the seconds of each contender in each of `repeats` rounds, after `warmup` untimed rounds.

    The result of a call is released before the next call. Garbage is collected between calls, so that one
    contender's garbage is not collected in another's time.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(warmup + repeats):
        for name, call in contenders.items():
            gc.collect()
            time.sleep(REST_SECONDS)
            started = time.perf_counter()
            call()
            ended = time.perf_counter()
            if turn >= warmup:
                seconds[name].append(ended - started)
    return seconds


def ratios(measured: dict[str, Sequence[float]], own: str) -> dict[str, Spread]:
    """Return, for each other contender, the ratio own / other in each round: below 1, `own` needs less."""
    return {
        name: spread(a / b for a, b in zip(measured[own], values, strict=True))
        for name, values in measured.items()
        if name != own
    }


def exponent(work: Sequence[float], seconds: Sequence[float]) -> float:
    """Return p of the fit seconds = c * work^p, by least squares on the logarithms of two or more points."""
    return statistics.linear_regression([math.log(w) for w in work], [math.log(s) for s in seconds]).slope

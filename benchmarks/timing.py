"""How long things take on a machine that is never quite at rest.

Measured one after the other, A could meet a busy minute and B a quiet one. So rounds are measured, A B C,
A B C, ..., and a ratio is taken inside each round, between neighbours in time; what slows the machine for
longer than a round slows both and cancels. Of many rounds the median is told, which one disturbed round
cannot move, with the least and the most beside it, so that everyone sees how far to trust it.

How the time grows with the work is one number, too: if time = c * work^p, then log time is a straight line
over log work, and p is the slope of the line of least squares.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

# Threads of OpenBLAS and OpenMP go on looking for work for some tens of milliseconds before they sleep, and
# would take a core from whoever is measured next.
REST_SECONDS = 0.05


class Spread(NamedTuple):
    """Many measurements of one thing."""

    median: float
    least: float
    most: float


def spread(values: Iterable[float]) -> Spread:
    """Return the median, the least and the most of one or more numbers."""
    values = list(values)
    return Spread(statistics.median(values), min(values), max(values))


def interleave(
    contenders: dict[str, Callable[[], Any]], repeats: int, warmup: int = 1
) -> dict[str, list[float]]:
    """Return the seconds of each contender in each of `repeats` rounds, after `warmup` that do not count.

    What a call returns is dropped before the next begins. Garbage is collected in between and not in one
    contender's time because of another's.
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
    """Return, for each other contender, own / other round by round: below 1, `own` needs less."""
    return {
        name: spread(a / b for a, b in zip(measured[own], values, strict=True))
        for name, values in measured.items()
        if name != own
    }


def exponent(work: Sequence[float], seconds: Sequence[float]) -> float:
    """Return p of the fit seconds = c * work^p, by least squares on the logarithms of two or more points."""
    return statistics.linear_regression([math.log(w) for w in work], [math.log(s) for s in seconds]).slope

"""Line charts as inline SVG, for pages that open anywhere, in light and dark.

A chart has no colours of its own: line i has the class `cI`, whose colour, for a light and a dark page, is in
`run_page.css`. The coordinates are those of the viewBox, and the page scales it to the width of its column.
Every line also has a dash of its own, because colours alone do not distinguish it in print or for everyone.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import NamedTuple

COLOURS = 6  # classes c0 to c5
DASHES = 3  # classes d0 to d2, so that 18 lines differ
WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 42, 10, 10, 34  # margins with the ticks and the label
FEW = 20  # a line through at most this many points shows each of them


class Line(NamedTuple):
    """A line of a chart; `number` gives its colour and `marked` is the position of an emphasised point."""

    label: str
    number: int
    x: Sequence[float]
    y: Sequence[float]
    marked: int | None = None


def text(value: object) -> str:
    """Return a value as HTML: escaped, and without characters that a page cannot show."""
    return html.escape("".join(c if c.isprintable() else "?" for c in str(value)))


def style(number: int) -> str:
    """Return the classes of line `number`."""
    return f"c{number % COLOURS} d{number // COLOURS % DASHES}"


def sample(number: int) -> str:
    """Return a short piece of line `number`, for a legend."""
    return (
        f'<svg class="sample {style(number)}" viewBox="0 0 28 10" aria-hidden="true">'
        '<path class="line" d="M1 5H27"/></svg>'
    )


def chart(
    title: str,
    lines: Sequence[Line],
    x_label: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
) -> str:
    """Draw lines over each other, at least one with a point; return a <figure> with its title.

    Without a range, an axis has that of the values. Points that are not finite interrupt nothing: they are
    left out.
    """
    lines = [_finite(line) for line in lines]
    x_low, x_high = x_range or _range([x for line in lines for x in line.x])
    y_low, y_high = y_range or _range([y for line in lines for y in line.y])

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM),
        )

    parts = []
    for tick in ticks(y_low, y_high):
        _, y = place(x_low, tick)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in ticks(x_low, x_high):
        x, _ = place(tick, y_low)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{tick:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 3}" text-anchor="middle">{text(x_label)}</text>')
    parts += [_drawn(line, [place(*point) for point in zip(line.x, line.y, strict=True)]) for line in lines]
    names = ", ".join(line.label for line in lines)
    return (
        f'<figure class="chart"><figcaption>{text(title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text(f"{title}: {names}")}">'
        f"{''.join(parts)}</svg></figure>"
    )


def interval(value: float, low: float, high: float, number: int | None) -> str:
    """Draw a score from 0 to 1 as a point with its interval; `number` is that of a run, None for others."""
    width, height = 120, 14

    def place(score: float) -> str:
        return f"{4 + score * (width - 8):.1f}"

    classes = "other" if number is None else style(number)
    return (
        f'<svg class="interval {classes}" viewBox="0 0 {width} {height}" aria-hidden="true">'
        f'<path class="grid" d="M4 7H{width - 4}M4 3V11M{width / 2} 3V11M{width - 4} 3V11"/>'
        f'<path class="line" d="M{place(low)} 7H{place(high)}"/>'
        f'<circle cx="{place(value)}" cy="7" r="4"/></svg>'
    )


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers from `low` to `high`: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Return the range of the values, with some room; equal values get a range, too."""
    low, high = min(values), max(values)
    room = 0.04 * (high - low) or 0.5
    return low - room, high + room


def _finite(line: Line) -> Line:
    """Leave out the points that are not finite."""
    kept = [i for i, y in enumerate(line.y) if math.isfinite(y)]
    marked = kept.index(line.marked) if line.marked in kept else None
    return line._replace(x=[line.x[i] for i in kept], y=[line.y[i] for i in kept], marked=marked)


def _drawn(line: Line, points: Sequence[tuple[float, float]]) -> str:
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) if points else ""
    dots = [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{4.5 if i == line.marked else 2}"/>'
        for i, (x, y) in enumerate(points)
        if i == line.marked or len(points) <= FEW
    ]
    return (
        f'<g class="{style(line.number)}"><title>{text(line.label)}</title>'
        f'<path class="line" d="{path}"/>{"".join(dots)}</g>'
    )

"""One lesion without holes: what is known of every mask, and the network does not know.

A dermoscopy image shows one lesion, and a lesion is a filled region. So of a predicted mask the largest
component is kept, and its holes are filled.

**Connectivity.** Lesion pixels are neighbours if they share an edge or a corner (8-connectivity), skin pixels
if they share an edge (4-connectivity). Both may not be 8: where four pixels meet in a checkerboard, lesion
and skin would then pass through each other, and a closed curve would not separate its inside from its
outside (Rosenfeld & Pfaltz 1966).

**Runs.** A run is a stretch of lesion in one row. A lesion of a million pixels is a thousand runs, and only
to find and to draw them is every pixel looked at. Rows are laid end to end with a gap of one pixel of skin,
so a run is two numbers, [start, end), in order. A run's neighbours in the row below are those that overlap
it once it is moved one row on, and made wider by one pixel at both ends if corners count:

    start_j < end_i + row + d   and   end_j > start_i + row - d,      d = 1 for corners, else 0.

**Components.** Every run points at a run that comes no later, itself at first. Of each two neighbours the
later one's root is pointed at the earlier one's, and all pointers are followed to their end, until neighbours
agree (Shiloach & Vishkin 1982). All of a round is done at once, in arrays.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Runs(NamedTuple):
    """The runs of a mask, in reading order: arrays (runs,) of positions in rows of width + 1 pixels."""

    start: np.ndarray
    end: np.ndarray  # one past the last pixel


def clean_up(mask: np.ndarray) -> np.ndarray:
    """Keep the largest component and fill its holes: a mask (H, W) of 0 and 1 -> (H, W) uint8.

    An empty mask stays empty.
    """
    return fill_holes(largest_component(mask))


def largest_component(mask: np.ndarray) -> np.ndarray:
    """Keep the largest 8-connected component of a mask (H, W), the first of equals -> (H, W) uint8."""
    runs = find_runs(mask)
    if not len(runs.start):
        return np.zeros(mask.shape, np.uint8)
    component = components(runs, mask.shape[1] + 1, corners=True)
    areas = np.bincount(component, weights=runs.end - runs.start)
    kept = component == areas.argmax()
    return draw(Runs(runs.start[kept], runs.end[kept]), mask.shape)


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Turn skin that no 4-connected path joins to the image's border into lesion: (H, W) -> (H, W) uint8."""
    H, W = mask.shape
    skin = find_runs(np.logical_not(mask))
    component = components(skin, W + 1, corners=False)
    row, left = np.divmod(skin.start, W + 1)
    right = skin.end - row * (W + 1)
    at_border = (row == 0) | (row == H - 1) | (left == 0) | (right == W)
    holes = ~np.isin(component, component[at_border])
    return draw(Runs(skin.start[holes], skin.end[holes]), mask.shape) | mask.astype(np.uint8)


def find_runs(mask: np.ndarray) -> Runs:
    """Find the runs of a mask (H, W)."""
    rows = np.pad(mask.astype(np.int8), ((0, 0), (0, 1)))  # (H, W) -> (H, W + 1)
    steps = np.diff(rows.ravel(), prepend=0)  # 1 where a run starts, -1 behind its end
    return Runs(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1))


def draw(runs: Runs, shape: tuple[int, int]) -> np.ndarray:
    """Return the mask (H, W) uint8 that has these runs."""
    H, W = shape
    steps = np.zeros(H * (W + 1), np.int8)
    steps[runs.start], steps[runs.end] = 1, -1
    return np.cumsum(steps, dtype=np.int8).reshape(H, W + 1)[:, :W].astype(np.uint8)


def components(runs: Runs, row: int, corners: bool) -> np.ndarray:
    """Name the component of every run after the number of its first run: (runs,); `row` is a row's length."""
    above, below = _neighbours(runs, row, corners)
    root = np.arange(len(runs.start))
    while True:
        first, later = np.sort((root[above], root[below]), axis=0)
        if (first == later).all():
            return root
        np.minimum.at(root, later, first)
        while (root[root] != root).any():
            root = root[root]


def _neighbours(runs: Runs, row: int, corners: bool) -> tuple[np.ndarray, np.ndarray]:
    """List the pairs of runs that touch, (pairs,) numbers of the upper and of the lower one."""
    first = np.searchsorted(runs.end, runs.start + row - corners, side="right")
    stop = np.searchsorted(runs.start, runs.end + row + corners, side="left")
    count = stop - first  # never negative: runs are in order and do not overlap
    above = np.repeat(np.arange(len(count)), count)
    within = np.arange(len(above)) - np.repeat(np.cumsum(count) - count, count)  # 0, 1, ... for each run
    return above, first[above] + within

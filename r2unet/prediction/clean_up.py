"""Cleans up a predicted mask: keeps its largest connected component and fills the holes.

A dermoscopy image shows one lesion, and a lesion is a region without holes. The network does not know this.

**Connectivity.** Two lesion pixels are connected if they share an edge or a corner (8-connectivity), two skin
pixels only if they share an edge (4-connectivity). With 8-connectivity for both, lesion and skin would cross
each other where four pixels form a checkerboard, and a closed curve would not separate its inside from its
outside (Rosenfeld & Pfaltz 1966).

**Runs.** A run is a maximal sequence of lesion pixels in one row. A lesion of a million pixels has a
thousand runs, so only finding and drawing the runs takes time proportional to the pixels. The rows are
concatenated with one pixel of skin after each, so a run is an interval [start, end), and the runs are
sorted. The neighbours of run i in the next row are the runs j that overlap it after it is shifted by one
row, stride = width + 1, and widened by one pixel at both ends if corners count:

    start_j < end_i + stride + d   and   end_j > start_i + stride - d,      d = 1 for corners, else 0.

**Components.** Every run points to itself or to an earlier run, initially to itself. For every pair of
neighbours, the later of their two roots is pointed to the earlier root, and then every pointer is followed
to its root, until all neighbours have the same root (Shiloach & Vishkin 1982). Each round is a few array
operations.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Runs(NamedTuple):
    """The sorted runs of a mask: arrays (runs,) of positions in the concatenated rows of width + 1 pixels."""

    start: np.ndarray
    end: np.ndarray  # one after the last pixel


def clean_up(mask: np.ndarray) -> np.ndarray:
    """Keep the largest component and fill its holes: a mask (H, W) of 0 and 1 -> (H, W) uint8.

    An empty mask stays empty.
    """
    kept = largest_component(mask)
    box = bounding_box(kept)  # a hole is surrounded by lesion, so it is inside, and skin outside is none
    kept[box] = fill_holes(kept[box])
    return kept


def bounding_box(mask: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and the columns from the first to the last lesion pixel of a mask (H, W)."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return slice(0), slice(0)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def largest_component(mask: np.ndarray) -> np.ndarray:
    """Keep the largest 8-connected component of a mask, in a tie the first: (H, W) -> (H, W) uint8."""
    runs = find_runs(mask)
    if not len(runs.start):
        return np.zeros(mask.shape, np.uint8)
    component = label_components(runs, mask.shape[1] + 1, corners=True)
    areas = np.bincount(component, weights=runs.end - runs.start)
    kept = component == areas.argmax()
    return draw_runs(Runs(runs.start[kept], runs.end[kept]), mask.shape)


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Turn skin without a 4-connected path to the image's border into lesion: (H, W) -> (H, W) uint8."""
    H, W = mask.shape
    skin = find_runs(np.logical_not(mask))
    component = label_components(skin, W + 1, corners=False)
    row, left = np.divmod(skin.start, W + 1)
    right = skin.end - row * (W + 1)
    at_border = (row == 0) | (row == H - 1) | (left == 0) | (right == W)
    holes = ~np.isin(component, component[at_border])
    return draw_runs(Runs(skin.start[holes], skin.end[holes]), mask.shape) | mask.astype(np.uint8)


def find_runs(mask: np.ndarray) -> Runs:
    """Find the runs of a mask (H, W)."""
    H, W = mask.shape
    rows = np.zeros(1 + H * (W + 1), np.bool_)  # a pixel of skin, and the rows
    rows[1:].reshape(H, W + 1)[:, :W] = mask
    changes = np.flatnonzero(rows[1:] != rows[:-1])  # from skin to lesion and back, in turn
    return Runs(changes[::2], changes[1::2])


def draw_runs(runs: Runs, shape: tuple[int, int]) -> np.ndarray:
    """Return the mask (H, W) uint8 with these runs."""
    H, W = shape
    rows = np.zeros((H, W + 1), np.uint8)
    # With k runs, k + 1 gaps of skin before, between and after them.
    borders = np.column_stack((runs.start, runs.end)).ravel()
    lengths = np.diff(borders, prepend=0, append=rows.size)  # (2k + 1,)
    values = (np.arange(len(lengths)) % 2).astype(np.uint8)  # skin and lesion in turn
    rows.ravel()[:] = np.repeat(values, lengths)
    return np.ascontiguousarray(rows[:, :W])


def label_components(runs: Runs, stride: int, corners: bool) -> np.ndarray:
    """Label each run with the index of the first run of its component: (runs,); rows are `stride` apart."""
    above, below = _neighbours(runs, stride, corners)
    root = np.arange(len(runs.start))
    while True:
        first, later = np.sort((root[above], root[below]), axis=0)
        if (first == later).all():
            return root
        np.minimum.at(root, later, first)
        while (root[root] != root).any():
            root = root[root]


def _neighbours(runs: Runs, stride: int, corners: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the upper and the lower run of every pair of neighbours, (pairs,) each."""
    first = np.searchsorted(runs.end, runs.start + stride - corners, side="right")
    stop = np.searchsorted(runs.start, runs.end + stride + corners, side="left")
    count = stop - first  # never negative, because the runs are sorted and do not overlap
    above = np.repeat(np.arange(len(count)), count)
    offset = np.arange(len(above)) - np.repeat(np.cumsum(count) - count, count)  # 0, 1, ... for each run
    return above, first[above] + offset

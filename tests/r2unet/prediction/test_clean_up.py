"""Components and holes agree with a flood fill of single pixels, also for difficult shapes."""

import tracemalloc

import numpy as np
import pytest

from r2unet.prediction.clean_up import (
    clean_up,
    draw_runs,
    fill_holes,
    find_runs,
    label_components,
    largest_component,
)

EDGES = [(-1, 0), (1, 0), (0, -1), (0, 1)]
CORNERS = [(-1, -1), (-1, 1), (1, -1), (1, 1)]


def flood(mask: np.ndarray, neighbours: list[tuple[int, int]]) -> list[set[tuple[int, int]]]:
    """Return the components of a mask, sorted by their first pixels, each as the set of its pixels."""
    unvisited, found = set(zip(*map(list, np.nonzero(mask)), strict=True)), []
    for seed in sorted(unvisited):
        if seed not in unvisited:
            continue
        stack, component = [seed], set()
        while stack:
            pixel = stack.pop()
            if pixel in unvisited:
                unvisited.remove(pixel)
                component.add(pixel)
                stack += [(pixel[0] + y, pixel[1] + x) for y, x in neighbours]
        found.append(component)
    return found


def as_mask(pixels, shape) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    for pixel in pixels:
        mask[pixel] = 1
    return mask


def drawing(*rows: str) -> np.ndarray:
    return np.array([[c == "#" for c in row] for row in rows], np.uint8)


def random_masks(rng):
    for density in (0.05, 0.3, 0.45, 0.6, 0.9):
        for _ in range(12):
            yield (rng.random(rng.integers(1, 14, size=2)) < density).astype(np.uint8)


class TestAgainstFloodFill:
    def test_components_are_the_same(self, rng):
        for mask in random_masks(rng):
            for corners, neighbours in ((True, EDGES + CORNERS), (False, EDGES)):
                runs = find_runs(mask)
                labels = label_components(runs, mask.shape[1] + 1, corners)
                expected = [as_mask(c, mask.shape).tolist() for c in flood(mask, neighbours)]
                drawn = [
                    draw_runs(type(runs)(runs.start[labels == n], runs.end[labels == n]), mask.shape).tolist()
                    for n in np.unique(labels)
                ]
                assert drawn == expected

    def test_the_largest_component_is_the_same(self, rng):
        for mask in random_masks(rng):
            expected = max(flood(mask, EDGES + CORNERS), key=len, default=())  # in a tie, the first
            np.testing.assert_array_equal(largest_component(mask), as_mask(expected, mask.shape))

    def test_the_holes_are_the_same(self, rng):
        for mask in random_masks(rng):
            (H, W), expected = mask.shape, mask.copy()
            for component in flood(mask == 0, EDGES):
                if not any(y in (0, H - 1) or x in (0, W - 1) for y, x in component):
                    expected |= as_mask(component, mask.shape)
            np.testing.assert_array_equal(fill_holes(mask), expected)


class TestShapes:
    def test_corners_connect_lesion_but_not_skin(self):
        ring = drawing("......", "..##..", ".#..#.", ".#..#.", "..##..", "......")
        np.testing.assert_array_equal(largest_component(ring), ring)
        assert fill_holes(ring).sum() == ring.sum() + 4

    def test_a_ring_with_an_opening_of_one_pixel_has_no_hole(self):
        ring = drawing(".....", ".#.#.", ".#.#.", ".###.", ".....")
        np.testing.assert_array_equal(fill_holes(ring), ring)

    def test_a_bay_at_the_border_is_not_a_hole(self):
        bay = drawing("#.##", "#.##", "####")
        np.testing.assert_array_equal(fill_holes(bay), bay)

    def test_the_end_of_a_row_is_not_connected_to_the_start_of_the_next(self):
        mask = drawing("..###", "#....", "#....", "....#")
        np.testing.assert_array_equal(clean_up(mask), drawing("..###", ".....", ".....", "....."))

    def test_a_spiral_connected_only_at_its_centre_is_one_component(self):
        spiral = drawing(
            "##########",
            "#........#",
            "#.######.#",
            "#.#....#.#",
            "#.#.##.#.#",
            "#.#.#..#.#",
            "#.#.####.#",
            "#.#......#",
            "#.########",
        )
        np.testing.assert_array_equal(largest_component(spiral), spiral)
        assert len(set(label_components(find_runs(spiral), 11, corners=False))) == 1

    def test_specks_are_removed_and_holes_filled(self):
        y, x = np.mgrid[:200, :300]
        disc = (np.hypot(x - 150, y - 90) < 60).astype(np.uint8)
        damaged = disc.copy()
        damaged[5:10, 5:40] = 1
        damaged[80:95, 140:170] = 0
        np.testing.assert_array_equal(clean_up(damaged), disc)

    def test_a_hole_next_to_the_last_row_or_column_of_the_lesion_is_filled(self):
        ring = np.zeros((9, 9), np.uint8)
        ring[2:5, 3:6] = 1
        filled = ring.copy()
        ring[3, 4] = 0
        np.testing.assert_array_equal(clean_up(ring), filled)

    @pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (4, 6)])
    def test_empty_and_full_masks_are_unchanged(self, shape):
        assert clean_up(np.zeros(shape, np.uint8)).sum() == 0
        assert clean_up(np.ones(shape, bool)).sum() == shape[0] * shape[1]

    def test_the_input_is_not_modified(self):
        mask = drawing("#.#", "...", "##.")
        mask.setflags(write=False)
        assert clean_up(mask).dtype == np.uint8 and mask.sum() == 4


def test_an_ordinary_mask_takes_little_memory():
    mask = np.ones((1000, 1000), np.uint8)
    tracemalloc.start()
    clean_up(mask)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * mask.nbytes

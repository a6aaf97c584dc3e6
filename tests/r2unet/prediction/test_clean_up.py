"""Components and holes against a flood fill that looks at every pixel, and on shapes known to be hard."""

import numpy as np
import pytest

from r2unet.prediction.clean_up import clean_up, components, draw, fill_holes, find_runs, largest_component

EDGES = [(-1, 0), (1, 0), (0, -1), (0, 1)]
CORNERS = [(-1, -1), (-1, 1), (1, -1), (1, 1)]


def flood(mask: np.ndarray, neighbours: list[tuple[int, int]]) -> list[set[tuple[int, int]]]:
    """The components of a mask in reading order, each as the set of its pixels."""
    left, found = set(zip(*map(list, np.nonzero(mask)), strict=True)), []
    for seed in sorted(left):
        if seed not in left:
            continue
        waiting, component = [seed], set()
        while waiting:
            pixel = waiting.pop()
            if pixel in left:
                left.remove(pixel)
                component.add(pixel)
                waiting += [(pixel[0] + y, pixel[1] + x) for y, x in neighbours]
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
    for share in (0.05, 0.3, 0.45, 0.6, 0.9):
        for _ in range(12):
            yield (rng.random(rng.integers(1, 14, size=2)) < share).astype(np.uint8)


class TestAgainstAFloodFill:
    def test_components_are_the_same(self, rng):
        for mask in random_masks(rng):
            for corners, neighbours in ((True, EDGES + CORNERS), (False, EDGES)):
                runs = find_runs(mask)
                names = components(runs, mask.shape[1] + 1, corners)
                expected = [as_mask(c, mask.shape).tolist() for c in flood(mask, neighbours)]
                drawn = [
                    draw(type(runs)(runs.start[names == n], runs.end[names == n]), mask.shape).tolist()
                    for n in np.unique(names)
                ]
                assert drawn == expected

    def test_the_largest_is_the_same(self, rng):
        for mask in random_masks(rng):
            expected = max(flood(mask, EDGES + CORNERS), key=len, default=())  # the first of equals
            np.testing.assert_array_equal(largest_component(mask), as_mask(expected, mask.shape))

    def test_the_holes_are_the_same(self, rng):
        for mask in random_masks(rng):
            (H, W), expected = mask.shape, mask.copy()
            for component in flood(mask == 0, EDGES):
                if not any(y in (0, H - 1) or x in (0, W - 1) for y, x in component):
                    expected |= as_mask(component, mask.shape)
            np.testing.assert_array_equal(fill_holes(mask), expected)


class TestShapes:
    def test_corners_join_lesion_but_let_no_skin_out(self):
        ring = drawing("......", "..##..", ".#..#.", ".#..#.", "..##..", "......")
        np.testing.assert_array_equal(largest_component(ring), ring)
        assert fill_holes(ring).sum() == ring.sum() + 4

    def test_a_ring_open_by_one_pixel_has_no_hole(self):
        ring = drawing(".....", ".#.#.", ".#.#.", ".###.", ".....")
        np.testing.assert_array_equal(fill_holes(ring), ring)

    def test_a_bay_at_the_border_is_no_hole(self):
        bay = drawing("#.##", "#.##", "####")
        np.testing.assert_array_equal(fill_holes(bay), bay)

    def test_the_end_of_a_row_does_not_touch_the_beginning_of_the_next(self):
        mask = drawing("..###", "#....", "#....", "....#")
        np.testing.assert_array_equal(clean_up(mask), drawing("..###", ".....", ".....", "....."))

    def test_a_spiral_whose_runs_meet_only_in_its_middle_is_one(self):
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
        assert len(set(components(find_runs(spiral), 11, corners=False))) == 1

    def test_specks_go_and_holes_close(self):
        y, x = np.mgrid[:200, :300]
        disc = (np.hypot(x - 150, y - 90) < 60).astype(np.uint8)
        worse = disc.copy()
        worse[5:10, 5:40] = 1
        worse[80:95, 140:170] = 0
        np.testing.assert_array_equal(clean_up(worse), disc)

    @pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (4, 6)])
    def test_nothing_stays_nothing_and_all_stays_all(self, shape):
        assert clean_up(np.zeros(shape, np.uint8)).sum() == 0
        assert clean_up(np.ones(shape, bool)).sum() == shape[0] * shape[1]

    def test_the_mask_given_is_left_as_it_is(self):
        mask = drawing("#.#", "...", "##.")
        mask.setflags(write=False)
        assert clean_up(mask).dtype == np.uint8 and mask.sum() == 4

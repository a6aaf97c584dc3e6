"""The outline is drawn just inside the mask, with a width proportional to the size of the image."""

import numpy as np
import pytest

from r2unet.prediction.outline import overlay_image

YELLOW = np.array([0xF0, 0xE4, 0x42])


def test_at_256_pixels_the_outline_is_two_pixels_wide_and_just_inside_the_mask():
    image = np.random.default_rng(0).integers(0, 200, (256, 256, 3), dtype=np.uint8)
    mask = np.zeros((256, 256), np.uint8)
    mask[50:150, 60:200] = 1
    line = mask.astype(bool)
    line[52:148, 62:198] = False
    expected = image.copy()
    expected[line] = YELLOW
    np.testing.assert_array_equal(overlay_image(image, mask), expected)


@pytest.mark.parametrize("side, width", [(100, 1), (256, 2), (1000, 5)])
def test_the_width_of_the_outline_is_proportional_to_the_image(side, width):
    mask = np.zeros((side, side), bool)
    mask[side // 4 : side // 2, side // 4 : side // 2] = True
    drawn = overlay_image(np.zeros((side, side, 3), np.uint8), mask)
    middle_row = (drawn[side * 3 // 8] == YELLOW).all(axis=1)  # crosses the outline twice
    assert middle_row.sum() == 2 * width


def test_the_outline_follows_the_border_of_the_image():
    drawn = overlay_image(np.zeros((50, 80, 3), np.uint8), np.ones((50, 80), np.uint8))
    line = (drawn == YELLOW).all(axis=2)
    assert line.sum() == 2 * 50 + 2 * 80 - 4
    assert line[0].all() and line[-1].all() and line[:, 0].all() and line[:, -1].all()


def test_without_a_lesion_the_result_is_an_equal_copy():
    image = np.full((9, 7, 3), 90, np.uint8)
    drawn = overlay_image(image, np.zeros((9, 7), np.uint8))
    np.testing.assert_array_equal(drawn, image)
    assert not np.shares_memory(drawn, image)


def test_a_mask_of_another_size_is_an_error():
    with pytest.raises(ValueError, match=r"\(9, 7, 3\).*\(7, 9\)"):
        overlay_image(np.zeros((9, 7, 3), np.uint8), np.zeros((7, 9), np.uint8))


def test_drawing_changes_neither_the_image_nor_the_mask():
    image = np.full((60, 40, 3), 90, np.uint8)
    mask = np.zeros((60, 40), np.uint8)
    mask[20:40, 10:30] = 1
    before = image.copy(), mask.copy()
    overlay_image(image, mask)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(mask, before[1])


def test_the_outline_of_a_long_image_is_drawn_quickly():
    """A width of 1/200 of the longer side would take 10,000 erosions of 4 million pixels."""
    mask = np.ones((2_000_000, 2), np.uint8)
    drawn = overlay_image(np.zeros((2_000_000, 2, 3), np.uint8), mask)
    assert drawn.any(axis=2).all()


def test_the_outline_covers_as_much_of_a_pixel_as_the_lesion_does():
    mask = np.zeros((50, 50), np.float32)
    mask[10:30, 10:30] = 1
    mask[10:30, 30] = 0.25
    drawn = overlay_image(np.full((50, 50, 3), 100, np.uint8), mask)
    np.testing.assert_array_equal(drawn[20, 30], np.rint(0.25 * YELLOW + 0.75 * 100))
    np.testing.assert_array_equal(drawn[20, 29], np.rint(0.75 * YELLOW + 0.25 * 100))  # one pixel in all
    assert (drawn[20, [28, 31]] == 100).all()

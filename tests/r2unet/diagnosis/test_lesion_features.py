"""Asymmetry, border and colour have known values for discs, rectangles and painted images."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from r2unet.diagnosis.lesion_features import FEATURES, asymmetry, border, lesion_features, perimeter

ROWS, COLUMNS = np.mgrid[:150, :200]
DISC = (ROWS - 69.5) ** 2 + (COLUMNS - 89.5) ** 2 < 50**2
HALF_DISC = DISC & (COLUMNS >= 90)


def rectangle(height, width, turn=0.0):
    """A rectangle in the middle of an image (150, 200), turned by an angle in degrees."""
    a, y, x = math.radians(turn), ROWS - 74.5, COLUMNS - 99.5
    along, across = x * math.cos(a) + y * math.sin(a), y * math.cos(a) - x * math.sin(a)
    return (abs(along) < width / 2) & (abs(across) < height / 2)


def features(image, mask):
    return dict(zip(FEATURES, lesion_features(image, mask), strict=True))


def painted(mask, lesion=(120, 60, 40), skin=(220, 170, 150)):
    return np.where(mask[..., None], lesion, skin).astype(np.uint8)  # (H, W) -> (H, W, 3)


def blots(seed):
    """An irregular lesion (150, 200) of several discs."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform((40, 50), (110, 150), (6, 2))
    radii = rng.uniform(8, 28, 6)
    return np.any(
        [
            (ROWS - y) ** 2 + (COLUMNS - x) ** 2 < radius**2
            for (y, x), radius in zip(centres, radii, strict=True)
        ],
        axis=0,
    )


def test_a_disc_is_symmetric_and_has_the_smallest_border():
    assert asymmetry(DISC) == pytest.approx(0.0, abs=1e-9)
    assert border(DISC) == pytest.approx(1.0, abs=0.02)
    assert perimeter(DISC) == pytest.approx(2 * math.pi * 50, rel=0.01)


def test_a_half_disc_is_asymmetric_about_one_axis_only():
    """Folding along its axis of symmetry covers everything.

    Folding through the centroid, g = 4 / (3 pi) radii from the straight edge and parallel to it, covers
    4 (H(2g) - H(g)) of the area pi/2, where H is the integral of sqrt(1 - u^2).
    """

    def integral(u):
        return (u * math.sqrt(1 - u * u) + math.asin(u)) / 2

    centroid = 4 / (3 * math.pi)
    uncovered = 1 - 4 * (integral(2 * centroid) - integral(centroid)) / (math.pi / 2)
    assert uncovered == pytest.approx(0.18525, abs=1e-5)
    assert asymmetry(HALF_DISC) == pytest.approx(uncovered / 2, abs=0.004)
    ideal = (math.pi + 2) ** 2 / (4 * math.pi * math.pi / 2)
    assert border(HALF_DISC) == pytest.approx(ideal, rel=0.06)


def test_the_perimeter_of_a_rectangle_follows_crofton_s_formula():
    """Two crossings for each of b columns, a rows and a + b - 1 diagonals in both directions."""
    a, b = 80, 120
    expected = math.pi / 8 * (2 * (a + b) + 4 * (a + b - 1) / math.sqrt(2))
    assert perimeter(rectangle(a, b)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("turn", range(0, 91, 5))
def test_the_perimeter_of_a_straight_outline_is_right_within_its_bounds_at_any_angle(turn):
    """Each of the four directions sees the sides under its own angle."""
    ratio = perimeter(rectangle(70, 100, turn)) / 340
    angles = [math.radians(turn + direction) for direction in (0, 45, 90, 135)]
    assert ratio == pytest.approx(math.pi / 8 * sum(abs(math.cos(angle)) for angle in angles), abs=0.015)


@pytest.mark.parametrize("turn", [0, 17, 45, 70, 90, 133])
def test_a_rectangle_is_symmetric_at_any_angle(turn):
    """Stair steps differ between the two sides of a fold, so up to 3 % of the area remains."""
    assert asymmetry(rectangle(50, 90, turn)) < 0.03


@pytest.mark.parametrize("turn", [0, 17, 45, 70, 90, 133])
def test_an_l_of_three_squares_has_an_asymmetry_of_5_27ths_at_any_angle(turn):
    """The square [-1, 1]^2 without [0, 1]^2 has its centroid at (-1/6, -1/6) and is symmetric about x = y.

    Folding along the other axis, x + y = -1/3, maps (x, y) to (-1/3 - y, -1/3 - x). Both shapes contain
    [-1, 2/3]^2 without [0, 2/3]^2 and [-1, -1/3]^2: 25/9 - 4/9 - 4/9 = 17/9 of 3, so 10/27 are uncovered.
    """
    a, y, x = math.radians(turn), ROWS - 74.5, COLUMNS - 99.5
    u, v = x * math.cos(a) + y * math.sin(a), y * math.cos(a) - x * math.sin(a)
    lesion = (abs(u) < 40) & (abs(v) < 40) & ~((u > 0) & (v > 0))
    assert asymmetry(lesion) == pytest.approx(10 / 27 / 2, abs=0.01)


def test_stair_steps_do_not_count_as_a_ragged_border():
    """Pixel edges alone would give (4 / pi)^2 = 1.62 for a disc. A ragged disc must still score higher."""
    angle = np.arctan2(ROWS - 69.5, COLUMNS - 89.5)
    ragged = np.hypot(ROWS - 69.5, COLUMNS - 89.5) < 45 + 5 * np.sin(16 * angle)
    assert border(DISC) < 1.03
    assert border(ragged) > 1.8


def test_colours_are_those_that_were_painted():
    found = features(painted(DISC), DISC)
    for channel, lesion, skin in zip("RGB", (120, 60, 40), (220, 170, 150), strict=True):
        assert found[f"mean {channel}"] == pytest.approx(lesion / 255)
        assert found[f"deviation {channel}"] == 0.0
        assert found[f"contrast {channel}"] == pytest.approx((skin - lesion) / 255)


def test_the_deviation_measures_variegated_colour():
    image = painted(DISC)
    image[DISC & ((ROWS + COLUMNS) % 2 == 0)] = (180, 60, 40)  # a chessboard of two reds
    found = features(image, DISC)
    assert found["mean R"] == pytest.approx(150 / 255, abs=1e-3)
    assert found["deviation R"] == pytest.approx(30 / 255, abs=1e-3)
    assert found["deviation G"] == found["deviation B"] == 0.0


def test_the_contrast_ignores_dark_corners_and_includes_a_narrow_band():
    image = painted(DISC)
    image[np.hypot(ROWS - 69.5, COLUMNS - 89.5) > 65] = (
        0  # beyond the band of 150 / 20 = 8 pixels at its corners
    )
    assert features(image, DISC)["contrast R"] == pytest.approx(100 / 255)
    square = rectangle(40, 40)
    image = painted(square)
    image[rectangle(56, 56) & ~square] = 255  # exactly the band
    assert features(image, square)["contrast B"] == pytest.approx(215 / 255)
    image[rectangle(54, 54) & ~square] = 40
    assert 0 < features(image, square)["contrast B"] < 215 / 255


def test_the_area_is_the_share_of_the_image():
    assert features(painted(DISC), rectangle(30, 50))["area"] == 1500 / 30000


@pytest.mark.parametrize("seed", range(5))
def test_turning_by_90_degrees_and_mirroring_change_nothing(seed):
    mask = blots(seed)
    image = np.random.default_rng(seed).integers(0, 256, (150, 200, 3)).astype(np.uint8)
    expected = lesion_features(image, mask)
    assert expected[0] > 0.05 and expected[1] > 1.1
    for turns in range(4):
        turned_image, turned_mask = np.rot90(image, turns), np.rot90(mask, turns)
        np.testing.assert_allclose(lesion_features(turned_image, turned_mask), expected, rtol=1e-9)
        mirrored = lesion_features(turned_image[:, ::-1], turned_mask[:, ::-1])
        np.testing.assert_allclose(mirrored, expected, rtol=1e-9)


def test_moving_a_lesion_changes_neither_its_shape_nor_its_area():
    moved = np.roll(HALF_DISC, (5, -30), (0, 1))
    image = painted(HALF_DISC)
    expected, found = features(image, HALF_DISC), features(painted(moved), moved)
    assert {name: pytest.approx(value) for name, value in expected.items()} == found


def test_an_empty_mask_has_neutral_values_and_the_colours_of_the_whole_image():
    image = painted(DISC)
    found = features(image, np.zeros((150, 200), np.uint8))
    assert (found["asymmetry"], found["border"], found["area"], found["contrast G"]) == (0.0, 1.0, 0.0, 0.0)
    assert found["mean R"] == pytest.approx(image[..., 0].mean() / 255)
    assert found["deviation B"] == pytest.approx(image[..., 2].std() / 255)


def test_a_full_mask_has_the_border_of_the_frame_and_no_contrast():
    found = features(painted(DISC), np.ones((150, 200), np.uint8))
    assert found["area"] == 1.0 and found["contrast R"] == 0.0
    assert found["asymmetry"] == pytest.approx(0.0, abs=1e-9)
    assert found["border"] == pytest.approx(700**2 / (4 * math.pi * 30000), rel=0.12)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (150, 200)])
def test_a_single_pixel_has_finite_features(shape):
    mask = np.zeros(shape, np.uint8)
    mask[-1, -1] = 1
    found = features(np.full((*shape, 3), 90, np.uint8), mask)
    assert np.isfinite(list(found.values())).all()
    assert found["asymmetry"] == 0.0 and found["border"] == pytest.approx(0.57, abs=0.01)


def test_a_mask_of_booleans_and_one_of_integers_are_equal_and_not_modified():
    image, mask = painted(HALF_DISC), HALF_DISC.astype(np.uint8)
    before = image.copy(), mask.copy()
    np.testing.assert_array_equal(lesion_features(image, mask), lesion_features(image, HALF_DISC))
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(mask, before[1])


@pytest.mark.parametrize(
    ("image", "mask", "message"),
    [
        (np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4), np.uint8), "differ in size"),
        (np.zeros((4, 5, 3), np.float32), np.zeros((4, 5), np.uint8), "uint8"),
        (np.zeros((4, 5), np.uint8), np.zeros((4, 5), np.uint8), r"\(H, W, 3\)"),
        (np.zeros((4, 5, 3), np.uint8), np.full((4, 5), 255, np.uint8), "255 to 255; threshold"),
        (np.zeros((4, 5, 3), np.uint8), np.full((4, 5), 0.5), "float64"),
    ],
)
def test_other_shapes_types_and_values_are_rejected(image, mask, message):
    with pytest.raises(ValueError, match=message):
        lesion_features(image, mask)


@pytest.mark.skipif("ISIC_ROOT" not in os.environ, reason="ISIC_ROOT does not name a folder of ISIC 2017")
def test_real_lesions_are_irregular_and_darker_than_the_skin_around():
    root = Path(os.environ["ISIC_ROOT"])
    found = []
    for path in sorted((root / "ISIC-2017_Validation_Data").glob("ISIC_*.jpg"))[:40]:
        mask_path = root / "ISIC-2017_Validation_Part1_GroundTruth" / f"{path.stem}_segmentation.png"
        with Image.open(path) as image_file, Image.open(mask_path) as mask_file:
            image, mask = np.asarray(image_file), np.asarray(mask_file) > 128
        found.append(lesion_features(image, mask))
    median = dict(zip(FEATURES, np.median(found, axis=0), strict=True))
    assert np.isfinite(found).all()
    assert 0.03 < median["asymmetry"] < 0.2 and 1.05 < median["border"] < 2
    assert min(median[f"contrast {channel}"] for channel in "RGB") > 0.05

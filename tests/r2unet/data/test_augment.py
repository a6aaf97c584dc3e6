"""Augmentations move image and mask together, change colours as stated, and do not modify their input."""

from collections import Counter

import numpy as np
import pytest

from r2unet.data import augment as apply
from r2unet.data import changes
from r2unet.data.augment import augment
from r2unet.data.changes import LUMINANCE
from r2unet.data.sample import Sample
from r2unet.errors import InputError

SIZE = 64


def randomly(apply, draw):
    """Return a function that draws one change, in the ranges given to it, and applies it to a sample."""
    return lambda sample, rng, **ranges: apply(sample, draw(rng, **ranges))


flip = randomly(apply.flip, changes.draw_flip)
quarter_turn = randomly(apply.quarter_turn, changes.draw_turns)
random_affine = randomly(apply.affine, changes.draw_affine)
colour_jitter = randomly(apply.colours, changes.draw_colour)
gamma_curve = randomly(apply.tone_curve, changes.draw_tone)
defocus = randomly(apply.defocus, changes.draw_blur)
round_window = randomly(apply.round_window, changes.draw_window)
compress = randomly(apply.compress, changes.draw_quality)
CHANGES = [
    flip,
    quarter_turn,
    random_affine,
    colour_jitter,
    gamma_curve,
    defocus,
    round_window,
    compress,
    augment,
]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def sample(rng):
    """Return a disc off the centre on medium colours, read-only, so that modifying it raises."""
    y, x = np.mgrid[:SIZE, :SIZE]
    mask = (np.hypot(x - 28, y - 36) < 10).astype(np.uint8)
    image = rng.integers(90, 150, size=(SIZE, SIZE, 3), dtype=np.uint8)
    image.setflags(write=False)
    mask.setflags(write=False)
    return Sample(image, mask, "disc", "nevus")


def mask_as_image(sample):
    """Return the sample with its mask as its image, so that both must move in the same way."""
    return sample._replace(image=np.repeat(255 * sample.mask[..., None], 3, axis=-1))


@pytest.mark.parametrize("change", CHANGES)
def test_shapes_types_name_and_diagnosis_are_unchanged(change, sample, rng):
    changed = change(sample, rng)
    assert changed.image.shape == (SIZE, SIZE, 3) and changed.mask.shape == (SIZE, SIZE)
    assert changed.image.dtype == changed.mask.dtype == np.uint8
    assert changed.image.flags.c_contiguous and changed.mask.flags.c_contiguous
    assert set(np.unique(changed.mask)) == {0, 1}
    assert (changed.name, changed.diagnosis) == ("disc", "nevus")


@pytest.mark.parametrize("change", CHANGES)
def test_the_same_generator_state_gives_the_same_result(change, sample, rng):
    first, again = (change(sample, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.mask, again.mask)
    others = [change(sample, rng).image for _ in range(40)]  # the rarest change has probability 0.2
    assert any((other != first.image).any() for other in others)


@pytest.mark.parametrize("change", [flip, quarter_turn, random_affine])
def test_image_and_mask_move_together(change, sample, rng):
    for _ in range(20):
        moved = change(mask_as_image(sample), rng)
        np.testing.assert_array_equal(moved.image[..., 0] >= 128, moved.mask == 1)


def test_flips_and_turns_give_the_eight_symmetries_of_the_square_equally_often(rng):
    corner = np.arange(4, dtype=np.uint8).reshape(2, 2)  # four different pixels, so eight different layouts
    square = Sample(np.repeat(corner[..., None], 3, axis=-1), corner, "square")
    layouts = Counter(quarter_turn(flip(square, rng), rng).mask.tobytes() for _ in range(1600))
    assert len(layouts) == 8
    assert all(140 < count < 260 for count in layouts.values())  # 200 each, four standard deviations


def test_flip_alone_gives_four_layouts_and_quarter_turn_four(rng):
    corner = np.arange(4, dtype=np.uint8).reshape(2, 2)
    square = Sample(np.repeat(corner[..., None], 3, axis=-1), corner, "square")
    flips = {flip(square, rng).mask.tobytes() for _ in range(100)}
    turns = {quarter_turn(square, rng).mask.tobytes() for _ in range(100)}
    assert len(flips) == len(turns) == 4
    assert len(flips & turns) == 2  # the identity and the half turn


IDENTITY = {"angle": 0, "zoom": 1, "shift": 0, "shear": 0, "stretch": 0}


def centroid(mask):
    """Return the centroid (x, y) of a mask relative to the centre of the image."""
    y, x = np.nonzero(mask)
    return np.array([x.mean() + 0.5 - SIZE / 2, y.mean() + 0.5 - SIZE / 2])


def spread(mask):
    """Return the standard deviations of a mask's pixels along x and y."""
    y, x = np.nonzero(mask)
    return x.std(), y.std()


class TestAffine:
    def test_the_identity_changes_nothing(self, sample, rng):
        same = random_affine(sample, rng, **IDENTITY)
        np.testing.assert_array_equal(same.image, sample.image)
        np.testing.assert_array_equal(same.mask, sample.mask)

    def test_zoom_enlarges_the_area_by_its_square_and_never_reduces_it(self, sample, rng):
        zooms = [
            np.sqrt(random_affine(sample, rng, **(IDENTITY | {"zoom": 1.4})).mask.sum() / sample.mask.sum())
            for _ in range(200)
        ]
        assert 0.99 < min(zooms) < 1.03 and 1.37 < max(zooms) < 1.43
        assert np.median(zooms) == pytest.approx(1.4**0.5, abs=0.03)

    def test_zoom_of_two_halves_the_slope_of_a_ramp(self, rng):
        ramp = np.broadcast_to(np.arange(0, 4 * SIZE, 4, dtype=np.uint8)[:, None], (SIZE, SIZE, 3)[:2])
        sample = Sample(np.repeat(ramp[..., None], 3, axis=-1), np.ones((SIZE, SIZE), np.uint8), "ramp")
        slopes = []
        for _ in range(200):
            near = random_affine(sample, rng, **(IDENTITY | {"zoom": 2})).image[:, SIZE // 2, 0]
            slopes.append(np.diff(near[SIZE // 2 - 8 : SIZE // 2 + 8].astype(float)).mean())
        assert min(slopes) == pytest.approx(2, abs=0.1) and max(slopes) == pytest.approx(4, abs=0.1)

    def test_angle_rotates_about_the_centre(self, sample, rng):
        start, angles = centroid(sample.mask), []
        for _ in range(200):
            moved = centroid(random_affine(sample, rng, **(IDENTITY | {"angle": 45})).mask)
            assert np.hypot(*moved) == pytest.approx(np.hypot(*start), abs=0.4)
            angles.append(np.degrees(np.arctan2(*moved[::-1]) - np.arctan2(*start[::-1])))
        assert -48 < min(angles) < -40 and 40 < max(angles) < 48  # a pixel there is 4 degrees

    def test_shift_moves_along_both_axes(self, sample, rng):
        start = centroid(sample.mask)
        moved = [random_affine(sample, rng, **(IDENTITY | {"shift": 0.1})) for _ in range(100)]
        moves = np.array([centroid(each.mask) - start for each in moved])
        assert (moves.min(axis=0) < -5).all() and (moves.max(axis=0) > 5).all()
        assert np.abs(moves).max() < 0.1 * SIZE + 0.5
        assert abs(np.corrcoef(moves.T)[0, 1]) < 0.4

    def test_stretch_turns_discs_into_ellipses_of_the_same_area(self, sample, rng):
        ratios = []
        for _ in range(50):
            mask = random_affine(sample, rng, **(IDENTITY | {"stretch": 0.2})).mask
            assert mask.mean() == pytest.approx(sample.mask.mean(), rel=0.05)
            ratios.append(np.divide(*spread(mask)))
        assert 0.77 < min(ratios) < 0.9 and 1.1 < max(ratios) < 1.24  # width / height

    def test_shear_slants_without_changing_the_area(self, sample, rng):
        slants = []
        for _ in range(50):
            mask = random_affine(sample, rng, **(IDENTITY | {"shear": 0.3})).mask
            assert mask.mean() == pytest.approx(sample.mask.mean(), rel=0.05)
            slants.append(np.polyfit(*np.nonzero(mask), 1)[0])  # slope of x over y
        assert -0.33 < min(slants) < -0.2 and 0.2 < max(slants) < 0.33

    def test_outside_the_border_image_and_mask_are_reflected(self, rng):
        grey = np.repeat(np.arange(100, 100 + SIZE, dtype=np.uint8)[:, None], SIZE, axis=1)
        sample = Sample(np.repeat(grey[..., None], 3, axis=-1), (grey < 104).astype(np.uint8), "upper border")
        rows = []
        for _ in range(50):
            moved = random_affine(sample, rng, **(IDENTITY | {"shift": 0.2}))
            grey = moved.image[..., 0]
            assert grey.min() >= 100  # nothing is black
            assert moved.mask[grey < 103].all() and not moved.mask[grey > 104].any()
            rows.append(moved.mask[:, 0].sum())
        assert min(rows) == 0 and max(rows) == 8  # outside the image; four rows and their reflection


def test_colour_does_not_change_the_mask(sample, rng):
    np.testing.assert_array_equal(colour_jitter(sample, rng).mask, sample.mask)


OFF = {"brightness": 0, "contrast": 0, "saturation": 0, "channel_gain": 0}


def test_colour_with_all_settings_0_changes_nothing(sample, rng):
    np.testing.assert_array_equal(colour_jitter(sample, rng, **OFF).image, sample.image)


def test_brightness_multiplies_all_pixels_by_the_same_factor(sample, rng):
    factors = []
    for _ in range(30):
        brighter = colour_jitter(sample, rng, **(OFF | {"brightness": 0.2})).image
        ratio = brighter / sample.image
        assert np.ptp(ratio) < 0.013  # two roundings of half a level, at 90 levels or more
        factors.append(ratio.mean())
    assert 1 / 1.21 < min(factors) < 0.9 and 1.1 < max(factors) < 1.21
    assert np.median(np.log(factors)) == pytest.approx(0, abs=0.06)


def test_contrast_scales_the_standard_deviation_and_keeps_the_mean_colour(sample, rng):
    spreads = []
    for _ in range(30):
        changed = colour_jitter(sample, rng, **(OFF | {"contrast": 0.2})).image
        np.testing.assert_allclose(changed.mean(axis=(0, 1)), sample.image.mean(axis=(0, 1)), atol=0.1)
        spreads.append(changed.std() / sample.image.std())
    assert 1 / 1.22 < min(spreads) < 0.9 and 1.1 < max(spreads) < 1.21


def test_saturation_keeps_the_luminance_of_every_pixel_and_grey_stays_grey(sample, rng):
    grey = sample._replace(image=np.repeat(sample.image[..., :1], 3, axis=-1))
    for _ in range(10):
        changed = colour_jitter(sample, rng, **(OFF | {"saturation": 0.3})).image
        np.testing.assert_allclose(changed @ LUMINANCE, sample.image @ LUMINANCE, atol=0.51)
        np.testing.assert_array_equal(
            colour_jitter(grey, rng, **(OFF | {"saturation": 0.3})).image, grey.image
        )


def test_channel_gain_multiplies_each_channel_by_its_own_factor(sample, rng):
    ratio = colour_jitter(sample, rng, **(OFF | {"channel_gain": 0.08})).image / sample.image
    assert (np.ptp(ratio, axis=(0, 1)) < 0.013).all()
    gains = ratio.mean(axis=(0, 1))
    assert len(set(gains.round(3))) == 3 and (abs(gains - 1) < 0.081).all()


def test_colours_are_clipped_at_black_and_white(rng):
    white = Sample(np.full((8, 8, 3), 250, np.uint8), np.ones((8, 8), np.uint8), "white")
    levels = [colour_jitter(white, rng, **(OFF | {"brightness": 1.0})).image.min() for _ in range(50)]
    assert max(levels) == 255 and min(levels) >= 125


def test_gamma_changes_the_tone_curve_and_keeps_black_and_white(rng):
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=-1)
    sample = Sample(ramp, np.zeros((1, 256), np.uint8), "ramp")
    exponents = []
    for _ in range(100):
        levels = gamma_curve(sample, rng, gamma=1.5).image[0, :, 0].astype(float)
        assert levels[0] == 0 and levels[255] == 255 and (np.diff(levels) >= 0).all()
        exponents.append(np.log(levels[128] / 255) / np.log(128 / 255))
        np.testing.assert_allclose(levels, 255 * (ramp[0, :, 0] / 255) ** exponents[-1], atol=1.5)
    assert 1 / 1.52 < min(exponents) < 0.72 and 1.4 < max(exponents) < 1.52
    assert np.median(np.log(exponents)) == pytest.approx(0, abs=0.1)


def test_defocus_blurs_half_of_the_images_and_keeps_mask_and_mean(sample, rng):
    blurred = [defocus(sample, rng, blur=0.02) for _ in range(200)]
    sharp = sum(changed is sample for changed in blurred)
    assert 70 < sharp < 130
    for changed in blurred:
        assert changed.image.std() <= sample.image.std()
        np.testing.assert_array_equal(changed.mask, sample.mask)
        assert changed.image.mean() == pytest.approx(sample.image.mean(), abs=0.6)
    assert min(changed.image.std() for changed in blurred) < 0.5 * sample.image.std()


@pytest.mark.parametrize("change", [round_window, compress])
class TestChance:
    def test_chance_zero_returns_the_sample_itself_and_chance_one_never(self, change, sample, rng):
        assert all(change(sample, rng, chance=0.0) is sample for _ in range(50))
        assert all(change(sample, rng, chance=1.0) is not sample for _ in range(50))

    def test_chance_is_the_share_of_changed_images(self, change, sample, rng):
        changed = sum(change(sample, rng, chance=0.3) is not sample for _ in range(300))
        assert 60 < changed < 120  # 90, four standard deviations

    def test_later_random_numbers_do_not_depend_on_whether_it_is_applied(self, change, sample):
        for seed in range(10):
            applied, omitted = np.random.default_rng(seed), np.random.default_rng(seed)
            change(sample, applied, chance=1.0)
            change(sample, omitted, chance=0.0)
            assert applied.random() == omitted.random()


def disc(side, radius):
    """Return a mask (side, side) of a disc around the centre; the radius is in sides."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side - 0.5
    return (np.hypot(y, x) < radius).astype(np.uint8)


class TestRoundWindow:
    def test_the_centre_is_unchanged_and_the_corners_are_one_dark_grey(self, sample, rng):
        centre, levels = disc(SIZE, 0.3) == 1, []
        for _ in range(100):
            image = round_window(sample, rng, chance=1.0).image
            np.testing.assert_array_equal(image[centre], sample.image[centre])
            corners = image[[0, 0, -1, -1], [0, -1, 0, -1]]  # (4 corners, 3 channels)
            levels.append(np.median(corners))
            assert (corners == levels[-1]).all(axis=1).sum() >= 3  # a shifted window can reach one corner
        assert min(levels) < 3 and 27 < max(levels) <= 30

    def test_the_mask_ends_where_the_image_is_halfway_dark(self, rng):
        white = Sample(np.full((128, 128, 3), 255, np.uint8), np.ones((128, 128), np.uint8), "white")
        for _ in range(30):
            windowed = round_window(white, rng, chance=1.0)
            grey = windowed.image[..., 0]
            halfway = (255.0 + grey[[0, 0, -1, -1], [0, -1, 0, -1]].min()) / 2
            assert windowed.mask[grey > halfway + 1].all() and not windowed.mask[grey < halfway - 1].any()

    def test_a_mask_inside_the_window_is_unchanged_and_one_in_the_corner_is_cut_off(self, sample, rng):
        corner = np.zeros((SIZE, SIZE), np.uint8)
        corner[:2, :2] = 1
        removed = 0
        for _ in range(50):
            inside = round_window(sample._replace(mask=disc(SIZE, 0.3)), rng, chance=1.0)
            np.testing.assert_array_equal(inside.mask, disc(SIZE, 0.3))
            removed += not round_window(sample._replace(mask=corner), rng, chance=1.0).mask.any()
        assert removed > 40

    def test_the_half_axes_are_from_043_to_068_of_the_sides(self, rng):
        white = Sample(np.full((64, 96, 3), 255, np.uint8), np.ones((64, 96), np.uint8), "white")
        shares = [round_window(white, rng, chance=1.0).mask.mean() for _ in range(200)]
        assert (
            np.pi * 0.4275**2 - 0.01 < min(shares) < 0.66
        )  # an ellipse within the image has the share pi a b
        assert 0.95 < max(shares) < 1.0

    def test_the_edge_is_a_hundredth_of_the_side_wide(self, rng):
        white = Sample(np.full((400, 400, 3), 255, np.uint8), np.ones((400, 400), np.uint8), "white")
        for _ in range(10):
            grey = round_window(white, rng, chance=1.0).image[..., 0]
            diagonal = np.diagonal(grey).astype(int)
            between = (diagonal > grey.min()) & (diagonal < 255)
            assert between.sum() <= 8  # 4 pixels at either end


class TestCompress:
    def test_the_mask_and_the_mean_colour_are_kept_and_details_are_lost(self, sample, rng):
        for _ in range(50):
            changed = compress(sample, rng, chance=1.0)
            np.testing.assert_array_equal(changed.mask, sample.mask)
            means = changed.image.mean(axis=(0, 1)), sample.image.mean(axis=(0, 1))
            np.testing.assert_allclose(*means, atol=3)  # of 255 levels
            error = np.abs(changed.image.astype(int) - sample.image).mean()
            assert 2 < error < 20  # noise is the hardest image to compress

    def test_the_quality_is_from_15_to_90(self, sample, rng, monkeypatch):
        from PIL import Image

        qualities, save = [], Image.Image.save

        def recording_save(image, file, format, quality):
            qualities.append(quality)
            save(image, file, format, quality=quality)

        monkeypatch.setattr(Image.Image, "save", recording_save)
        for _ in range(600):
            compress(sample, rng, chance=1.0)
        assert min(qualities) == 15 and max(qualities) == 90
        assert np.mean(qualities) == pytest.approx(52.5, abs=4)


def test_strength_scales_the_chances_of_a_window_and_of_compression():
    for strength in (0.5, 1.0, 2.0):
        drawn = [changes.draw_changes(np.random.default_rng(seed), strength) for seed in range(1000)]
        windows = np.mean([each.window is not None for each in drawn])
        compressed = np.mean([each.quality is not None for each in drawn])
        assert windows == pytest.approx(0.2 * strength, abs=0.06)  # four standard deviations
        assert compressed == pytest.approx(0.3 * strength, abs=0.065)


def test_quarter_turns_and_the_affine_map_together_reach_every_angle(sample):
    rng, start = np.random.default_rng(1), np.arctan2(*centroid(sample.mask)[::-1])
    angles = []
    for _ in range(400):
        moved = random_affine(quarter_turn(sample, rng), rng, **(IDENTITY | {"angle": 45}))
        angles.append(np.degrees(np.arctan2(*centroid(moved.mask)[::-1]) - start) % 360)
    counts, _ = np.histogram(angles, bins=8, range=(0, 360))
    assert counts.min() > 25 and counts.max() < 80  # 50 each


def test_strength_zero_returns_the_sample_itself(sample, rng):
    assert augment(sample, rng, strength=0) is sample


def test_strength_scales_the_range_of_colours(sample, rng):
    def mean_change(strength):
        changed = [augment(sample, rng, strength).image.mean() for _ in range(100)]
        return np.std(changed)

    assert mean_change(0.1) < 0.3 * mean_change(1.0)


@pytest.mark.parametrize("strength", [-0.1, 2.1, float("nan")])
def test_the_error_for_an_invalid_strength_gives_the_range(strength, sample, rng):
    with pytest.raises(InputError, match=f"strength {strength}: must be from 0 .* to 2"):
        augment(sample, rng, strength)

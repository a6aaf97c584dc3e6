"""Augmentations move image and mask alike, change colours as stated, and leave their input alone."""

from collections import Counter

import numpy as np
import pytest

from r2unet.augment import LUMINANCE, augment, colour_jitter, flip, quarter_turn, random_crop_resize
from r2unet.errors import InputError
from r2unet.sample import Sample

SIZE = 64
CHANGES = [flip, quarter_turn, random_crop_resize, colour_jitter, augment]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def sample(rng):
    """An off-centre disc on colours of the middle range, read-only: writing to it raises."""
    y, x = np.mgrid[:SIZE, :SIZE]
    mask = (np.hypot(x - 28, y - 36) < 10).astype(np.uint8)
    image = rng.integers(90, 150, size=(SIZE, SIZE, 3), dtype=np.uint8)
    image.setflags(write=False)
    mask.setflags(write=False)
    return Sample(image, mask, "disc", "nevus")


def painted_mask(sample):
    """The sample with its mask as its image: whatever moves one must move the other."""
    return sample._replace(image=np.repeat(255 * sample.mask[..., None], 3, axis=-1))


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_keeps_shapes_types_name_and_diagnosis(change, sample, rng):
    changed = change(sample, rng)
    assert changed.image.shape == (SIZE, SIZE, 3) and changed.mask.shape == (SIZE, SIZE)
    assert changed.image.dtype == changed.mask.dtype == np.uint8
    assert changed.image.flags.c_contiguous and changed.mask.flags.c_contiguous
    assert set(np.unique(changed.mask)) == {0, 1}
    assert (changed.name, changed.diagnosis) == ("disc", "nevus")


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_repeated_by_the_generator_state_and_varies_without_it(change, sample, rng):
    first, again = (change(sample, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.mask, again.mask)
    others = [change(sample, rng).image for _ in range(10)]
    assert any((other != first.image).any() for other in others)


@pytest.mark.parametrize("change", [flip, quarter_turn, random_crop_resize])
def test_image_and_mask_move_together(change, sample, rng):
    for _ in range(20):
        moved = change(painted_mask(sample), rng)
        np.testing.assert_array_equal(moved.image[..., 0] >= 128, moved.mask == 1)


def test_flips_and_turns_reach_the_eight_symmetries_of_the_square_equally_often(rng):
    corner = np.arange(4, dtype=np.uint8).reshape(2, 2)  # all four pixels differ, so all eight layouts do
    square = Sample(np.repeat(corner[..., None], 3, axis=-1), corner, "square")
    layouts = Counter(quarter_turn(flip(square, rng), rng).mask.tobytes() for _ in range(1600))
    assert len(layouts) == 8
    assert all(140 < count < 260 for count in layouts.values())  # 200 each, four standard deviations


def test_flip_alone_reaches_four_layouts_and_quarter_turn_four(rng):
    corner = np.arange(4, dtype=np.uint8).reshape(2, 2)
    square = Sample(np.repeat(corner[..., None], 3, axis=-1), corner, "square")
    flips = {flip(square, rng).mask.tobytes() for _ in range(100)}
    turns = {quarter_turn(square, rng).mask.tobytes() for _ in range(100)}
    assert len(flips) == len(turns) == 4
    assert len(flips & turns) == 2  # nothing, and the half turn


def test_the_whole_image_as_crop_changes_nothing(sample, rng):
    same = random_crop_resize(sample, rng, scale=(1, 1), stretch=0)
    np.testing.assert_array_equal(same.image, sample.image)
    np.testing.assert_array_equal(same.mask, sample.mask)


def test_a_crop_of_eight_tenths_enlarges_a_lesion_by_the_square_of_five_quarters(sample, rng):
    for _ in range(10):
        near = random_crop_resize(sample, rng, scale=(0.8, 0.8), stretch=0)
        assert near.mask.sum() == pytest.approx(sample.mask.sum() / 0.8**2, rel=0.03)


def test_a_crop_of_half_the_side_halves_the_slope_of_a_ramp(rng):
    ramp = np.broadcast_to(np.arange(0, 4 * SIZE, 4, dtype=np.uint8)[None, :, None], (SIZE, SIZE, 3)).copy()
    sample = Sample(ramp, np.ones((SIZE, SIZE), np.uint8), "ramp")
    near = random_crop_resize(sample, rng, scale=(0.5, 0.5), stretch=0)
    slope = np.diff(near.image[SIZE // 2, 2:-2, 0].astype(float))
    assert slope.mean() == pytest.approx(2.0, abs=0.05)
    assert near.mask.all()


def test_stretch_makes_discs_into_ovals(sample, rng):
    ratios = []
    for _ in range(50):
        mask = random_crop_resize(sample, rng, scale=(0.8, 0.8), stretch=0.2).mask
        ratios.append(np.any(mask, axis=0).sum() / np.any(mask, axis=1).sum())
    assert 0.78 < min(ratios) < 0.92 and 1.08 < max(ratios) < 1.28  # 1 / 1.2 and 1 / 0.8, to a pixel


def test_colour_leaves_the_mask_alone(sample, rng):
    np.testing.assert_array_equal(colour_jitter(sample, rng).mask, sample.mask)


OFF = {"brightness": 0, "contrast": 0, "saturation": 0, "channel_gain": 0}


def test_colour_without_any_range_changes_nothing(sample, rng):
    np.testing.assert_array_equal(colour_jitter(sample, rng, **OFF).image, sample.image)


def test_brightness_multiplies_all_pixels_by_one_number(sample, rng):
    factors = []
    for _ in range(30):
        brighter = colour_jitter(sample, rng, **(OFF | {"brightness": 0.2})).image
        ratio = brighter / sample.image
        assert np.ptp(ratio) < 0.013  # two roundings of half a level, at 90 levels or more
        factors.append(ratio.mean())
    assert 0.8 <= min(factors) < 0.9 and 1.1 < max(factors) <= 1.2


def test_contrast_scales_the_spread_and_keeps_the_mean_colour(sample, rng):
    spreads = []
    for _ in range(30):
        changed = colour_jitter(sample, rng, **(OFF | {"contrast": 0.2})).image
        np.testing.assert_allclose(changed.mean(axis=(0, 1)), sample.image.mean(axis=(0, 1)), atol=0.1)
        spreads.append(changed.std() / sample.image.std())
    assert 0.79 < min(spreads) < 0.9 and 1.1 < max(spreads) < 1.21


def test_saturation_keeps_the_luminance_of_every_pixel_and_leaves_grey_grey(sample, rng):
    grey = sample._replace(image=np.repeat(sample.image[..., :1], 3, axis=-1))
    for _ in range(10):
        changed = colour_jitter(sample, rng, **(OFF | {"saturation": 0.3})).image
        np.testing.assert_allclose(changed @ LUMINANCE, sample.image @ LUMINANCE, atol=0.51)
        np.testing.assert_array_equal(
            colour_jitter(grey, rng, **(OFF | {"saturation": 0.3})).image, grey.image
        )


def test_channel_gain_multiplies_each_channel_by_its_own_number(sample, rng):
    ratio = colour_jitter(sample, rng, **(OFF | {"channel_gain": 0.08})).image / sample.image
    assert (np.ptp(ratio, axis=(0, 1)) < 0.013).all()
    gains = ratio.mean(axis=(0, 1))
    assert len(set(gains.round(3))) == 3 and (abs(gains - 1) < 0.081).all()


def test_colours_saturate_at_black_and_white_instead_of_wrapping_around(rng):
    white = Sample(np.full((8, 8, 3), 250, np.uint8), np.ones((8, 8), np.uint8), "white")
    levels = [colour_jitter(white, rng, **(OFF | {"brightness": 0.5})).image.min() for _ in range(50)]
    assert max(levels) == 255 and min(levels) >= 124


def test_strength_zero_returns_the_sample_itself(sample, rng):
    assert augment(sample, rng, strength=0) is sample


def test_strength_scales_how_far_colours_go(sample, rng):
    def mean_change(strength):
        changed = [augment(sample, rng, strength).image.mean() for _ in range(100)]
        return np.std(changed)

    assert mean_change(0.1) < 0.3 * mean_change(1.0)


@pytest.mark.parametrize("strength", [-0.1, 2.1, float("nan")])
def test_a_strength_outside_its_range_is_refused_with_the_range(strength, sample, rng):
    with pytest.raises(InputError, match=f"strength is {strength}.*0 .*2"):
        augment(sample, rng, strength)

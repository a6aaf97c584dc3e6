"""Generated lesions are reproducible, have exact areas and outlines, and are too hard for a threshold."""

import hashlib
import tracemalloc
from collections import Counter

import numpy as np
import pytest

from minidl.profiler import memory_traced
from r2unet.data.classes import CLASSES
from r2unet.data.synthetic import AREA, SyntheticLesions, make_lesion
from r2unet.data.targets import DiagnosisTargets, class_labels
from r2unet.errors import InputError
from r2unet.scores.baselines import otsu


@pytest.fixture(scope="module")
def lesions():
    return SyntheticLesions(100, 64, seed=0)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def dilate(mask, pixels):
    """Return the mask dilated by `pixels` steps up, down, left and right."""
    for _ in range(pixels):
        padded = np.pad(mask, 1, mode="edge")
        mask = (
            padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
        )
    return mask


def test_a_sample_is_an_rgb_image_with_a_mask_of_zeros_and_ones(lesions):
    for sample in lesions:
        assert sample.image.shape == (64, 64, 3) and sample.mask.shape == (64, 64)
        assert sample.image.dtype == sample.mask.dtype == np.uint8
        assert set(np.unique(sample.mask)) == {0, 1}


def test_samples_have_names_of_five_digits_and_each_is_another_lesion(lesions):
    assert len(lesions) == 100
    assert lesions[12].name == "synthetic_00012"
    assert all(sample.lesion == "" for sample in lesions)  # the name identifies the lesion


@pytest.mark.parametrize("size", [16, 32, 64])
def test_forty_lesions_contain_every_class_and_most_are_nevi(size):
    lesions = SyntheticLesions(40, size, seed=0)
    counts = Counter(sample.diagnosis for sample in lesions)
    assert counts == {"nevus": 29, "melanoma": 7, "seborrheic_keratosis": 4}
    for classes in (CLASSES["types-3"], CLASSES["malignant"]):
        assert set(class_labels(lesions, classes)) == set(range(len(classes)))
        DiagnosisTargets(lesions, classes)  # without the images for calibration, too


def test_the_classes_are_as_unbalanced_as_those_of_isic_2017():
    diagnoses = [sample.diagnosis for seed in range(4) for sample in SyntheticLesions(100, 16, seed)]
    shares = {name: diagnoses.count(name) / len(diagnoses) for name in CLASSES["types-3"]}
    assert 0.6 < shares["nevus"] < 0.75
    assert 0.1 < shares["melanoma"] < 0.2 and 0.1 < shares["seborrheic_keratosis"] < 0.2


def test_a_lesion_is_a_nevus_up_to_an_area(lesions):
    areas = np.array([sample.mask.mean() for sample in lesions])
    nevi = np.array([sample.diagnosis == "nevus" for sample in lesions])
    np.testing.assert_array_equal(nevi, areas <= 0.22)


def test_a_larger_lesion_is_a_melanoma_if_it_is_less_than_half_as_bright_as_the_skin():
    """Compares the brightness inside and outside in the images of lesions that nothing covers."""
    ratios = {"melanoma": [], "seborrheic_keratosis": []}
    for sample in SyntheticLesions(200, 32, seed=3):
        if sample.diagnosis != "nevus":
            inside = sample.mask == 1
            ring = dilate(inside, 5) & ~dilate(inside, 2)
            ratio = np.median(sample.image[inside], axis=0) / np.median(sample.image[ring], axis=0)
            ratios[sample.diagnosis].append(ratio.mean())
    dark, pale = (np.median(values) for values in ratios.values())
    assert dark < 0.45 and pale > 0.55
    assert np.mean([ratio < 0.5 for ratio in ratios["melanoma"]]) > 0.8
    assert np.mean([ratio > 0.5 for ratio in ratios["seborrheic_keratosis"]]) > 0.8


def test_seven_types_are_too_many_for_generated_lesions(lesions):
    with pytest.raises(InputError, match="no training image is of the class basal_cell_carcinoma"):
        DiagnosisTargets(lesions, CLASSES["types-7"])


def test_the_bytes_of_three_samples_are_those_of_every_earlier_version():
    """A changed hash means other data: stored scores are then no longer comparable.

    Floating-point functions differ between processors in their last digits. In these three samples, no value
    is near enough to a rounding boundary to be changed by that. The last one has three kinds of lines.
    """
    lesions, digest = SyntheticLesions(2058, 16, seed=0), hashlib.sha256()
    for index in (46, 834, 2057):
        digest.update(lesions[index].image.tobytes())
        digest.update(lesions[index].mask.tobytes())
    assert digest.hexdigest() == "8bdb12efcc51502f13c6978d39049b7359c8baad6124d6c41e809ceb2797119c"


def test_areas_cover_their_range_and_stay_in_it(lesions):
    areas = np.array([sample.mask.mean() for sample in lesions])
    pixel = 1 / 64**2
    assert AREA[0] - pixel <= areas.min() < 0.04
    assert 0.45 < areas.max() <= AREA[1] + pixel
    assert np.median(areas) == pytest.approx(np.sqrt(AREA[0] * AREA[1]), rel=0.25)  # log-uniform


def test_an_image_depends_on_seed_and_index_alone():
    short, long = SyntheticLesions(3, 32, seed=5), SyntheticLesions(50, 32, seed=5)
    for sample in reversed(list(long)):  # another order of generation
        if sample.name in ("synthetic_00000", "synthetic_00002"):
            twin = short[int(sample.name[-5:])]
            np.testing.assert_array_equal(sample.image, twin.image)
            np.testing.assert_array_equal(sample.mask, twin.mask)
    image, mask = make_lesion(32, np.random.default_rng([5, 2]))
    np.testing.assert_array_equal(image, short[2].image)
    np.testing.assert_array_equal(mask, short[2].mask)


def test_other_indices_and_other_seeds_give_other_images(lesions):
    firsts = [lesions[0], lesions[1], SyntheticLesions(1, 64, seed=1)[0]]
    assert len({sample.mask.tobytes() for sample in firsts}) == 3
    assert len({sample.image.tobytes() for sample in firsts}) == 3


def test_a_sample_is_generated_once_and_is_read_only(lesions):
    first = lesions[3]
    assert lesions[4] is not first and lesions[3] is first
    for array in (first.image, first.mask):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 0


def test_the_same_generator_state_gives_the_same_scene_at_every_size():
    for seed in range(10):
        image, mask = make_lesion(64, np.random.default_rng(seed))
        large_image, large_mask = make_lesion(128, np.random.default_rng(seed))
        halved_mask = large_mask.reshape(64, 2, 64, 2).mean(axis=(1, 3)) >= 0.5
        halved_image = large_image.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
        assert dice(halved_mask, mask == 1) > 0.95
        # of 255 levels; the sensor noise and details finer than a pixel differ
        assert abs(halved_image - image).mean() < 6


def test_the_outline_is_where_the_absorption_is_one_half():
    """Compares the mean absorbance (minus log green) inside, on and outside the outline."""
    profiles = []
    for sample in SyntheticLesions(60, 128, seed=2):
        inside, absorbance = sample.mask == 1, -np.log(sample.image[..., 1] + 1.0)
        deep, far = ~dilate(~inside, 8), dilate(inside, 12) & ~dilate(inside, 8)
        edge = (inside & dilate(~inside, 1)) | (~inside & dilate(inside, 1))  # one pixel on either side
        if deep.any() and far.any():
            profiles.append([absorbance[pixels].mean() for pixels in (deep, edge, far)])
    deep, edge, far = np.mean(profiles, axis=0)
    assert deep - far > 0.5
    assert 0.45 < (edge - far) / (deep - far) < 0.6


def test_the_lesion_differs_in_colour_from_the_skin_around_it(lesions):
    contrasts = []
    for sample in lesions:
        inside = sample.mask == 1
        ring = dilate(inside, 8) & ~dilate(inside, 3)
        colours = sample.image[inside].mean(axis=0), sample.image[ring].mean(axis=0)
        contrasts.append(abs(colours[0] - colours[1]).max())
    assert min(contrasts) > 8 and np.median(contrasts) > 40  # of 255 levels


def test_a_threshold_on_brightness_does_not_suffice(lesions):
    scores = [dice(otsu(sample.image), sample.mask) for sample in lesions]
    assert 0.5 < np.mean(scores) < 0.75
    assert np.percentile(scores, 90) > 0.85  # and some lesions are easy


def test_skin_ranges_from_fair_to_dark(lesions):
    brightness = [np.median(sample.image[sample.mask == 0]) for sample in lesions]
    assert min(brightness) < 75 and max(brightness) > 190


@pytest.mark.parametrize("index", [-1, 100])
def test_an_index_out_of_range_is_an_index_error(index, lesions):
    with pytest.raises(IndexError, match=f"sample {index} of a data set of 100"):
        lesions[index]


@pytest.mark.parametrize(
    ("count", "size", "seed", "message"),
    [
        (0, 64, 0, "0 generated lesions: must be at least 1"),
        (5, 15, 0, "size 15: must be at least 16 pixels"),
        (5, 64, -1, "seed -1: must be at least 0"),
    ],
)
def test_the_error_for_an_invalid_setting_gives_the_valid_range(count, size, seed, message):
    with pytest.raises(InputError, match=message):
        SyntheticLesions(count, size, seed)


def test_at_the_smallest_size_every_image_has_a_lesion():
    assert all(sample.mask.any() and not sample.mask.all() for sample in SyntheticLesions(50, 16, seed=0))


def test_generating_takes_no_more_memory_than_a_prediction():
    """The settings of a prediction that is used without a question take at least 100 bytes a pixel."""
    make_lesion(16, np.random.default_rng(0))  # what is imported is not counted
    for seed in range(3):
        with memory_traced():
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            make_lesion(256, np.random.default_rng(seed))
            assert tracemalloc.get_traced_memory()[1] - before < 66 * 256**2

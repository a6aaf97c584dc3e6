"""The trivial baselines predict what their definitions say."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from r2unet.scores.baselines import MeanMask, all_background, otsu, otsu_threshold
from r2unet.scores.metrics import confusion, jaccard, summarize


def disc(height, width, radius):
    rows, columns = np.mgrid[:height, :width]
    return ((rows - height / 2) ** 2 + (columns - width / 2) ** 2 < radius**2).astype(np.uint8)


def lesion_image(mask, lesion=60, skin=190, noise=12, seed=0):
    grey = np.where(mask, lesion, skin) + np.random.default_rng(seed).normal(0, noise, mask.shape)
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)  # (H, W) -> (H, W, 3)


def test_all_background_is_an_empty_mask_of_the_image_s_size():
    mask = all_background(np.full((7, 9, 3), 200, np.uint8))
    assert mask.shape == (7, 9) and mask.dtype == np.uint8 and not mask.any()


def within_class_variance(grey, threshold):
    dark, light = grey[grey <= threshold], grey[grey > threshold]
    return (dark.size * dark.var() + light.size * light.var()) / grey.size


@pytest.mark.parametrize("seed", range(4))
def test_otsu_s_threshold_minimises_the_variance_within_the_classes(seed):
    rng = np.random.default_rng(seed)
    dark = rng.normal(70, 15, rng.integers(100, 900))
    light = rng.normal(160, 25, 1000)
    grey = np.clip(np.concatenate([dark, light]), 0, 255).astype(np.uint8).reshape(1, -1)  # (1, pixels)
    levels = range(int(grey.min()), int(grey.max()))  # both classes contain pixels
    best = min(levels, key=lambda threshold: within_class_variance(grey, threshold))
    assert otsu_threshold(grey) == best


def test_otsu_returns_the_lowest_of_equally_good_thresholds():
    grey = np.array([[50, 50, 200]], dtype=np.uint8)  # any level from 50 to 199 splits these alike
    assert otsu_threshold(grey) == 50


def test_otsu_finds_a_dark_disc_on_light_skin():
    mask = disc(60, 80, 18)
    prediction = otsu(lesion_image(mask))
    assert prediction.dtype == np.uint8
    np.testing.assert_array_equal(prediction, mask)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_otsu_finds_no_lesion_in_an_image_with_one_grey_level(level):
    assert not otsu(np.full((6, 5, 3), level, np.uint8)).any()


def test_the_mean_mask_of_equal_masks_is_that_mask_at_any_size():
    mean_mask = MeanMask.fit([disc(64, 64, 20)] * 3)
    np.testing.assert_array_equal(mean_mask(np.zeros((64, 64, 3), np.uint8)), disc(64, 64, 20))
    rows, columns = np.mgrid[:300, :500]
    ellipse = ((rows - 150) / 300) ** 2 + ((columns - 250) / 500) ** 2 < (20 / 64) ** 2
    stretched = mean_mask(np.zeros((300, 500, 3), np.uint8))
    assert stretched.dtype == np.uint8
    assert jaccard(confusion(stretched, ellipse)) > 0.95


def test_the_mean_mask_beats_the_majority_vote_if_lesions_do_not_overlap():
    masks = np.zeros((3, 64, 64), np.uint8)
    masks[0, :, :20] = masks[1, :, 20:40] = masks[2, :, 40:60] = 1  # no pixel is lesion in more than one mask
    mean_mask = MeanMask.fit(masks)
    np.testing.assert_array_equal(mean_mask.mask, masks.max(axis=0))  # a majority vote would be empty, J = 0


def test_the_mean_mask_has_the_best_mean_jaccard_of_its_thresholds():
    rng = np.random.default_rng(4)
    masks = [np.roll(disc(64, 64, rng.integers(8, 28)), rng.integers(-9, 9, 2), (0, 1)) for _ in range(30)]

    def mean_jaccard(mask):
        return np.mean([jaccard(confusion(mask, other)) for other in masks])

    share = np.mean(masks, axis=0)
    best = max(mean_jaccard(share >= threshold) for threshold in MeanMask.THRESHOLDS)
    assert mean_jaccard(MeanMask.fit(masks).mask) == best
    assert best > mean_jaccard(share >= MeanMask.THRESHOLDS[0])


def test_the_mean_mask_averages_masks_of_different_sizes_from_an_iterator():
    sizes = [(64, 64), (256, 256), (128, 128)]
    mean_mask = MeanMask.fit(disc(height, width, height * 0.3) for height, width in sizes)
    assert mean_mask.mask.shape == (64, 64)
    assert jaccard(confusion(mean_mask.mask, disc(64, 64, 64 * 0.3))) > 0.95


def test_the_mean_mask_is_restored_from_its_array():
    fitted = MeanMask.fit([disc(100, 150, 30)])
    restored = MeanMask(fitted.mask.astype(bool))
    image = np.zeros((90, 70, 3), np.uint8)
    np.testing.assert_array_equal(restored(image), fitted(image))


def test_the_mean_mask_of_no_masks_is_rejected():
    with pytest.raises(ValueError, match="no masks"):
        MeanMask.fit([])


def test_baselines_do_not_modify_the_image():
    image = lesion_image(disc(40, 50, 12))
    before = image.copy()
    for predictor in (all_background, otsu, MeanMask.fit([disc(40, 50, 12)])):
        predictor(image)
    np.testing.assert_array_equal(image, before)


@pytest.mark.skipif("ISIC_ROOT" not in os.environ, reason="ISIC_ROOT does not name a folder of ISIC 2017")
def test_on_real_images_all_background_has_high_accuracy_and_no_jaccard():
    root = Path(os.environ["ISIC_ROOT"])
    predictors = {"background": all_background, "otsu": otsu}
    confusions = {name: [] for name in predictors}
    for path in sorted((root / "ISIC-2017_Validation_Data").glob("ISIC_*.jpg"))[:40]:
        mask_path = root / "ISIC-2017_Validation_Part1_GroundTruth" / f"{path.stem}_segmentation.png"
        with Image.open(path) as image_file, Image.open(mask_path) as mask_file:
            image, truth = np.asarray(image_file), np.asarray(mask_file) > 128
        for name, predictor in predictors.items():
            confusions[name].append(confusion(predictor(image), truth))
    rng = np.random.default_rng(0)
    scores = {name: summarize(counts, rng)["mean"] for name, counts in confusions.items()}
    assert 0.75 < scores["background"]["accuracy"] < 0.95 and scores["background"]["jaccard"] == 0.0
    assert 0.2 < scores["otsu"]["jaccard"] < 0.6

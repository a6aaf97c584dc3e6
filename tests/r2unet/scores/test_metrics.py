"""Metrics equal those of the official ISIC tool, and have the properties that metrics.py states."""

import json

import numpy as np
import pytest

from r2unet.scores.metrics import (
    METRICS,
    Confusion,
    accuracy,
    bootstrap_interval,
    confusion,
    dice,
    jaccard,
    sensitivity,
    specificity,
    stack,
    summarize,
    thresholded_jaccard,
)


def disc(row, column, radius):
    rows, columns = np.mgrid[:20, :24]
    return (rows - row) ** 2 + (columns - column) ** 2 < radius**2  # (20, 24), empty for radius 0


def random_confusions(images, seed=0):
    rng = np.random.default_rng(seed)
    return [confusion(rng.random((8, 9)) < 0.4, rng.random((8, 9)) < 0.4) for _ in range(images)]


def test_each_pixel_is_counted_in_one_of_four_cells():
    truth = np.array([[1, 1, 1, 0, 0, 0, 0, 0, 0, 0]], dtype=np.uint8)
    prediction = np.array([[1, 1, 0, 1, 1, 1, 1, 0, 0, 0]], dtype=bool)
    counts = confusion(prediction, truth)
    assert counts == Confusion(tp=2, tn=3, fp=4, fn=1)
    assert all(cell.dtype == np.int64 for cell in counts)


def test_metrics_equal_values_computed_by_hand():
    counts = Confusion(tp=2, tn=3, fp=4, fn=1)
    assert accuracy(counts) == 5 / 10
    assert sensitivity(counts) == 2 / 3
    assert specificity(counts) == 3 / 7
    assert jaccard(counts) == 2 / 7
    assert dice(counts) == 4 / 9
    assert thresholded_jaccard(counts) == 0.0


@pytest.mark.parametrize(
    "counts, metric, expected",
    [
        (Confusion(tp=0, tn=9, fp=0, fn=0), sensitivity, 1.0),  # no lesion, none found
        (Confusion(tp=0, tn=5, fp=4, fn=0), sensitivity, 1.0),  # no lesion, some found
        (Confusion(tp=9, tn=0, fp=0, fn=0), specificity, 1.0),  # no skin
        (Confusion(tp=5, tn=0, fp=0, fn=4), specificity, 1.0),
        (Confusion(tp=0, tn=9, fp=0, fn=0), jaccard, 1.0),  # both masks empty
        (Confusion(tp=0, tn=9, fp=0, fn=0), dice, 1.0),
        (Confusion(tp=0, tn=9, fp=0, fn=0), thresholded_jaccard, 1.0),
        (Confusion(tp=0, tn=5, fp=4, fn=0), jaccard, 0.0),  # only one of the masks is empty
        (Confusion(tp=0, tn=5, fp=0, fn=4), dice, 0.0),
    ],
)
def test_an_undefined_ratio_counts_as_one(counts, metric, expected):
    assert metric(counts) == expected


def test_thresholded_jaccard_keeps_0_65_and_is_0_below():
    assert thresholded_jaccard(Confusion(tp=13, tn=0, fp=7, fn=0)) == 0.65
    assert thresholded_jaccard(Confusion(tp=649, tn=0, fp=351, fn=0)) == 0.0


def test_means_equal_those_of_the_official_tool():
    pairs = [
        (disc(10 + i % 3, 12 - i % 2, 2 * i + i % 4 - 1 if i else 0), disc(10, 12, 2 * i)) for i in range(10)
    ]
    pairs += [(disc(10, 12, 0), disc(10, 12, 5)), (disc(10, 12, 5), disc(10, 12, 0)), (disc(10, 12, 40),) * 2]
    summary = summarize([confusion(*pair) for pair in pairs], np.random.default_rng(0))
    # Printed by isic-challenge-scoring 5.6.0, SegmentationScore(...).macro_average, for these very masks.
    official = {
        "accuracy": 0.9274038461538461,
        "sensitivity": 0.8359725570822997,
        "specificity": 0.8406128235848853,
        "jaccard": 0.6729138817395209,
        "thresholded_jaccard": 0.5690307182708652,
        "dice": 0.7306846650545136,
    }
    assert summary["mean"] == pytest.approx(official, abs=1e-12, rel=0)


def test_jaccard_is_a_function_of_dice_and_its_mean_has_a_lower_bound():
    counts = stack(random_confusions(50))
    np.testing.assert_allclose(jaccard(counts), dice(counts) / (2 - dice(counts)), rtol=1e-12)
    mean_dice = dice(counts).mean()
    assert jaccard(counts).mean() > mean_dice / (2 - mean_dice)


def test_stacked_counts_score_like_single_images():
    confusions = random_confusions(7)
    for metric in METRICS.values():
        scores = metric(stack(confusions))
        assert scores.shape == (7,)
        np.testing.assert_array_equal(scores, [metric(counts) for counts in confusions])


def test_all_background_has_high_accuracy_and_no_jaccard():
    truth = disc(10, 12, 5)
    counts = confusion(np.zeros_like(truth), truth)
    assert accuracy(counts) > 0.8
    assert jaccard(counts) == dice(counts) == sensitivity(counts) == 0.0


def test_the_mean_weights_images_equally_and_pooling_weights_pixels_equally():
    large_and_found = Confusion(tp=90, tn=0, fp=10, fn=0)
    small_and_missed = Confusion(tp=0, tn=90, fp=0, fn=10)
    summary = summarize([large_and_found, small_and_missed], np.random.default_rng(0))
    assert summary["images"] == 2
    assert summary["mean"]["jaccard"] == pytest.approx((0.9 + 0.0) / 2)
    assert summary["pooled"]["jaccard"] == pytest.approx(90 / 110)
    assert summary["mean"]["sensitivity"] == pytest.approx((1 + 0) / 2)
    assert summary["pooled"]["sensitivity"] == pytest.approx(90 / 100)
    assert summary["mean"]["thresholded_jaccard"] == pytest.approx(0.45)
    assert "thresholded_jaccard" not in summary["pooled"]


def test_the_summary_is_the_same_for_a_list_and_a_stack_and_survives_json():
    confusions = random_confusions(5)
    from_list = summarize(confusions, np.random.default_rng(3))
    assert from_list == summarize(stack(confusions), np.random.default_rng(3))
    assert json.loads(json.dumps(from_list)) == from_list


def test_the_bootstrap_interval_has_the_width_of_the_normal_one_and_repeats_with_its_seed():
    values = np.random.default_rng(1).normal(0.7, 0.2, size=400)
    low, high = bootstrap_interval(values, np.random.default_rng(2))
    standard_error = values.std() / np.sqrt(400)
    assert low == pytest.approx(values.mean() - 1.96 * standard_error, abs=0.1 * standard_error)
    assert high == pytest.approx(values.mean() + 1.96 * standard_error, abs=0.1 * standard_error)
    assert [low, high] == bootstrap_interval(values, np.random.default_rng(2))


def test_the_summary_s_interval_is_that_of_the_mean_jaccard():
    confusions = random_confusions(20)
    expected = bootstrap_interval(jaccard(stack(confusions)), np.random.default_rng(5))
    assert summarize(confusions, np.random.default_rng(5))["jaccard_interval"] == expected
    alike = summarize([Confusion(tp=3, tn=5, fp=1, fn=0)] * 4, np.random.default_rng(0))
    assert alike["jaccard_interval"] == [0.75, 0.75]


@pytest.mark.parametrize(
    "prediction, truth, message",
    [
        (np.zeros((4, 5), bool), np.zeros((5, 4), bool), r"\(4, 5\).*\(5, 4\)"),
        (np.zeros((0, 5), bool), np.zeros((0, 5), bool), "at least one pixel"),
        (np.full((4, 5), 0.7), np.zeros((4, 5), bool), r"prediction \(4, 5\) float64.*threshold it first"),
        (np.zeros((4, 5), bool), np.full((4, 5), 255, np.uint8), r"truth \(4, 5\) uint8.*255"),
        (np.full((4, 5), -1), np.zeros((4, 5), bool), r"prediction .* int64.*-1"),
    ],
)
def test_other_arrays_than_two_masks_of_equal_shape_are_rejected(prediction, truth, message):
    with pytest.raises(ValueError, match=message):
        confusion(prediction, truth)


def test_an_empty_list_is_rejected():
    with pytest.raises(ValueError, match="no images"):
        summarize([], np.random.default_rng(0))

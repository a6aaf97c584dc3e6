"""Bootstrap intervals resample lesions with all their images."""

import numpy as np
import pytest

from r2unet.diagnosis.bootstrap import draw_weights, with_intervals


def mean_of(values):
    return lambda weights: {"mean": weights @ values / weights.sum(axis=1)}


def test_the_images_of_a_lesion_are_drawn_together(rng):
    weights = draw_weights(["a", "b", "a", "c"], rng, 500)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, [0, 1, 3]].sum(axis=1), 3)  # three lesions are drawn
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.15)
    # How often a lesion is drawn is binomial: variance 3 * 1/3 * 2/3.
    np.testing.assert_allclose(weights.var(axis=0), 2 / 3, atol=0.12)


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution(rng):
    values = rng.normal(size=400)
    result = with_intervals(mean_of(values), [str(i) for i in range(400)], rng, resamples=4000)["mean"]
    width = 1.96 * values.std() / 20
    assert result["value"] == pytest.approx(values.mean())
    assert result["interval"] == pytest.approx([values.mean() - width, values.mean() + width], abs=0.012)


def test_copies_of_a_lesion_do_not_narrow_the_interval(rng):
    values, names = rng.normal(size=100), [str(i) for i in range(100)]
    low, high = with_intervals(mean_of(values), names, np.random.default_rng(1))["mean"]["interval"]
    copied = with_intervals(mean_of(np.tile(values, 4)), names * 4, np.random.default_rng(1))["mean"]
    assert copied["interval"] == pytest.approx([low, high])
    as_images = with_intervals(mean_of(np.tile(values, 4)), range(400), np.random.default_rng(1))["mean"]
    narrow = as_images["interval"][1] - as_images["interval"][0]
    assert narrow == pytest.approx((high - low) / 2, rel=0.15)  # 1 / sqrt(4): too sure


def test_95_percent_of_the_intervals_contain_the_true_value(rng):
    """200 data sets of 60 lesions, whose two images share the lesion's value; the true mean is 0."""
    names = [str(i // 2) for i in range(120)]
    hits = 0
    for _ in range(200):
        values = np.repeat(rng.normal(size=60), 2) + 0.1 * rng.normal(size=120)
        low, high = with_intervals(mean_of(values), names, rng, resamples=400)["mean"]["interval"]
        hits += low <= 0 <= high
    assert 0.9 <= hits / 200 <= 0.98


def test_blocks_do_not_change_the_distribution(rng, monkeypatch):
    monkeypatch.setattr("r2unet.diagnosis.bootstrap.CHUNK", 70)
    seen = []

    def statistics(weights):
        seen.append(len(weights))
        return {"images": weights.sum(axis=1)}

    with_intervals(statistics, [str(i) for i in range(10)], rng, resamples=20)
    assert seen == [1, 7, 7, 6]  # the data themselves, then blocks of at most 70 numbers


def test_undefined_values_are_none_and_left_out_of_intervals(rng):
    def statistics(weights):
        rare = weights[:, 0]  # absent from about 1/e of the resamples
        return {
            "never": np.full(len(weights), np.nan),
            "sometimes": np.where(rare > 0, 0.5, np.nan),
        }

    result = with_intervals(statistics, [str(i) for i in range(50)], rng)
    assert result["never"] == {"value": None, "interval": None}
    assert result["sometimes"] == {"value": 0.5, "interval": [0.5, 0.5]}


def test_no_images_are_an_error(rng):
    with pytest.raises(ValueError, match="no images"):
        with_intervals(mean_of(np.zeros(0)), [], rng)

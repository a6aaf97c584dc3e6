"""Calibration error, proper scores, and the temperature that recovers calibration."""

import numpy as np
import pytest

from r2unet.diagnosis import calibration
from r2unet.diagnosis.calibration import (
    apply_temperature,
    brier_score,
    errors_by_chance,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability,
)
from tests.r2unet.diagnosis.test_roc import CASES


def draw(rng, images, classes=5, scale=2.0):
    """Logits, and labels that are drawn from their softmax: perfectly calibrated."""
    logits = scale * rng.normal(size=(images, classes))
    cumulative = np.cumsum(apply_temperature(logits, 1.0), axis=1)
    return logits, (rng.random((images, 1)) > cumulative[:, :-1]).sum(axis=1)


def calibration_error(probabilities, labels):
    return float(expected_calibration_error(reliability(probabilities, labels)))


class TestCalibrationError:
    def test_by_hand(self):
        p = np.array([[0.9, 0.1], [0.95, 0.05], [0.4, 0.6], [0.35, 0.65]])
        labels = np.array([0, 1, 1, 1])
        bins = reliability(p, labels, bins=10)
        # .6 is in (.5, .6], .65 in (.6, .7], .9 in (.8, .9], .95 in (.9, 1]
        assert bins.images.tolist() == [0, 0, 0, 0, 0, 1, 1, 0, 1, 1]
        np.testing.assert_allclose(bins.confidence[[5, 6, 8, 9]], [0.6, 0.65, 0.9, 0.95])
        np.testing.assert_allclose(bins.accuracy[[5, 6, 8, 9]], [1, 1, 1, 0])
        assert np.isnan(bins.accuracy[0])
        assert expected_calibration_error(bins) == pytest.approx((0.4 + 0.35 + 0.1 + 0.95) / 4)

    def test_opposite_errors_in_one_bin_cancel(self):
        p, labels = np.array([[0.75, 0.25]] * 4), np.array([0, 0, 0, 1])
        assert calibration_error(p, labels) == pytest.approx(0, abs=1e-12)

    def test_of_calibrated_probabilities_is_small(self, rng):
        logits, labels = draw(rng, 20_000)
        assert calibration_error(apply_temperature(logits, 1.0), labels) < 0.012
        assert calibration_error(apply_temperature(logits, 0.5), labels) > 0.1  # too confident
        assert calibration_error(apply_temperature(logits, 2.0), labels) > 0.1  # too modest

    def test_of_few_images_is_too_high(self, rng):
        errors = []
        for _ in range(50):
            logits, labels = draw(rng, 100)
            errors.append(calibration_error(apply_temperature(logits, 1.0), labels))
        assert np.mean(errors) > 0.05

    def test_weights_count_images_several_times(self, rng):
        logits, labels = draw(rng, 60)
        p, weights = apply_temperature(logits, 0.7), rng.integers(0, 3, (4, 60))
        together = expected_calibration_error(reliability(p, labels, weights=weights))
        for row, value in zip(weights, together, strict=True):
            repeated = np.repeat(p, row, axis=0), np.repeat(labels, row)
            assert value == pytest.approx(calibration_error(*repeated), abs=1e-12)


class TestErrorsByChance:
    def test_by_hand(self, rng):
        p = np.array([[0.6, 0.4], [0.4, 0.6]])
        errors = errors_by_chance(p, rng, draws=20_000)
        # 0, 1 or 2 answers are right, with probabilities .16, .48 and .36; the confidence expects 1.2
        values, counts = np.unique(errors.round(12), return_counts=True)
        np.testing.assert_allclose(values, [0.1, 0.4, 0.6])
        np.testing.assert_allclose(counts / 20_000, [0.48, 0.36, 0.16], atol=0.015)

    def test_are_those_of_labels_drawn_from_the_probabilities(self, rng):
        p = apply_temperature(draw(rng, 150)[0], 1.0)
        drawn = [
            calibration_error(p, (rng.random((150, 1)) > np.cumsum(p, axis=1)[:, :-1]).sum(axis=1))
            for _ in range(2000)
        ]
        expected = errors_by_chance(p, rng, draws=2000)
        assert expected.mean() == pytest.approx(np.mean(drawn), abs=0.003)
        assert np.quantile(expected, 0.975) == pytest.approx(np.quantile(drawn, 0.975), abs=0.006)

    def test_shrink_with_the_square_root_of_the_images(self, rng):
        few, many = (errors_by_chance(apply_temperature(draw(rng, n)[0], 1.0), rng) for n in (100, 10_000))
        assert few.mean() / many.mean() == pytest.approx(10, rel=0.1)


@pytest.mark.parametrize("weighted", ["", "weighted_"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_proper_scores_equal_scikit_learn(case, weighted):
    p, labels = np.array(case["probabilities"]), np.array(case["labels"])
    weights = np.array(case["weights"]) if weighted else None
    likelihood = negative_log_likelihood(p, labels, weights)
    assert likelihood == pytest.approx(case[weighted + "log_loss"], abs=1e-12)
    assert brier_score(p, labels, weights) == pytest.approx(case[weighted + "brier_score"], abs=1e-12)


class TestTemperature:
    @pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7, 6.0])
    def test_recovers_the_factor_by_which_logits_are_too_large(self, rng, temperature):
        logits, labels = draw(rng, 20_000)
        fitted = fit_temperature(temperature * logits, labels)
        assert fitted == pytest.approx(temperature, rel=0.03)
        assert fitted == pytest.approx(temperature * fit_temperature(logits, labels), rel=1e-9)

    def test_is_the_minimum_of_the_negative_log_likelihood(self, rng):
        logits, labels = draw(rng, 300)
        best = fit_temperature(3 * logits, labels)
        loss = [
            negative_log_likelihood(apply_temperature(3 * logits, t), labels)
            for t in (best, 0.99 * best, 1.01 * best)
        ]
        assert loss[0] < min(loss[1:])

    def test_takes_a_few_steps_of_newton(self, rng, monkeypatch):
        logits, labels = draw(rng, 300)
        calls = []
        derivatives = calibration._derivatives
        monkeypatch.setattr(calibration, "_derivatives", lambda *a: calls.append(a) or derivatives(*a))
        fit_temperature(3 * logits, labels)
        assert len(calls) < 12  # bisection alone takes 40

    def test_of_log_probabilities_is_that_of_their_logits(self, rng):
        logits, labels = draw(rng, 300)
        p = apply_temperature(logits, 1.0)
        assert fit_temperature(np.log(p), labels) == pytest.approx(fit_temperature(logits, labels))

    def test_does_not_change_the_answer(self, rng):
        logits, _ = draw(rng, 100)
        p = apply_temperature(logits, 3.0)
        np.testing.assert_array_equal(p.argmax(axis=1), logits.argmax(axis=1))
        np.testing.assert_allclose(p.sum(axis=1), 1)

    def test_survives_large_logits(self):
        p = apply_temperature(np.array([[1000.0, 999.0, -1000.0]]), 1.0)
        np.testing.assert_allclose(p, [[0.7310586, 0.2689414, 0]], atol=1e-7)
        fitted = fit_temperature(np.array([[900.0, 0.0]] * 3), np.array([0, 0, 1]))
        assert 0.05 <= fitted <= 20

    def test_stays_in_its_limits_where_there_is_no_minimum(self):
        right, wrong = np.array([[3.0, 0.0], [0.0, 2.0]]), np.array([[0.0, 3.0], [2.0, 0.0]])
        assert fit_temperature(right, np.array([0, 1])) == pytest.approx(0.05)
        assert fit_temperature(wrong, np.array([0, 1])) == pytest.approx(20)
        assert 0.05 <= fit_temperature(np.zeros((2, 2)), np.array([0, 1])) <= 20  # all are equal

    @pytest.mark.parametrize("logits", [np.zeros((0, 3)), np.array([[np.nan, 0.0]]), np.zeros((2, 3))])
    def test_what_cannot_be_fitted_is_refused(self, logits):
        with pytest.raises(ValueError, match="fit_temperature"):
            fit_temperature(logits, np.zeros(min(len(logits), 1), int))

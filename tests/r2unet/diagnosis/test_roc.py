"""ROC curve, AUC and average precision, against scikit-learn's numbers and examples computed by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from r2unet.diagnosis.roc import (
    auc,
    average_precision,
    mean_of_defined,
    roc_counts,
    roc_curve,
    sensitivity_at,
    specificity_at,
)

# Stored by store_scores.py.
CASES = json.loads(Path(__file__).with_name("stored_scores.json").read_text())["scikit-learn"]


def counts(scores, positive, weights=None):
    return roc_counts(np.array(scores, float), np.array(positive, bool), weights)


def stored_counts(case, k, weighted=False):
    p, labels = np.array(case["probabilities"]), np.array(case["labels"])
    return roc_counts(p[:, k], labels == k, np.array(case["weights"]) if weighted else None)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
class TestEqualsScikitLearn:
    @pytest.mark.parametrize("weighted", ["", "weighted_"])
    @pytest.mark.parametrize("metric", [auc, average_precision])
    def test_auc_and_average_precision(self, case, metric, weighted):
        for k, expected in enumerate(case[weighted + metric.__name__]):
            value = metric(stored_counts(case, k, bool(weighted)))
            assert value == pytest.approx(np.nan if expected is None else expected, abs=1e-12, nan_ok=True)

    def test_roc_curve(self, case):
        for k, *expected in case["roc_curves"]:
            ranked = stored_counts(case, k)
            fpr, tpr = roc_curve(ranked)
            assert (fpr[0], tpr[0], ranked.thresholds[0]) == (0, 0, np.inf)
            for values, stored in zip((fpr, tpr, ranked.thresholds), expected, strict=True):
                np.testing.assert_allclose(values[1:], stored, atol=1e-12)


class TestAuc:
    @pytest.mark.parametrize(
        "scores, positive, expected",
        [
            ([0.9, 0.8, 0.3, 0.1], [1, 1, 0, 0], 1),
            ([0.9, 0.8, 0.3, 0.1], [0, 0, 1, 1], 0),
            ([0.9, 0.8, 0.3, 0.1], [1, 0, 1, 0], 3 / 4),  # of four pairs one is in the wrong order
            ([0.5, 0.5, 0.5], [1, 0, 0], 1 / 2),
            ([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0], 3.5 / 4),  # one of four pairs is a tie
        ],
    )
    def test_is_the_share_of_pairs_in_the_right_order(self, scores, positive, expected):
        assert auc(counts(scores, positive)) == pytest.approx(expected)

    def test_equals_the_rank_sum_of_mann_and_whitney(self, rng):
        scores, positive = rng.integers(0, 12, 80), rng.random(80) < 0.3  # many ties
        ranks = [(np.sum(scores < s) + np.sum(scores <= s) + 1) / 2 for s in scores]  # ties share their mean
        p, n = positive.sum(), (~positive).sum()
        u = np.sum(np.array(ranks)[positive]) - p * (p + 1) / 2
        assert auc(counts(scores, positive)) == pytest.approx(u / (p * n), abs=1e-12)

    def test_does_not_depend_on_an_increasing_function(self, rng):
        scores, positive = rng.random(60), rng.random(60) < 0.4
        assert auc(counts(np.exp(5 * scores), positive)) == auc(counts(scores, positive))


def test_average_precision_by_hand():
    # Recall rises by 1/2 at the first image (precision 1/1) and by 1/2 at the third (precision 2/3).
    assert average_precision(counts([0.9, 0.8, 0.7, 0.1], [1, 0, 1, 0])) == pytest.approx((1 + 2 / 3) / 2)
    # Three images enter together: recall rises from 0 to 1 at precision 1/3.
    assert average_precision(counts([0.5, 0.5, 0.5], [1, 0, 0])) == pytest.approx(1 / 3)


class TestOperatingPoints:
    # (sensitivity, specificity) as the threshold falls: (1/2, 1), (1/2, 2/3), (1, 2/3), (1, 1/3), (1, 0)
    EXAMPLE = counts([0.9, 0.8, 0.7, 0.6, 0.5], [1, 0, 1, 0, 0])

    @pytest.mark.parametrize(
        "specificity, expected", [(1, 1 / 2), (0.7, 1 / 2), (2 / 3, 1), (0.5, 1), (0, 1)]
    )
    def test_sensitivity_at_a_specificity(self, specificity, expected):
        assert sensitivity_at(self.EXAMPLE, specificity) == pytest.approx(expected)

    @pytest.mark.parametrize("sensitivity, expected", [(1, 2 / 3), (0.6, 2 / 3), (0.5, 1), (0, 1)])
    def test_specificity_at_a_sensitivity(self, sensitivity, expected):
        assert specificity_at(self.EXAMPLE, sensitivity) == pytest.approx(expected)

    def test_the_curve_is_not_interpolated(self):
        tied = counts([0.5, 0.5], [1, 0])  # only (0, 1) and (1, 0) can be reached
        assert sensitivity_at(tied, 0.9) == 0
        assert specificity_at(tied, 0.1) == 0

    @pytest.mark.parametrize("tens", range(1, 40))
    def test_a_specificity_is_reached_whatever_its_rounding(self, tens):
        """Of ten negatives for each positive, exactly one tenth scores higher than all positives."""
        negatives = np.repeat([2.0, 0.0], [tens, 9 * tens])
        ranked = counts(np.append(negatives, np.ones(3)), np.append(np.zeros(10 * tens), np.ones(3)))
        assert sensitivity_at(ranked, 0.9) == 1


@pytest.mark.parametrize("metric", [auc, average_precision, lambda c: sensitivity_at(c, 0.9)])
@pytest.mark.parametrize("positive", [[1, 1], [0, 0]])
def test_one_class_alone_is_undefined(metric, positive):
    assert np.isnan(metric(counts([0.3, 0.6], positive)))


def test_a_weight_counts_an_image_several_times(rng):
    scores, positive, weights = rng.integers(0, 9, 40), rng.random(40) < 0.4, rng.integers(0, 4, (5, 40))
    together = counts(scores, positive, weights)
    for metric in (
        auc,
        average_precision,
        lambda c: sensitivity_at(c, 0.8),
        lambda c: specificity_at(c, 0.8),
    ):
        repeated = [metric(counts(np.repeat(scores, w), np.repeat(positive, w))) for w in weights]
        np.testing.assert_allclose(metric(together), repeated, atol=1e-12)


def test_undefined_values_are_left_out_of_a_mean():
    values = np.array([[0.2, np.nan, 0.4], [np.nan, np.nan, np.nan]])
    np.testing.assert_allclose(mean_of_defined(values), [0.3, np.nan])


@pytest.mark.parametrize(
    "scores, positive, weights",
    [
        ([], [], None),
        ([0.1, np.nan], [1, 0], None),
        ([0.1, 0.2], [1], None),
        ([0.1, 0.2], [1, 0], np.ones(3)),
    ],
)
def test_what_cannot_be_ranked_is_refused(scores, positive, weights):
    with pytest.raises(ValueError, match="roc_counts"):
        counts(scores, positive, weights)

"""The confusion matrix and the metrics of a decision, against scikit-learn and by hand."""

import numpy as np
import pytest

from r2unet.diagnosis.decisions import (
    accuracy,
    balanced_accuracy,
    confusion_matrix,
    decide,
    sensitivities,
    specificities,
)
from tests.r2unet.diagnosis.test_roc import CASES

LABELS = np.array([0, 0, 0, 0, 1, 1])
DECISIONS = np.array([0, 0, 0, 1, 1, 0])
MATRIX = np.array([[3, 1, 0], [1, 1, 0], [0, 0, 0]])  # a third class does not occur


@pytest.mark.parametrize("weighted", ["", "weighted_"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_equals_scikit_learn(case, weighted):
    weights = np.array(case["weights"]) if weighted else None
    decisions = decide(np.array(case["probabilities"]))
    matrix = confusion_matrix(np.array(case["labels"]), decisions, 4, weights)
    np.testing.assert_array_equal(matrix, case[weighted + "confusion"])
    assert accuracy(matrix) == pytest.approx(case[weighted + "accuracy"], abs=1e-12)
    assert balanced_accuracy(matrix) == pytest.approx(case[weighted + "balanced_accuracy"], abs=1e-12)


def test_by_hand():
    np.testing.assert_array_equal(confusion_matrix(LABELS, DECISIONS, 3), MATRIX)
    assert accuracy(MATRIX) == 4 / 6
    np.testing.assert_allclose(sensitivities(MATRIX), [3 / 4, 1 / 2, np.nan])
    np.testing.assert_allclose(specificities(MATRIX), [1 / 2, 3 / 4, 1])
    assert balanced_accuracy(MATRIX) == (3 / 4 + 1 / 2) / 2


def test_a_class_that_all_images_have_has_no_specificity():
    np.testing.assert_allclose(specificities(np.array([[2, 1], [0, 0]])), [np.nan, 2 / 3])


def test_always_the_most_frequent_class_is_accurate_but_not_balanced():
    labels = np.repeat(np.arange(7), [67, 11, 11, 5, 3, 2, 1])
    matrix = confusion_matrix(labels, np.zeros(100, int), 7)
    assert accuracy(matrix) == 0.67 and balanced_accuracy(matrix) == pytest.approx(1 / 7)


def test_dividing_by_the_prior_favours_rare_classes():
    p = np.array([[0.6, 0.4], [0.9, 0.1], [0.5, 0.5]])
    assert decide(p).tolist() == [0, 0, 0]  # the first of equally probable classes
    assert decide(p, np.array([0.8, 0.2])).tolist() == [1, 0, 1]  # .75 < 2, 1.125 > .5, .625 < 2.5


@pytest.mark.parametrize("prior", [[0.5, 0.5], [1, 0, 0], [0.5, 0.6, -0.1]])
def test_a_prior_without_a_positive_share_for_each_class_is_refused(prior):
    with pytest.raises(ValueError, match="prior"):
        decide(np.full((2, 3), 1 / 3), np.array(prior))


@pytest.mark.parametrize("wrong", [-1, 3])
def test_a_class_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match=r"are not in 0\.\.2"):
        confusion_matrix(np.array([0, wrong]), np.array([0, 1]), 3)

"""Metrics of a decision, one class for each image, all computed from the confusion matrix.

Entry (i, j) of the matrix C counts the images of class i that were called class j: rows are the truth.

    accuracy                = sum of C_ii / sum of C
    sensitivity of class k  = C_kk / sum_j C_kj                   its recall
    specificity of class k  = share of the other classes' images that were not called k
    balanced accuracy       = mean sensitivity over the classes that occur

**Accuracy misleads where one class dominates.** Two thirds of HAM10000 are nevi, so the answer "nevus" for
every image has an accuracy of 0.67. Its balanced accuracy is 1/7. The ISIC challenge of 2018 therefore ranks
by balanced accuracy.

**Two decisions.** The most probable class, argmax_k p_k, has the highest expected accuracy if the
probabilities are right. Balanced accuracy counts an image of class k with weight 1 / prior_k, because it
divides by the number of images of the class. Its expectation is therefore highest for argmax_k p_k / prior_k.
This decision names rare classes more often, which lowers accuracy. So a report says which decision a number
belongs to.
"""

from __future__ import annotations

import numpy as np

from r2unet.diagnosis.roc import mean_of_defined, ratio


def decide(probabilities: np.ndarray, prior: np.ndarray | None = None) -> np.ndarray:
    """Choose a class for each image: probabilities (N, K) -> (N,) int, argmax p or argmax p / prior (K,).

    The first of equally good classes is chosen. Raises ValueError for a prior that is not positive.
    """
    if prior is None:
        return np.argmax(probabilities, axis=1)
    prior = np.asarray(prior, dtype=np.float64)
    if prior.shape != probabilities.shape[1:] or not np.all(prior > 0):
        raise ValueError(
            f"decide: the prior {prior} must be the positive shares of {probabilities.shape[1]} classes"
        )
    return np.argmax(probabilities / prior, axis=1)


def confusion_matrix(
    labels: np.ndarray, decisions: np.ndarray, classes: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """Count pairs of true and chosen class: labels (N,), decisions (N,), weights (..., N) -> (..., K, K).

    Rows are the truth. Counts are float64, because weights may be fractions. Raises ValueError for values
    outside 0..classes - 1.
    """
    both = np.concatenate((labels, decisions))
    if both.min() < 0 or both.max() >= classes:
        raise ValueError(f"confusion_matrix: classes {both.min()}..{both.max()} are not in 0..{classes - 1}")
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=np.float64)
    cells = np.eye(classes**2)[labels * classes + decisions]  # (N, K K) one-hot
    return (weights @ cells).reshape(*weights.shape[:-1], classes, classes)


def accuracy(matrix: np.ndarray) -> np.ndarray:
    """Share of the images that are right: (..., K, K) -> (...) in [0, 1]."""
    return ratio(np.trace(matrix, axis1=-2, axis2=-1), matrix.sum(axis=(-2, -1)))


def sensitivities(matrix: np.ndarray) -> np.ndarray:
    """Recall of every class: (..., K, K) -> (..., K) in [0, 1], nan for a class without images."""
    return ratio(np.diagonal(matrix, axis1=-2, axis2=-1), matrix.sum(axis=-1))


def specificities(matrix: np.ndarray) -> np.ndarray:
    """Share of the other images that were not called this class: (..., K, K) -> (..., K), nan if none."""
    others = matrix.sum(axis=(-2, -1))[..., np.newaxis] - matrix.sum(axis=-1)
    false_positives = matrix.sum(axis=-2) - np.diagonal(matrix, axis1=-2, axis2=-1)
    return ratio(others - false_positives, others)


def balanced_accuracy(matrix: np.ndarray) -> np.ndarray:
    """Mean recall over the classes that occur: (..., K, K) -> (...) in [0, 1]."""
    return mean_of_defined(sensitivities(matrix))

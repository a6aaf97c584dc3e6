"""Two trivial classifiers. The scores of a diagnosis network only mean something in comparison with theirs.

**Class shares** answers every image with the shares of the classes in the training set, so it always chooses
the largest class: "always nevus". Its accuracy is the share of that class, 0.67 on HAM10000. Its balanced
accuracy is 1/K, because it recognises one of K classes, and its AUC is 0.5, because it ranks no image above
another.

**Logistic regression** weighs the features of lesion_features.py. With a row x_i of D features followed by
a 1 (for the bias), a matrix W (K, D + 1), scores s_i = W x_i and the softmax

    p_ik = exp(s_ik) / sum_j exp(s_ij)

it minimises the mean cross-entropy, each image weighted by the weight v_i of its class, plus a penalty on the
weights, not on the biases b:

    f(W) = 1/V sum_i v_i (-log p_i,y_i)  +  l2/2 |W without b|^2,        V = sum_i v_i

**Gradient.** -log p_iy = log sum_j exp(s_ij) - s_iy has the derivative p_ik - [k = y_i] with respect to s_ik,
and s_ik has the derivative x_i with respect to row k of W. So for row k

    g_k = 1/V sum_i v_i (p_ik - [k = y_i]) x_i  +  l2 W_k (with 0 in place of the bias)

**Hessian.** The softmax has the derivative dp_ik/ds_im = p_ik ([k = m] - p_im). Differentiating g_k with
respect to row m gives a block of D + 1 by D + 1 numbers:

    H_km = 1/V sum_i v_i p_ik ([k = m] - p_im) x_i x_i^T  +  [k = m] l2 diag(1, ..., 1, 0)

The matrix p_k ([k = m] - p_m) is the covariance of a one-hot vector, so f is convex and has no local minima.

**Newton's method** minimises the quadratic approximation of f: W <- W - H^-1 g. Adding the same number to all
K biases changes no probability, so H has exactly one direction without curvature, r, with equal values for
the biases and 0 elsewhere. The gradient is orthogonal to r, because the numbers p_ik - [k = y_i] of an image
sum to 0. Therefore H + r r^T is invertible and gives the same step, without a component along r: the sum of
the biases stays 0. Far from the minimum a full step may be too long, so it is halved until f decreases by
a fraction of what the slope promises (Armijo's rule). Near the minimum every step doubles the number of
correct digits. With l2 > 0 the minimum is unique, so a fit needs no random numbers.

Features are standardised with the mean and the standard deviation of the training set. Otherwise the penalty
would depend on their units. Results equal those of scikit-learn's LogisticRegression with C = 1 / (l2 V).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MAXIMUM_STEPS = 100  # Newton's method needs about 10; more than this is an error
TOLERANCE = 1e-20  # of g^T H^-1 g, twice the decrease that is left: differences below are rounding errors


@dataclass(frozen=True)
class ClassShares:
    """The same probabilities for every image: shares (K,), those of the training set."""

    shares: np.ndarray

    @classmethod
    def fit(cls, labels: np.ndarray, classes: int) -> "ClassShares":
        """Count the classes: labels (N,) with values 0..K-1. Raises ValueError for others, or if N is 0."""
        _check_labels(labels, classes)
        return cls(np.bincount(labels, minlength=classes) / len(labels))

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Ignore the features of N images, (N, ...) -> (N, K) equal rows."""
        return np.tile(self.shares, (len(features), 1))


@dataclass(frozen=True)
class LogisticRegression:
    """Multinomial logistic regression: softmax(weights (K, D) @ standardised features (D,) + biases (K,))."""

    mean: np.ndarray  # (D,) of the training features
    scale: np.ndarray  # (D,) their standard deviations
    weights: np.ndarray  # (K, D)
    biases: np.ndarray  # (K,)

    @classmethod
    def fit(
        cls,
        features: np.ndarray,
        labels: np.ndarray,
        classes: int,
        l2: float = 1e-3,
        class_weights: Sequence[float] | None = None,
    ) -> "LogisticRegression":
        """Fit features (N, D) to labels (N,) with values 0..classes - 1; class_weights (K,) are 1 by default.

        A class without training images gets the probability 0, the limit of its bias. A feature that is
        constant has no influence. Raises ValueError for invalid shapes or values, and for l2 <= 0.
        """
        features = np.asarray(features, dtype=np.float64)
        class_weights = np.ones(classes) if class_weights is None else np.asarray(class_weights, np.float64)
        _check_fit(features, labels, classes, l2, class_weights)
        mean, deviation = features.mean(axis=0), features.std(axis=0)
        # Rounding errors give a constant column a tiny deviation; dividing by it would amplify them.
        constant = deviation <= 1e-12 * np.abs(mean)
        scale = np.where(constant, 1.0, deviation)
        rows = _append_one(np.where(constant, 0.0, (features - mean) / scale))
        present, targets = np.unique(labels, return_inverse=True)  # K' <= K classes, numbered 0..K'-1
        image_weights = class_weights[labels]  # (N,) v_i
        fitted = _minimise(rows, targets, image_weights / image_weights.sum(), l2)  # (K', D + 1)
        weights, biases = np.zeros((classes, features.shape[1])), np.full(classes, -np.inf)
        weights[present], biases[present] = np.where(constant, 0.0, fitted[:, :-1]), fitted[:, -1]
        return cls(mean, scale, weights, biases)

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Predict: features (N, D), in the units of the training features -> (N, K), rows sum to 1."""
        features = np.asarray(features, dtype=np.float64)
        if features.ndim != 2 or features.shape[1] != len(self.mean):
            raise ValueError(
                f"LogisticRegression: features {features.shape} must be (N, {len(self.mean)}), "
                "the same columns as in training"
            )
        return _softmax((features - self.mean) / self.scale @ self.weights.T + self.biases)


def objective(
    weights: np.ndarray, rows: np.ndarray, labels: np.ndarray, image_weights: np.ndarray, l2: float
) -> tuple[float, np.ndarray, np.ndarray]:
    """Value of f, its gradient (K, D + 1) and its Hessian (K, D + 1, K, D + 1) at weights (K, D + 1).

    Rows (N, D + 1) end with a 1, labels (N,) are 0..K-1, and image_weights (N,) are v_i / V.
    """
    classes, columns = weights.shape
    probabilities = _softmax(rows @ weights.T)  # (N, K)
    penalty = l2 * np.append(np.ones(columns - 1), 0.0)  # (D + 1,): not on the bias
    errors = image_weights[:, None] * (probabilities - np.eye(classes)[labels])  # (N, K)
    gradient = errors.T @ rows + penalty * weights
    hessian = np.empty((classes, columns, classes, columns))
    for k in range(classes):
        for m in range(k + 1):
            curvature = image_weights * probabilities[:, k] * ((k == m) - probabilities[:, m])  # (N,)
            hessian[k, :, m] = (curvature[:, None] * rows).T @ rows + (k == m) * np.diag(penalty)
            hessian[m, :, k] = hessian[k, :, m]  # H_mk = H_km
    return _value(weights, rows, labels, image_weights, l2), gradient, hessian


def _value(
    weights: np.ndarray, rows: np.ndarray, labels: np.ndarray, image_weights: np.ndarray, l2: float
) -> float:
    """Value of f, from log sum exp(s) - s_y: the logarithm of p_y itself may be that of an underflowed 0."""
    scores = rows @ weights.T  # (N, K)
    largest = scores.max(axis=1)
    log_sums = largest + np.log(np.exp(scores - largest[:, None]).sum(axis=1))
    losses = log_sums - scores[np.arange(len(labels)), labels]
    return float(image_weights @ losses + l2 / 2 * np.sum(weights[:, :-1] ** 2))


def _minimise(rows: np.ndarray, labels: np.ndarray, image_weights: np.ndarray, l2: float) -> np.ndarray:
    """Newton's method from 0: rows (N, D + 1), labels (N,), image_weights (N,) -> weights (K, D + 1)."""
    weights = np.zeros((labels.max() + 1, rows.shape[1]))
    flat = np.zeros(weights.shape)  # r: the direction without curvature
    flat[:, -1] = 1.0
    for _ in range(MAXIMUM_STEPS):
        value, gradient, hessian = objective(weights, rows, labels, image_weights, l2)
        matrix = hessian.reshape(weights.size, weights.size) + np.outer(flat, flat)
        step = np.linalg.solve(matrix, gradient.reshape(-1)).reshape(weights.shape)
        slope = float(np.sum(gradient * step))  # g^T H^-1 g: how fast f decreases along the step
        if slope <= TOLERANCE:
            return weights
        length = 1.0
        limit = value + 1e-14 * max(1.0, value)  # the last steps change f by less than its rounding errors
        while _value(weights - length * step, rows, labels, image_weights, l2) > limit - length * slope / 10:
            length /= 2
        weights = weights - length * step
    raise ValueError(
        f"LogisticRegression: no minimum after {MAXIMUM_STEPS} steps of Newton's method; increase l2 ({l2})"
    )


def _softmax(scores: np.ndarray) -> np.ndarray:
    """Turn scores (N, K) into probabilities; subtracting the maximum avoids an overflow of exp."""
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def _append_one(features: np.ndarray) -> np.ndarray:
    return np.hstack([features, np.ones((len(features), 1))])  # (N, D) -> (N, D + 1)


def _check_labels(labels: np.ndarray, classes: int) -> None:
    if labels.ndim != 1 or labels.size == 0 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels {labels.shape} {labels.dtype} must be integers (N,), with N of at least 1")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels from {labels.min()} to {labels.max()} must be within 0..{classes - 1}")


def _check_fit(
    features: np.ndarray, labels: np.ndarray, classes: int, l2: float, class_weights: np.ndarray
) -> None:
    _check_labels(labels, classes)
    if features.ndim != 2 or len(features) != len(labels):
        raise ValueError(
            f"LogisticRegression: features {features.shape} must be (N, D), with a row for each of the "
            f"{len(labels)} labels"
        )
    if not np.isfinite(features).all():
        row, column = np.argwhere(~np.isfinite(features))[0]
        raise ValueError(f"LogisticRegression: features[{row}, {column}] is {features[row, column]}")
    if not l2 > 0:
        raise ValueError(f"LogisticRegression: l2 = {l2} must be positive, otherwise f may have no minimum")
    if class_weights.shape != (classes,) or not (np.isfinite(class_weights) & (class_weights > 0)).all():
        raise ValueError(f"LogisticRegression: class_weights must be {classes} positive numbers")

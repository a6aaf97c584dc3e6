"""Exercises of chapter 9, docs/9-from-mask-to-diagnosis.md.

Fill in the functions. `make exercise N=9` says which are right.
"""

import numpy as np


def auc(scores: np.ndarray, malignant: np.ndarray) -> float:
    """Return the area under the ROC curve, from pairs of images.

    scores and malignant, which is boolean, are (N,), and there are images of both kinds. The area is the
    probability that a random malignant image scores higher than a random benign one. Decide how a tie counts:
    a network that gives the same score to every image knows nothing, and nothing is worth 0.5.

    Chapter 9, "AUC: the quality of a ranking".
    """
    raise NotImplementedError("exercise 9.1")


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the T > 0 for which softmax(logits / T) has the smallest negative log likelihood.

    logits is (N, K), labels is (N,), the true class of each image. The negative log likelihood is the mean of
    -log p of the true class. Trying many T between 0.1 and 10 is good enough: two correct digits are asked
    for. Subtract the largest logit of each row first, because exp overflows.

    Chapter 9, "Calibration".
    """
    raise NotImplementedError("exercise 9.2")


def without_weights(p: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the probabilities that a network trained without class weights would have learned.

    p is (N, K), the probabilities of a network whose loss had the weight w_k for class k, and weights is
    (K,). The network learned p_k = w_k q_k / sum_j w_j q_j for the true q. Return q, (N, K). Its rows add up
    to 1.

    Chapter 9, "Imbalance: why accuracy misleads".
    """
    raise NotImplementedError("exercise 9.3")

"""Checks of the exercises of chapter 4, docs/4-pooling-and-norms.md."""

import numpy as np

from exercises.gradients import check_gradient
from minidl import Tensor
from minidl.nn import BatchNorm2d


def rms_norm(x):
    return x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-5)


def check_1(answers):
    x = np.random.default_rng(5).normal(size=(3, 6)) + 1.0
    check_gradient(rms_norm, answers.rms_norm_backward, x)


def check_2(answers):
    dy = np.array([[10.0, 20.0, 30.0]])
    for x, expected in (
        ([[1.0, 5.0, 4.0, 2.0, 0.0, -1.0]], [[0.0, 10.0, 20.0, 0.0, 30.0, 0.0]]),
        ([[3.0, 3.0, 0.0, 0.0, -2.0, -2.0]], [[10.0, 0.0, 20.0, 0.0, 30.0, 0.0]]),
    ):
        found = answers.max_pool_backward(np.array(x), dy)
        assert np.array_equal(found, expected), f"x {x[0]}, dy {dy[0]}: dx is {expected[0]}, you have {found}"
    x = np.random.default_rng(6).permutation(np.arange(24.0)).reshape(3, 8)
    check_gradient(lambda x: np.maximum(x[:, 0::2], x[:, 1::2]), answers.max_pool_backward, x)


def check_3(answers):
    rng = np.random.default_rng(7)
    batches = [2.0 + 3.0 * rng.normal(size=(2, 3, 2, 2)) for _ in range(5)]
    norm = BatchNorm2d(3).to(np.float64)
    for batch in batches:
        norm(Tensor(batch))
    found = answers.running_statistics(batches)
    for name, mine, expected in zip(("mean", "variance"), found, norm.statistics(), strict=True):
        assert np.allclose(mine, expected), f"the running {name} of BatchNorm2d: {expected}, yours: {mine}"

"""Checks of the exercises of chapter 8, docs/8-from-photo-to-mask.md."""

import numpy as np

from r2unet.scores.metrics import METRICS, confusion, summarize


def check_1(answers):
    rng = np.random.default_rng(16)
    empty = np.zeros((6, 7), bool)
    for _ in range(3):
        prediction, truth = rng.random((2, 6, 7)) < 0.4
        expected, found = METRICS["dice"](confusion(prediction, truth)), answers.dice(prediction, truth)
        assert np.isclose(found, expected), f"two random masks: {expected:.3f} expected, you have {found:.3f}"
    found = answers.dice(empty, truth)
    assert found == 0, f"a missed lesion scores 0, not {found}"
    with np.errstate(all="ignore"):
        found = answers.dice(empty, empty)
    assert found == 1, f"no lesion, none found: you score {found}. Was the prediction right or wrong?"


def check_2(answers):
    rng = np.random.default_rng(17)
    a = rng.random(50)
    b = a - 0.02 + 0.01 * rng.normal(size=50)
    low, high = answers.difference_interval(a, b, np.random.default_rng(18))
    expected = 2 * 1.96 * (a - b).std() / np.sqrt(50)
    mean = (a - b).mean()
    assert low < mean < high, f"the mean difference {mean:.4f} is outside {low:.4f} to {high:.4f}"
    assert high - low < 1.3 * expected, f"width {high - low:.4f}; that of the differences is {expected:.4f}"
    assert high - low > 0.7 * expected, f"width {high - low:.4f} is too narrow: {expected:.4f} expected"


def check_3(answers):
    pairs = answers.flattering_masks()
    for prediction, truth in pairs:
        assert prediction.shape == truth.shape == (20, 20), "all masks are (20, 20)"
        assert prediction.dtype == truth.dtype == bool, "all masks are boolean"
        assert truth.any(), "every truth has a lesion"
    summary = summarize([confusion(p, t) for p, t in pairs], np.random.default_rng(0))
    mean, pooled = summary["mean"]["jaccard"], summary["pooled"]["jaccard"]
    assert pooled > 0.9 and mean < 0.3, f"the pooled Jaccard is {pooled:.3f}, the mean {mean:.3f}"

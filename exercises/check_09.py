"""Checks of the exercises of chapter 9, docs/9-from-mask-to-diagnosis.md."""

import numpy as np

from r2unet.diagnosis import calibration, roc


def check_1(answers):
    rng = np.random.default_rng(19)
    for name, scores in (
        ("different scores", rng.normal(size=30)),
        ("scores with many ties", rng.integers(0, 4, 30).astype(float)),
        ("equal scores", np.full(30, 0.7)),
    ):
        malignant = np.arange(30) < 9
        expected, found = float(roc.auc(roc.roc_counts(scores, malignant))), answers.auc(scores, malignant)
        assert np.isclose(found, expected), f"{name}: the area is {expected:.4f}, you have {found:.4f}"


def check_2(answers):
    rng = np.random.default_rng(20)
    z = rng.normal(scale=1.5, size=(2000, 3))
    p = calibration.apply_temperature(z, 1.0)
    labels = (p.cumsum(axis=1) > rng.random((2000, 1))).argmax(axis=1)  # class k with probability p_k
    for name, logits in (
        ("too confident", 2.0 * z),
        ("not confident enough", 0.5 * z),
        ("about 5000", 2.0 * z + 5000.0),  # exp overflows without care
    ):
        expected = calibration.fit_temperature(logits, labels)
        with np.errstate(all="ignore"):
            found = answers.temperature(logits, labels)
        assert abs(found / expected - 1) < 0.02, (
            f"logits that are {name}: T is {expected:.2f}, not {found:.2f}"
        )


def check_3(answers):
    rng = np.random.default_rng(21)
    q = rng.dirichlet(np.ones(3), size=5)
    weights = np.array([0.5, 1.0, 8.0])
    learned = q * weights / (q * weights).sum(axis=1, keepdims=True)
    found = answers.without_weights(learned, weights)
    assert np.allclose(np.sum(found, axis=1), 1.0), f"the rows add up to {np.sum(found, axis=1)} instead of 1"
    assert np.allclose(found, q), (
        f"true {q[0].round(3)}, learned {learned[0].round(3)}, yours {found[0].round(3)}"
    )

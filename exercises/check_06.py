"""Checks of the exercises of chapter 6, docs/6-the-u.md."""

import numpy as np

from exercises.gradients import check_gradient


def check_1(answers):
    rng = np.random.default_rng(12)
    s, u = rng.normal(size=(2, 3, 4, 5))
    other_s, other_u = answers.indistinguishable(s.copy(), u.copy())
    for name, array in (("skip", other_s), ("up-sampled image", other_u)):
        assert np.shape(array) == s.shape, f"your {name} has the shape {np.shape(array)} instead of {s.shape}"
    for _ in range(3):
        w, w1, w2 = rng.normal(size=(3, 6, 3))  # 1x1 convolutions: (OC, C)
        change = [np.einsum("oc,chw->ohw", w, b - a) for w, a, b in ((w1, s, other_s), (w2, u, other_u))]
        added = np.einsum("oc,chw->ohw", w, (other_s + other_u) - (s + u))
        assert abs(added).max() < 1e-9, f"the decoder that adds sees a difference of {abs(added).max():.2g}"
        assert abs(sum(change)).max() > 1e-6, "the decoder that concatenates sees no difference either"


def dice_loss(p, t):
    intersection, total = (p * t).sum(axis=(1, 2)), (p + t).sum(axis=(1, 2))
    return np.asarray((1.0 - (2.0 * intersection + 1.0) / (total + 1.0)).mean())


def check_2(answers):
    rng = np.random.default_rng(13)
    p, t = rng.random((3, 4, 5)), (rng.random((3, 4, 5)) < 0.4).astype(float)
    t[1] = 0.0
    shape = np.shape(answers.dice_gradient(p, t))
    assert shape == p.shape, f"the gradient has the shape {shape}, and p has {p.shape}"
    check_gradient(lambda p: dice_loss(p, t), lambda p, dy: dy * answers.dice_gradient(p, t), p)


def check_3(answers):
    with np.errstate(all="ignore"):
        for logit, mask, expected in (
            (0.0, 1.0, 0.6931471805599453),
            (2.0, 0.0, 2.1269280110429727),
            (-2.0, 0.0, 0.1269280110429725),
            (-1000.0, 1.0, 1000.0),
            (1000.0, 0.0, 1000.0),
            (1000.0, 1.0, 0.0),
            (-40.0, 0.0, 4.248354255291589e-18),
        ):
            found = answers.cross_entropy(np.array([[logit]]), np.array([[mask]]))
            assert np.isclose(found, expected, rtol=1e-9, atol=1e-30), (
                f"logit {logit:.0f}, mask {mask:.0f}: the loss is {expected:.6g}, yours is {found:.6g}"
            )
        both = answers.cross_entropy(np.array([0.0, 1000.0]), np.array([1.0, 0.0]))
        assert np.isclose(both, 500.34657359028), f"the mean of 0.693 and 1000 is not {both:.3f}"

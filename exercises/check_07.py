"""Checks of the exercises of chapter 7, docs/7-training.md."""

import numpy as np

from minidl import Parameter
from minidl.optim import Adam, CosineLR

MIRRORS = slice(None), slice(None, None, -1)  # the order of the rows or columns: as they are, mirrored


def check_1(answers):
    rng = np.random.default_rng(14)
    p = rng.normal(size=4)
    m, v = np.zeros(4), np.zeros(4)
    theirs = Parameter(p.copy())
    adam = Adam([theirs], lr=0.1)
    for t in range(1, 30):
        g = rng.normal(size=4) * np.array([0.01, 1.0, 10.0, 100.0])
        before, expected = p.copy(), theirs.data.copy()
        theirs.grad = g.copy()
        p, m, v = answers.adam_step(p, g, m, v, t, 0.1)  # may write into its inputs
        adam.step()
        expected = theirs.data - expected
        assert np.allclose(p - before, expected, rtol=1e-6), (
            f"step {t}: Adam moves {expected}, you {p - before}"
        )


def check_2(answers):
    for total, warmup in ((100, 10), (7, 0), (20, 5)):
        schedule = CosineLR(Adam([Parameter(np.ones(1))], lr=1.0), total_steps=total, warmup_steps=warmup)
        for step in range(total):
            found, expected = answers.learning_rate(step, total, warmup), schedule.factor(step)
            assert np.isclose(found, expected), (
                f"step {step} of {total}, {warmup} of them warm-up: {expected:.4f}, you have {found:.4f}"
            )


def which_mirror(array, original):
    """Return which of the four mirror images of the original an array is, 0 to 3, or None."""
    mirrored = (original[rows, columns] for rows in MIRRORS for columns in MIRRORS)
    return next((i for i, mirror in enumerate(mirrored) if np.array_equal(mirror, array)), None)


def check_3(answers):
    rng = np.random.default_rng(15)
    mask = np.arange(12).reshape(3, 4)  # every pixel differs, so that a move shows
    image = np.stack([mask, mask + 100, mask + 200], axis=2)  # the channels, too
    counts = [0, 0, 0, 0]
    for _ in range(400):
        turned, outline = answers.flipped(image.copy(), mask.copy(), rng)
        assert turned.shape == image.shape and outline.shape == mask.shape, (
            "a mirror image has the same shape"
        )
        change = which_mirror(turned, image)
        assert change is not None, "the image returned is not a mirror image; each pixel keeps its colour"
        assert which_mirror(outline, mask) is not None, "the mask returned is not a mirror image of the mask"
        assert change == which_mirror(outline, mask), "the image and the mask were mirrored differently"
        counts[change] += 1
    assert all(counts), f"{np.count_nonzero(counts)} different images in 400 draws instead of 4"
    assert min(counts) > 60, f"400 draws gave the images {sorted(counts)} times"

"""Checks of the exercises of chapter 7, docs/7-training.md."""

import numpy as np

from minidl import Parameter
from minidl.optim import Adam, CosineLR


def check_1(answers):
    rng = np.random.default_rng(14)
    p = rng.normal(size=4)
    m = v = np.zeros(4)
    theirs = Parameter(p.copy())
    adam = Adam([theirs], lr=0.1)
    for t in range(1, 30):
        g = rng.normal(size=4) * np.array([0.01, 1.0, 10.0, 100.0])
        before, expected = p, theirs.data.copy()
        p, m, v = answers.adam_step(p, g, m, v, t, 0.1)
        theirs.grad = g
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


def check_3(answers):
    rng = np.random.default_rng(15)
    mask = np.arange(12).reshape(3, 4)  # every pixel differs, so that a move shows
    image = np.repeat(mask[:, :, None], 3, axis=2)
    counts = {}
    for _ in range(400):
        turned, outline = answers.flipped(image.copy(), mask.copy(), rng)
        assert turned.shape == image.shape and outline.shape == mask.shape, (
            "a mirror image has the same shape"
        )
        assert np.array_equal(turned[:, :, 0], outline), "the image and the mask were mirrored differently"
        counts[outline.tobytes()] = counts.get(outline.tobytes(), 0) + 1
    assert len(counts) == 4, f"{len(counts)} different images in 400 draws instead of 4"
    assert min(counts.values()) > 60, f"400 draws gave the images {sorted(counts.values())} times"

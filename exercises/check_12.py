"""Checks of the exercises of chapter 12, docs/12-many-hands.md."""

import numpy as np


def check_1(answers):
    rng = np.random.default_rng(23)
    each = rng.normal(size=(6, 4))  # the gradient of each image
    for counts in ((3, 3), (2, 4), (1, 5), (6, 0), (1, 2, 3)):
        parts = np.split(each, np.cumsum(counts)[:-1])
        gradients = [part.mean(axis=0) if len(part) else np.zeros(4) for part in parts]
        found, expected = answers.whole_gradient(gradients, counts), each.mean(axis=0)
        assert np.allclose(found, expected), f"parts of {counts} images: {expected} expected, yours: {found}"


def check_2(answers):
    rng = np.random.default_rng(24)
    for name, offset in (("constant parts", 0.0), ("random parts", 1.0), ("a large mean", 1e6)):
        parts = [offset + min(offset, 1.0) * rng.normal(size=(n, 3)) + rng.normal(size=3) for n in (2, 5, 9)]
        moments = [np.array([p.mean(axis=0) for p in parts]), np.array([p.var(axis=0) for p in parts])]
        found = answers.joined_moments(*moments, np.array([2, 5, 9]))
        whole = np.concatenate(parts)
        for which, mine, expected in zip(
            ("mean", "variance"), found, (whole.mean(0), whole.var(0)), strict=True
        ):
            assert np.allclose(mine, expected, rtol=1e-6), f"{name}: the {which} is {expected}, yours: {mine}"


def check_3(answers):
    parts = list(np.random.default_rng(25).normal(size=(4, 50)).astype(np.float32))
    sums = answers.all_sums(parts)
    assert len(sums) == 4, f"4 processes compute 4 sums, not {len(sums)}"
    for rank, total in enumerate(sums):
        assert np.allclose(total, sum(parts), rtol=1e-3, atol=1e-6), f"process {rank} has another sum"
        different = np.count_nonzero(total != sums[0])
        assert not different, f"processes 0 and {rank} differ in {different} of 50 numbers"

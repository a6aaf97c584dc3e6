"""The images to draw are chosen by their Jaccard."""

import numpy as np
import pytest

from r2unet.data.sample import Sample
from r2unet.scores.ranking import best_to_worst, best_to_worst_rows, worst

JACCARDS = {f"image {n}": ((n * 7) % 11) / 10 for n in range(11)}


def test_best_to_worst_has_equal_distances_of_rank():
    assert [JACCARDS[name] for name in best_to_worst(JACCARDS, 3)] == [1.0, 0.5, 0.0]
    assert [JACCARDS[name] for name in best_to_worst(JACCARDS, 6)] == [1.0, 0.8, 0.6, 0.4, 0.2, 0.0]


@pytest.mark.parametrize("images", [1, 2, 5])
def test_best_to_worst_returns_all_of_a_few_images(images):
    names = best_to_worst({str(n): -float(n) for n in range(images)}, count=6)
    assert names == [str(n) for n in range(images)]


def test_worst_returns_the_lowest_jaccards_in_descending_order():
    assert [JACCARDS[name] for name in worst(JACCARDS, 3)] == [0.2, 0.1, 0.0]
    assert len(worst(JACCARDS, 12)) == 11


def test_rows_contain_what_plot_overlays_needs():
    eye = np.eye(4, dtype=np.uint8)
    good, bad = (Sample(np.zeros((4, 4, 3), np.uint8), eye, name) for name in ("good", "bad"))
    rows = best_to_worst_rows([(bad, np.ones((4, 4))), (good, np.eye(4))], count=2)
    assert [(row.name, row.jaccard) for row in rows] == [("good", 1.0), ("bad", 0.25)]
    assert rows[1].image is bad.image and rows[1].truth is bad.mask
    assert np.array_equal(rows[1].probability, np.ones((4, 4)))


def test_large_images_are_kept_as_small_as_they_are_drawn():
    """A row for each validation image is kept, until all are ranked."""
    large = Sample(np.zeros((700, 1400, 3), np.uint8), np.ones((700, 1400), np.uint8), "large")
    (row,) = best_to_worst_rows([(large, np.ones((700, 1400), np.float32))], count=1)
    assert row.image.shape == (192, 384, 3) and row.truth.shape == row.probability.shape == (192, 384)

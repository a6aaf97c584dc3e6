"""A report scores the model and the baselines on the same images."""

import os
import weakref
from pathlib import Path

import numpy as np
import pytest

from r2unet.data.isic import find_pairs
from r2unet.data.sample import Sample
from r2unet.scores.baselines import otsu
from r2unet.scores.evaluate import as_table, baseline_warnings, report
from r2unet.scores.metrics import confusion, jaccard
from r2unet.scores.predictions import predict_originals
from r2unet.training.checkpoints import load_model


def sample(mask, name):
    """A black lesion on white skin, exactly where the mask is."""
    mask = np.asarray(mask, np.uint8)
    return Sample(np.where(mask[..., None], 0, 255).astype(np.uint8).repeat(3, axis=2), mask, name)


A = sample([[1, 1, 0, 0], [1, 1, 0, 0]], "a")
B = sample([[1, 0, 0, 0], [0, 0, 0, 0]], "b")


@pytest.fixture
def scores(rng):
    # Two of four lesion pixels of a are found: Jaccard 2/4. On b one pixel too many is found: 1/2.
    found = np.array([[0.9, 0.51, 0.1, 0.5], [0.2, 0.0, 0.0, 0.0]], np.float32)
    return report([(A, found), (B, found)], np.array([[1, 1, 0, 0]] * 2), rng)


class TestReport:
    def test_thresholds_the_model_s_probability_at_one_half(self, scores):
        assert scores["model"]["images"] == 2
        assert scores["model"]["mean"]["jaccard"] == pytest.approx((2 / 4 + 1 / 2) / 2)
        assert scores["model"]["pooled"]["jaccard"] == pytest.approx((2 + 1) / (4 + 2))
        assert scores["model"]["jaccard_by_image"] == {"a": 0.5, "b": 0.5}

    def test_contains_the_baselines_scores(self, scores):
        assert set(scores) == {"model", "all background", "Otsu's threshold", "mean mask"}
        assert scores["all background"]["mean"]["jaccard"] == 0
        assert scores["all background"]["mean"]["accuracy"] == pytest.approx((4 / 8 + 7 / 8) / 2)
        assert scores["Otsu's threshold"]["mean"]["jaccard"] == 1  # black on white
        assert scores["mean mask"]["mean"]["jaccard"] == pytest.approx((1 + 1 / 4) / 2)

    def test_leaves_out_the_mean_mask_if_there_is_none(self, rng):
        assert "mean mask" not in report([(A, np.zeros((2, 4)))], None, rng)

    def test_releases_each_image_after_scoring_it(self, rng):
        images = []

        def predictions():
            for number in range(5):
                s = sample(np.eye(8), f"{number}")
                images.append(weakref.ref(s.image))
                # The loop over this generator may still hold the previous sample.
                assert all(image() is None for image in images[:-2])
                yield s, s.mask.astype(np.float32)
                del s

        report(predictions(), None, rng)
        assert len(images) == 5


class TestWarnings:
    def test_name_every_baseline_that_the_model_does_not_beat(self, scores):
        assert baseline_warnings(scores) == [
            "warning: the model's mean Jaccard 0.5000 does not beat Otsu's threshold (1.0000)",
            "warning: the model's mean Jaccard 0.5000 does not beat mean mask (0.6250)",
        ]

    def test_include_an_equal_baseline(self, scores):
        scores["Otsu's threshold"]["mean"]["jaccard"] = 0.5
        scores["mean mask"]["mean"]["jaccard"] = 0.49
        assert len(baseline_warnings(scores)) == 1


def test_the_table_shows_means_interval_and_pooled_scores(scores):
    lines = as_table(scores).splitlines()
    assert lines[0] == "mean over 2 images"
    (mean, pooled) = [line.split() for line in lines if line.startswith("model")]
    assert mean[1] == "0.5000" and mean[-3:] == ["0.5000", "to", "0.5000"]
    assert pooled[1] == "0.5000" and len(pooled) == 6  # thresholded Jaccard has no pooled version
    assert len([line for line in lines if line.startswith("Otsu's threshold")]) == 2


@pytest.mark.skipif("ISIC_ROOT" not in os.environ, reason="set ISIC_ROOT to a folder of ISIC 2017 images")
def test_real_images_are_scored_at_their_original_size(trained, rng):
    root = Path(os.environ["ISIC_ROOT"]) / "originals"
    if not root.is_dir():
        pytest.skip("ISIC_ROOT has no folder originals/")
    model, settings, state = load_model(trained / "best.npz")
    pairs = find_pairs(root, "validation")[:2]
    predictions = list(predict_originals(model, pairs, settings.size))
    assert all(p.shape == s.mask.shape and p.size > 256 * 256 for s, p in predictions)
    scores = report(predictions, state["mean_mask"], rng)
    expected = [jaccard(confusion(otsu(s.image), s.mask)) for s, _ in predictions]
    assert scores["Otsu's threshold"]["mean"]["jaccard"] == pytest.approx(np.mean(expected))

"""The pretrained weights: a small file without private paths, whose predictions are good."""

import os

import numpy as np
import pytest

from r2unet.data.images import read_mask
from r2unet.data.isic import find_pairs
from r2unet.network.model import R2UNet
from r2unet.prediction.predict import THRESHOLD
from r2unet.scores.metrics import confusion, jaccard
from r2unet.scores.predictions import predict_originals
from r2unet.training.checkpoints import PRETRAINED, load_model


@pytest.fixture(scope="module")
def pretrained():
    return load_model()


class TestFile:
    def test_is_smaller_than_two_megabytes_and_has_at_most_a_million_parameters(self, pretrained):
        model, _, _ = pretrained
        assert PRETRAINED.stat().st_size < 2_000_000
        assert sum(p.data.size for p in model.parameters()) <= 1_000_000

    def test_is_an_r2unet_with_the_defaults_of_the_paper(self, pretrained):
        model, settings, _ = pretrained
        assert type(model) is R2UNet and not model.training
        assert (settings.steps, settings.share_weights, settings.skips) == (2, True, "concat")

    def test_contains_no_path_of_the_machine_that_trained_it(self, pretrained):
        _, settings, _ = pretrained
        with np.load(PRETRAINED) as file:
            assert "/" not in settings.data and "/" not in str(file["tree"])

    def test_contains_its_history_up_to_the_best_epoch(self, pretrained):
        _, settings, state = pretrained
        jaccards = [epoch["validation_jaccard"] for epoch in state["history"]]
        assert 0 < len(jaccards) <= settings.epochs and jaccards[-1] == max(jaccards)


class TestPrediction:
    def test_needs_only_an_image(self, r2unet, isic, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        photograph = isic / "ISIC-2017_Validation_Data" / "ISIC_0000006.jpg"
        code, stdout, _ = r2unet("predict", photograph)
        assert code == 0 and "1 of 1 masks are in predictions" in stdout
        mask = tmp_path / "predictions" / "ISIC_0000006_segmentation_prediction.png"
        assert read_mask(mask).shape == (24, 32)

    @pytest.mark.skipif("ISIC_ROOT" not in os.environ, reason="set ISIC_ROOT to a folder of ISIC 2017 images")
    def test_segments_lesions_that_it_was_not_trained_on(self, pretrained):
        """Every fifth image of the validation split. The scores on all images are in docs/results.md."""
        model, settings, _ = pretrained
        pairs = find_pairs(os.environ["ISIC_ROOT"], "validation")[::5]
        predictions = predict_originals(model, pairs, settings.size)
        jaccards = [jaccard(confusion(p > THRESHOLD, sample.mask)) for sample, p in predictions]
        assert len(jaccards) == 30 and np.mean(jaccards) > 0.65  # Otsu's threshold: 0.40

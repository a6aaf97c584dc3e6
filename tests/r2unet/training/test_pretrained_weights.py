"""The pretrained weights: small, without private data, and good at lesions they were not trained on."""

import os

import numpy as np
import pytest

from minidl import nn
from minidl.implementation import implementation
from minidl.ops.norm.group import GroupNorm
from r2unet.data.classes import CLASSES
from r2unet.data.folders import find_pairs
from r2unet.data.images import read_mask
from r2unet.data.targets import class_labels
from r2unet.diagnosis.roc import mean_auc
from r2unet.network.model import R2UNet
from r2unet.prediction.predict import THRESHOLD, predict
from r2unet.scores.metrics import confusion, jaccard
from r2unet.scores.predictions import answer_originals
from r2unet.training.calibrate import correction
from r2unet.training.checkpoints import PRETRAINED, load_model
from r2unet.training.state import quality

QUESTIONS = {"isic2017": "types-3", "ham10000": "types-7"}
needs_isic = pytest.mark.skipif(
    "ISIC_ROOT" not in os.environ, reason="set ISIC_ROOT to a folder of ISIC 2017"
)
needs_ham = pytest.mark.skipif("HAM10000_ROOT" not in os.environ, reason="set HAM10000_ROOT to HAM10000")


@pytest.fixture(scope="module", params=PRETRAINED)
def pretrained(request):
    """The name of pretrained weights, the network, its settings, and the content of the file."""
    return request.param, *load_model(PRETRAINED[request.param])


class TestFile:
    def test_is_small(self, pretrained):
        name, model, _, _ = pretrained
        assert PRETRAINED[name].stat().st_size < 2_000_000
        assert sum(p.data.size for p in model.parameters()) <= 1_000_000

    def test_is_an_r2unet_with_the_defaults_of_the_paper(self, pretrained):
        _, model, settings, _ = pretrained
        assert type(model) is R2UNet and not model.training
        assert (settings.steps, settings.share_weights, settings.skips) == (2, True, "concat")

    def test_predicts_an_outline_and_a_diagnosis(self, pretrained):
        name, _, settings, state = pretrained
        assert (settings.task, settings.classes) == ("both", QUESTIONS[name])
        K = len(CLASSES[settings.classes])
        entry = state["diagnosis"]
        assert entry["shares"].shape == entry["log_weights"].shape == (K,)
        assert entry["shares"].sum() == pytest.approx(1) and all(
            0.2 < t < 5 for t in entry["temperature"].values()
        )

    def test_contains_no_path_of_the_machine_that_trained_it(self, pretrained):
        name, _, settings, _ = pretrained
        with np.load(PRETRAINED[name]) as file:
            assert "/" not in settings.data and "/" not in str(file["tree"].astype(str))

    def test_contains_its_history_up_to_the_best_epoch_unless_it_is_a_mean_of_trainings(self, pretrained):
        name, _, settings, state = pretrained
        assert ("history" in state) == (name == "isic2017")
        if "history" not in state:
            return
        qualities = [quality(epoch) for epoch in state["history"]]
        assert 0 < len(qualities) <= settings.epochs and qualities[-1] == max(qualities)

    def test_those_from_ham10000_say_that_they_are_not_for_commercial_use(self, pretrained):
        name, _, _, state = pretrained
        assert ("licence" in state) == (name == "ham10000")
        assert "CC BY-NC 4.0" in state.get("licence", "CC BY-NC 4.0")


class TestPrediction:
    def test_needs_only_an_image(self, r2unet, isic, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        photograph = isic / "ISIC-2017_Validation_Data" / "ISIC_0000006.jpg"
        code, stdout, _ = r2unet("predict", photograph)
        assert code == 0 and "1 of 1 masks are in predictions" in stdout
        mask = tmp_path / "predictions" / "ISIC_0000006_segmentation_prediction.png"
        assert read_mask(mask).shape == (24, 32)
        table = (tmp_path / "predictions" / "diagnoses.csv").read_text()
        assert table.startswith("image,melanoma,seborrheic_keratosis,nevus\nISIC_0000006,")

    def test_the_licence_of_ham10000_is_printed(self, r2unet, isic, tmp_path):
        photograph = isic / "ISIC-2017_Validation_Data" / "ISIC_0000006.jpg"
        _, _, err = r2unet("predict", photograph, "--weights", "ham10000", "--out", tmp_path / "out")
        assert "CC BY-NC 4.0" in err
        table = (tmp_path / "out" / "diagnoses.csv").read_text()
        assert table.startswith("image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\n")

    def test_the_faster_group_norm_predicts_the_same(self, pretrained):
        _, model, _, _ = pretrained
        assert any(isinstance(module, nn.GroupNorm) for _, module in model.named_modules())
        image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        fast = predict(model, [image]).outline
        with implementation("definition", of=(GroupNorm,)):
            np.testing.assert_allclose(fast, predict(model, [image]).outline, rtol=0, atol=1e-5)

    @needs_isic
    def test_lesions_that_it_was_not_trained_on(self, pretrained):
        """Every third image of the validation split of ISIC 2017. All scores are in the model cards."""
        _, model, settings, state = pretrained
        pairs = find_pairs(os.environ["ISIC_ROOT"], "validation")[::3]
        answers = list(answer_originals(model, pairs, settings.size, correction=correction(state, tta=False)))
        jaccards = [jaccard(confusion(p.outline > THRESHOLD, sample.mask)) for sample, p in answers]
        assert len(jaccards) == 50 and np.mean(jaccards) > 0.65  # Otsu's threshold: 0.40
        labels = class_labels([sample for sample, _ in answers], CLASSES[settings.classes])
        assert mean_auc(np.array([p.diagnosis for _, p in answers]), labels) > 0.7

    @needs_ham
    def test_seven_types(self):
        """Every sixth image of the validation split of HAM10000."""
        model, settings, state = load_model(PRETRAINED["ham10000"])
        pairs = find_pairs(os.environ["HAM10000_ROOT"], "validation")[::6]
        answers = list(answer_originals(model, pairs, settings.size, correction=correction(state, tta=False)))
        labels = class_labels([sample for sample, _ in answers], CLASSES["types-7"])
        assert mean_auc(np.array([p.diagnosis for _, p in answers]), labels) > 0.85

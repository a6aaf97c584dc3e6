"""Scores beside baselines, at the original size, and whether train mode and eval mode agree."""

import os
import weakref
from pathlib import Path

import numpy as np
import pytest

from minidl import Tensor
from minidl.nn import Conv2d, Module
from r2unet.data.images import read_image, read_mask, write_mask
from r2unet.data.isic import find_pairs
from r2unet.data.sample import Sample, collate
from r2unet.data.synthetic import SyntheticLesions
from r2unet.errors import InputError
from r2unet.network.blocks import RecurrentConv
from r2unet.network.model import R2UNet
from r2unet.prediction.predict import predict_image, probabilities
from r2unet.scores.baselines import otsu
from r2unet.scores.evaluate import (
    as_table,
    cleaned_up,
    compare_modes,
    evenly_ranked,
    from_best_to_worst,
    predict_originals,
    predict_samples,
    report,
    warnings,
    worst,
)
from r2unet.scores.metrics import confusion, jaccard
from r2unet.training.run_folder import load_model


def sample(mask, name="a"):
    """A black lesion on white skin, exactly where the mask is."""
    mask = np.asarray(mask, np.uint8)
    return Sample(np.where(mask[..., None], 0, 255).astype(np.uint8).repeat(3, axis=2), mask, name)


class TestPredictions:
    def test_of_samples_are_those_of_their_batches(self, rng):
        model, data = R2UNet(widths=(2, 4), rng=rng).eval(), SyntheticLesions(5, 16, seed=1)
        pairs = list(predict_samples(model, data, batch_size=2))
        assert [s.name for s, _ in pairs] == [data[i].name for i in range(5)]
        for s, p in pairs:
            assert np.allclose(p, probabilities(model, [s.image])[0], atol=1e-6) and p.shape == (16, 16)

    def test_of_files_have_the_original_size(self, rng, isic):
        model, pairs = R2UNet(widths=(2, 4), rng=rng).eval(), find_pairs(isic, "validation")
        for pair, (s, p) in zip(pairs, predict_originals(model, pairs, size=16), strict=True):
            assert np.array_equal(s.image, read_image(pair.image)) and s.image.shape == (24, 32, 3)
            assert np.array_equal(s.mask, read_mask(pair.mask)) and s.name == pair.name
            assert np.array_equal(p, predict_image(model, s.image, 16)) and p.shape == (24, 32)

    def test_of_a_mask_of_another_size_are_refused(self, rng, isic):
        model, pairs = R2UNet(widths=(2, 4), rng=rng).eval(), find_pairs(isic, "validation")
        write_mask(pairs[0].mask, np.zeros((32, 24)))
        with pytest.raises(InputError, match="a mask has its image's size"):
            list(predict_originals(model, pairs, size=16))

    def test_are_cleaned_up_into_masks(self):
        probability = np.zeros((16, 16), np.float32)
        probability[2:9, 2:9] = 0.6
        probability[4, 4], probability[14, 14] = 0.4, 0.9  # a hole and a speck
        given = sample(np.zeros((16, 16)))
        ((returned, mask),) = cleaned_up([(given, probability)])
        assert returned is given and mask[2:9, 2:9].all() and mask.sum() == 49


class TestReport:
    A = sample([[1, 1, 0, 0], [1, 1, 0, 0]], "a")
    B = sample([[1, 0, 0, 0], [0, 0, 0, 0]], "b")

    @pytest.fixture
    def scores(self, rng):
        # On a, half of the lesion is found: Jaccard 2/4. On b all of it and a pixel besides: 1/2.
        found = np.array([[0.9, 0.51, 0.1, 0.5], [0.2, 0.0, 0.0, 0.0]], np.float32)
        return report([(self.A, found), (self.B, found)], np.array([[1, 1, 0, 0]] * 2), rng)

    def test_scores_the_model_at_a_probability_above_one_half(self, scores):
        assert scores["model"]["images"] == 2
        assert scores["model"]["mean"]["jaccard"] == pytest.approx((2 / 4 + 1 / 2) / 2)
        assert scores["model"]["pooled"]["jaccard"] == pytest.approx((2 + 1) / (4 + 2))
        assert scores["model"]["jaccard_by_image"] == {"a": 0.5, "b": 0.5}

    def test_puts_the_baselines_beside_it(self, scores):
        assert set(scores) == {"model", "all background", "Otsu's threshold", "mean mask"}
        assert scores["all background"]["mean"]["jaccard"] == 0
        assert scores["all background"]["mean"]["accuracy"] == pytest.approx((4 / 8 + 7 / 8) / 2)
        assert scores["Otsu's threshold"]["mean"]["jaccard"] == 1  # black on white
        assert scores["mean mask"]["mean"]["jaccard"] == pytest.approx((1 + 1 / 4) / 2)

    def test_goes_without_a_mean_mask_where_none_was_kept(self, rng):
        assert "mean mask" not in report([(self.A, np.zeros((2, 4)))], None, rng)

    def test_keeps_no_picture_that_it_has_scored(self, rng):
        pictures = []

        def predictions():
            for number in range(5):
                s = sample(np.eye(8), f"{number}")
                pictures.append(weakref.ref(s.image))
                # The loop that asks for this one may still hold the one before.
                assert all(picture() is None for picture in pictures[:-2])
                yield s, s.mask.astype(np.float32)
                del s

        report(predictions(), None, rng)
        assert len(pictures) == 5

    def test_warns_of_every_baseline_that_is_not_beaten(self, scores):
        assert warnings(scores) == [
            "warning: the model's mean Jaccard 0.5000 does not beat Otsu's threshold (1.0000)",
            "warning: the model's mean Jaccard 0.5000 does not beat mean mask (0.6250)",
        ]
        scores["Otsu's threshold"]["mean"]["jaccard"] = 0.5  # as good is not better
        scores["mean mask"]["mean"]["jaccard"] = 0.49
        assert len(warnings(scores)) == 1

    def test_the_table_shows_means_interval_and_pooled(self, scores):
        lines = as_table(scores).splitlines()
        assert lines[0] == "mean over 2 images"
        (mean, pooled) = [line.split() for line in lines if line.startswith("model")]
        assert mean[1] == "0.5000" and mean[-3:] == ["0.5000", "to", "0.5000"]
        assert pooled[1] == "0.5000" and len(pooled) == 6  # no thresholded Jaccard over pixels
        assert len([line for line in lines if line.startswith("Otsu's threshold")]) == 2


class TestRanking:
    def test_goes_from_the_best_to_the_worst_at_even_distances(self):
        jaccards = {f"image {n}": ((n * 7) % 11) / 10 for n in range(11)}
        assert [jaccards[name] for name in evenly_ranked(jaccards, 3)] == [1.0, 0.5, 0.0]
        assert [jaccards[name] for name in evenly_ranked(jaccards, 6)] == [1.0, 0.8, 0.6, 0.4, 0.2, 0.0]

    def test_the_worst_are_shown_from_bad_to_worst(self):
        jaccards = {f"image {n}": ((n * 7) % 11) / 10 for n in range(11)}
        assert [jaccards[name] for name in worst(jaccards, 3)] == [0.2, 0.1, 0.0]
        assert len(worst(jaccards, 12)) == 11

    @pytest.mark.parametrize("count", [1, 2, 5])
    def test_shows_all_where_there_are_few(self, count):
        names = evenly_ranked({str(n): -float(n) for n in range(count)}, rows=6)
        assert names == [str(n) for n in range(count)]

    def test_rows_hold_what_a_picture_needs(self):
        good, bad = sample(np.eye(4), "good"), sample(np.eye(4), "bad")
        rows = from_best_to_worst([(bad, np.ones((4, 4))), (good, np.eye(4))], rows=2)
        assert [(row.name, row.jaccard) for row in rows] == [("good", 1.0), ("bad", 0.25)]
        assert rows[1].image is bad.image and rows[1].truth is bad.mask
        assert np.array_equal(rows[1].probability, np.ones((4, 4)))


class TestModes:
    def test_agree_without_batch_norm(self, rng):
        class Pixelwise(Module):
            def __init__(self):
                self.head = Conv2d(3, 1, 1, rng=rng)
                self.head.weight.data[...] = -1.0  # dark is lesion

            def forward(self, x):
                return self.head(x)

        modes = compare_modes(Pixelwise(), SyntheticLesions(3, 16, seed=0), batch_size=2)
        assert modes["relative_rms"] == modes["relative_rms_settled"] == 0
        assert modes["jaccard_train_mode"] == modes["jaccard_eval_mode"] > 0

    def test_are_compared_on_the_same_batches_and_leave_the_model_alone(self, rng):
        model, data = R2UNet(widths=(2, 4), rng=rng).eval(), SyntheticLesions(5, 16, seed=3)
        before = model.state_dict()
        modes = compare_modes(model, data, batch_size=2)
        assert all(np.array_equal(before[name], value) for name, value in model.state_dict().items())
        assert not any(module.training for _, module in model.named_modules())

        logits = {True: [], False: []}
        for training in logits:
            for i in (0, 2, 4):
                batch = collate([data[k] for k in range(i, min(i + 2, 5))])
                model.load_state_dict(before)
                logits[training].append(model.train(training)(Tensor(batch.images)).numpy())
        train, evaluation = (np.concatenate(logits[mode]) for mode in (True, False))
        rms = np.sqrt(((train - evaluation) ** 2).mean() / (train**2).mean())
        assert modes["relative_rms"] == pytest.approx(float(rms), rel=1e-5) and rms > 0.1
        for mode, name in ((train, "jaccard_train_mode"), (evaluation, "jaccard_eval_mode")):
            by_hand = [jaccard(confusion(mode[i, 0] > 0, data[i].mask)) for i in range(5)]
            assert modes[name] == pytest.approx(np.mean(by_hand))

    def test_agree_once_the_statistics_are_the_batch_s_own_but_not_if_steps_share_them(self, rng):
        data = SyntheticLesions(8, 32, seed=3)
        model = R2UNet(widths=(4, 8), rng=rng)
        assert compare_modes(model, data, batch_size=4)["relative_rms_settled"] < 0.01  # m against m - 1

        for _, module in model.named_modules():
            if isinstance(module, RecurrentConv):
                module.norm = [module.norm[0]] * (module.steps + 1)
        assert compare_modes(model, data, batch_size=4)["relative_rms_settled"] > 0.1


@pytest.mark.skipif("ISIC_ROOT" not in os.environ, reason="set ISIC_ROOT to a folder of ISIC 2017 images")
def test_real_originals_are_scored_at_their_own_size(trained, rng):
    root = Path(os.environ["ISIC_ROOT"]) / "originals"
    if not root.is_dir():
        pytest.skip("ISIC_ROOT has no folder originals/")
    model, settings, state = load_model(trained / "best.npz")
    pairs = find_pairs(root, "validation")[:2]
    predictions = list(predict_originals(model, pairs, settings.size))
    assert all(p.shape == s.mask.shape and p.size > 256 * 256 for s, p in predictions)
    scores = report(predictions, state["mean_mask"], rng)
    truth = [jaccard(confusion(otsu(s.image), s.mask)) for s, _ in predictions]
    assert scores["Otsu's threshold"]["mean"]["jaccard"] == pytest.approx(np.mean(truth))

"""Predictions of a data set have the right sample, size and order."""

import numpy as np
import pytest

from r2unet.data.images import read_image, read_mask, write_mask
from r2unet.data.isic import find_pairs
from r2unet.data.sample import Sample
from r2unet.data.synthetic import SyntheticLesions
from r2unet.errors import InputError
from r2unet.network.model import R2UNet
from r2unet.prediction.predict import predict_image, probabilities
from r2unet.scores.predictions import cleaned_up, predict_originals, predict_samples


def test_batches_give_the_predictions_of_single_samples(rng):
    model, data = R2UNet(widths=(2, 4), rng=rng).eval(), SyntheticLesions(5, 16, seed=1)
    pairs = list(predict_samples(model, data, batch_size=2))
    assert [s.name for s, _ in pairs] == [data[i].name for i in range(5)]
    for s, p in pairs:
        assert np.allclose(p, probabilities(model, [s.image])[0], atol=1e-6) and p.shape == (16, 16)


def test_files_are_predicted_at_their_original_size(rng, isic):
    model, pairs = R2UNet(widths=(2, 4), rng=rng).eval(), find_pairs(isic, "validation")
    for pair, (s, p) in zip(pairs, predict_originals(model, pairs, size=16), strict=True):
        assert np.array_equal(s.image, read_image(pair.image)) and s.image.shape == (24, 32, 3)
        assert np.array_equal(s.mask, read_mask(pair.mask)) and s.name == pair.name
        assert np.array_equal(p, predict_image(model, s.image, 16)) and p.shape == (24, 32)


def test_a_mask_of_another_size_than_its_image_is_rejected(rng, isic):
    model, pairs = R2UNet(widths=(2, 4), rng=rng).eval(), find_pairs(isic, "validation")
    write_mask(pairs[0].mask, np.zeros((32, 24)))
    with pytest.raises(InputError, match="both must have the same size"):
        list(predict_originals(model, pairs, size=16))


def test_cleaning_up_fills_holes_and_removes_specks():
    probability = np.zeros((16, 16), np.float32)
    probability[2:9, 2:9] = 0.6
    probability[4, 4], probability[14, 14] = 0.4, 0.9  # a hole and a speck
    given = Sample(np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16), np.uint8), "a")
    ((returned, mask),) = cleaned_up([(given, probability)])
    assert returned is given and mask[2:9, 2:9].all() and mask.sum() == 49

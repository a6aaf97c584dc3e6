"""Refitting the diagnosis head: the minimum of a convex loss, with everything before the head unchanged."""

import numpy as np
import pytest

from minidl import Tensor, no_grad
from minidl.ops import softmax_cross_entropy
from r2unet.data.classes import CLASSES
from r2unet.data.sample import to_input
from r2unet.data.synthetic import SyntheticLesions
from r2unet.data.targets import DiagnosisTargets, class_labels, for_calibration
from r2unet.errors import InputError
from r2unet.training import refit
from r2unet.training.refit import pooled_features, refit_head
from r2unet.training.settings import Settings, new_model

CLASS_NAMES = CLASSES["types-3"]


@pytest.fixture(scope="module")
def training():
    """Lesions whose class shows in the brightness of one channel of the image, with noise."""
    rng, samples = np.random.default_rng(0), SyntheticLesions(80, 16, seed=3)
    images = rng.integers(0, 120, (80, 16, 16, 3)).astype(np.uint8)
    for image, label in zip(images, class_labels(samples, CLASS_NAMES), strict=True):
        image[..., label] += 40
    return [s._replace(image=image) for s, image in zip(samples, images, strict=True)]


@pytest.fixture(params=["both", "diagnosis"])
def network(request):
    """A network that predicts the diagnosis, with random weights, and its settings."""
    options = {"size": 16, "widths": (2, 4), "norm": "group", "batch_size": 16, "task": request.param}
    settings = Settings(**options, class_weights="balanced")
    return new_model(settings, np.random.default_rng(0)).eval(), settings


def logits(model, samples):
    with no_grad():
        return model.answer(Tensor(to_input([s.image for s in samples]))).diagnosis.numpy()


def test_the_head_is_where_the_weighted_loss_and_its_penalty_have_no_slope(network, training, monkeypatch):
    """Of the cross-entropy that training minimises, on the training images that are not kept."""
    monkeypatch.setattr(refit, "PENALTIES", (0.05,))
    model, settings = network
    refit_head(model, settings, training)
    targets = DiagnosisTargets(training, CLASS_NAMES, settings.class_weights)
    known = [s for s in training if not for_calibration(s)]
    assert 0 < len(known) < len(training)
    x = Tensor(to_input([s.image for s in known]))
    scale = np.concatenate(list(pooled_features(model, [known]))).std(axis=0)
    softmax_cross_entropy(model.answer(x).diagnosis, Tensor(targets(known))).backward()
    head = model.diagnosis.linear
    slope = head.weight.grad + 0.05 * head.weight.data * scale**2  # of loss + 0.05 / 2 |W scale|^2
    size = np.abs(head.weight.grad).max()
    assert size > 1e-3  # the two terms do not vanish, they cancel
    assert np.abs(slope).max() < 1e-4 * size and np.abs(head.bias.grad).max() < 1e-6


def test_everything_before_the_head_stays_as_it_is(network, training):
    model, settings = network
    before = model.state_dict()
    refit_head(model, settings, training)
    changed = {name for name, array in model.state_dict().items() if (array != before[name]).any()}
    assert changed == {"diagnosis.linear.weight", "diagnosis.linear.bias"}
    assert {p.data.dtype for p in model.parameters()} == {np.dtype(np.float32)}


def test_the_classes_of_the_images_that_are_kept_do_not_matter(network, training, monkeypatch):
    monkeypatch.setattr(refit, "PENALTIES", (0.05,))
    model, settings = network
    refit_head(model, settings, training)
    expected = logits(model, training)
    wrong = [s._replace(diagnosis="melanoma") if for_calibration(s) else s for s in training]
    assert [s.diagnosis for s in wrong] != [s.diagnosis for s in training]
    refit_head(model, settings, wrong)
    np.testing.assert_array_equal(logits(model, training), expected)


def test_the_penalty_is_the_one_that_suits_the_images_that_are_kept(network, training, monkeypatch):
    """A penalty that leaves nothing of the weights loses against one of a usual size, in either order."""
    model, settings = network
    results = {}
    for penalties in ((0.05,), (0.05, 1e6), (1e6, 0.05), (1e6,)):
        monkeypatch.setattr(refit, "PENALTIES", penalties)
        refit_head(model, settings, training)
        results[penalties] = logits(model, training)
    np.testing.assert_array_equal(results[0.05, 1e6], results[0.05,])
    np.testing.assert_array_equal(results[1e6, 0.05], results[0.05,])
    assert np.ptp(results[1e6,], axis=0).max() < 1e-3 < np.ptp(results[0.05,], axis=0).max()


def test_without_kept_images_the_penalty_in_the_middle_is_used(network, training, monkeypatch):
    model, settings = network
    known = [s for s in training if not for_calibration(s)]
    results = []
    for penalties in ((1e6, 0.05, 1e5), (0.05,)):
        monkeypatch.setattr(refit, "PENALTIES", penalties)
        refit_head(model, settings, known)
        results.append(logits(model, training))
    np.testing.assert_array_equal(*results)


def test_it_tells_the_classes_apart_where_the_old_head_did_not(network, training):
    model, settings = network
    labels = class_labels(training, CLASS_NAMES)
    before = (logits(model, training).argmax(axis=1) == labels).mean()
    refit_head(model, settings, training)
    assert before < 0.7 and (logits(model, training).argmax(axis=1) == labels).mean() > 0.9


def test_a_head_whose_hessian_is_too_large_is_refused(network, training, monkeypatch):
    model, settings = network
    numbers = model.diagnosis.linear.weight.size + 3
    monkeypatch.setattr(refit, "LARGEST", numbers - 1)
    with pytest.raises(InputError, match=f"--refit-head: the head has {numbers} numbers"):
        refit_head(model, settings, training)


def test_features_that_are_not_finite_are_refused(network, training):
    model, settings = network
    model.encoder[0].project.bias.data += np.float32(3e38)
    with pytest.raises(InputError, match="its features contain NaN or infinity"):
        refit_head(model, settings, training)

"""The memory of a prediction is bounded by an estimate from the settings, before anything is allocated."""

import tracemalloc

import numpy as np
import pytest

from minidl.profiler import memory_traced
from r2unet.data.classes import CLASSES
from r2unet.errors import InputError
from r2unet.network.fold import fold_all
from r2unet.prediction.explain import explain
from r2unet.prediction.predict import predict, predict_lesion
from r2unet.training.prediction_memory import UNASKED, check_size, images_at_once, prediction_memory
from r2unet.training.settings import Settings, new_model

DEFAULT = (8, 16, 32, 64)


def peak_memory(call):
    """Return the most memory in bytes that NumPy and Python had allocated during a call."""
    with memory_traced():
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        call()
        return tracemalloc.get_traced_memory()[1] - before


@pytest.mark.parametrize(
    "options, size",
    [
        ({"widths": DEFAULT}, 128),
        ({"widths": DEFAULT, "tie_weights": False, "norm": "group", "task": "both"}, 128),
        ({"widths": DEFAULT, "model": "unet"}, 128),
        ({"widths": DEFAULT, "model": "r2-attention-unet", "steps": 5, "share_weights": False}, 128),
        ({"widths": (1,), "tie_weights": False}, 128),
        ({"widths": (2, 4), "up": "nearest"}, 128),
        ({"widths": (1, 4, 16, 64)}, 192),  # all levels take the same memory
        ({"widths": (32, 8)}, 64),
        ({"widths": DEFAULT, "task": "diagnosis"}, 128),
        ({"widths": DEFAULT, "task": "both", "pooled_levels": "all"}, 128),
        ({"widths": (1, 4, 16, 64), "task": "both", "pooled_levels": "all"}, 192),
        ({"widths": (2, 4), "task": "diagnosis", "pooling": "image", "pooled_levels": "all"}, 128),
    ],
    ids=str,
)
def test_the_estimate_is_one_to_four_times_what_a_prediction_takes(options, size):
    settings = Settings(**options, size=size).check()
    model = fold_all(new_model(settings, np.random.default_rng(0)).eval())
    image = np.zeros((size, size, 3), np.uint8)
    one, three = prediction_memory(settings), prediction_memory(settings, 3)
    measured = peak_memory(lambda: predict_lesion(model, image, size, tta=True))
    assert measured < one < 4 * measured
    assert peak_memory(lambda: predict(model, [image] * 3)) < three == 3 * one


@pytest.mark.parametrize(
    "options",
    [
        {"widths": DEFAULT, "task": "both"},
        {"widths": (1, 4, 16, 64), "task": "both", "pooled_levels": "all"},
        {"widths": (2, 4), "steps": 100, "norm": "group"},  # whose steps would take 100 times the first level
        {"widths": (4, 4), "tie_weights": False, "norm": "group"},
        {"widths": (2, 4, 8), "model": "r2-attention-unet"},
    ],
    ids=str,
)
def test_collecting_feature_maps_takes_no_more_than_a_prediction(options, monkeypatch):
    monkeypatch.setattr("r2unet.prediction.feature_maps.LARGEST_SIDE", 16)  # as 208 for a large image
    settings = Settings(**options, size=96).check()
    model, classes = new_model(settings, np.random.default_rng(0)).eval(), CLASSES[settings.classes]
    image = np.zeros((96, 96, 3), np.uint8)
    explain(model, image, 16, classes=classes)  # what is imported is not counted
    measured = peak_memory(lambda: explain(model, image, 96, classes=classes))
    assert measured < prediction_memory(settings)


def test_a_size_that_takes_little_memory_is_accepted_and_a_larger_one_refused():
    weights = {"a": np.zeros(2**18, np.float32)}  # 1 MiB
    check_size("file", Settings(size=128), weights)
    check_size("file", Settings(size=360), weights)
    check_size("file", Settings(size=128), weights, images=8)  # the batches of the default settings
    with pytest.raises(InputError) as raised:
        check_size("file", Settings(size=512), weights)
    assert str(raised.value) == (
        "file: its network sees an image of 512 x 512 pixels, for which a prediction takes up to 102 MiB, "
        "more than the 53 MiB that a checkpoint may claim; if you trust it, add --size 512, otherwise a "
        "smaller one"
    )
    with pytest.raises(InputError, match="sees 9 images of 128 x 128 pixels"):
        check_size("file", Settings(size=128), weights, images=9)
    check_size("file", Settings(size=512), weights | {"b": np.zeros(50 * 2**18, np.float32)})


def test_batches_are_those_of_the_training_unless_they_take_much_memory():
    assert images_at_once(Settings(size=128, batch_size=8)) == 8
    assert images_at_once(Settings(size=16, batch_size=4)) == 4
    largest = images_at_once(Settings(size=64, batch_size=4096))
    assert largest == 32 and prediction_memory(Settings(size=64), largest) <= UNASKED
    assert images_at_once(Settings(size=2048, batch_size=16)) == 1  # if --size permits it

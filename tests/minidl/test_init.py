"""Initial weights have the right variance, and it preserves a signal through many layers."""

import tracemalloc

import numpy as np
import pytest

from minidl.init import kaiming_normal, shapes_only, xavier_normal
from minidl.nn import BatchNorm2d, Conv2d, Sequential


@pytest.mark.parametrize("fan_in", [1, 27, 576])
def test_kaiming_normal_has_variance_two_over_fan_in(fan_in, rng):
    w = kaiming_normal((200, 300), fan_in, rng)
    assert w.var() == pytest.approx(2.0 / fan_in, rel=0.03)
    assert abs(w.mean()) < 0.02 * w.std()


@pytest.mark.parametrize(("fan_in", "fan_out"), [(8, 1), (1, 8), (100, 300)])
def test_xavier_normal_has_variance_two_over_the_sum_of_both_fans(fan_in, fan_out, rng):
    w = xavier_normal((200, 300), fan_in, fan_out, rng)
    assert w.var() == pytest.approx(2.0 / (fan_in + fan_out), rel=0.03)
    assert abs(w.mean()) < 0.02 * w.std()


def test_weights_are_normally_distributed(rng):
    w = kaiming_normal((200, 300), 2, rng)  # standard deviation 1
    within = [(abs(w) < deviations).mean() for deviations in (1, 2, 3)]
    np.testing.assert_allclose(within, [0.6827, 0.9545, 0.9973], atol=0.01)


@pytest.mark.parametrize(
    "draw", [lambda rng: kaiming_normal((3, 4), 4, rng), lambda rng: xavier_normal((3, 4), 4, 3, rng)]
)
def test_weights_are_float32_have_the_given_shape_and_depend_only_on_the_seed(draw):
    w = draw(np.random.default_rng(5))
    assert w.dtype == np.float32 and w.shape == (3, 4)
    np.testing.assert_array_equal(w, draw(np.random.default_rng(5)))
    assert not np.array_equal(w, draw(np.random.default_rng(6)))


def test_kaiming_preserves_the_signal_through_fifty_layers_with_relu(rng):
    x = rng.normal(size=(256, 256)).astype(np.float32)
    before = np.square(x).mean()
    for _ in range(50):
        x = np.maximum(x @ kaiming_normal((256, 256), 256, rng), 0.0)
    assert 0.2 < np.square(x).mean() / before < 5.0  # with half the variance it would be 2^-50


def test_xavier_preserves_the_signal_through_fifty_linear_layers(rng):
    x = rng.normal(size=(256, 256)).astype(np.float32)
    before = np.square(x).mean()
    for _ in range(50):
        x = x @ xavier_normal((256, 256), 256, 256, rng)
    assert 0.2 < np.square(x).mean() / before < 5.0


class TestShapesOnly:
    def test_a_network_of_a_terabyte_takes_no_memory(self, rng):
        tracemalloc.start()
        with shapes_only():
            layers = Sequential(Conv2d(300_000, 100_000, 3, rng=rng), BatchNorm2d(10_000_000))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 100_000
        shapes = layers.state_shapes()
        assert shapes["layers.0.weight"] == (100_000, 300_000, 3, 3)
        assert shapes["layers.1.running_var"] == (10_000_000,)

    def test_draws_no_random_numbers(self):
        rng, other = np.random.default_rng(0), np.random.default_rng(0)
        with shapes_only():
            kaiming_normal((2, 3), 3, rng)
        assert rng.normal() == other.normal()

    def test_ends_with_its_block_even_after_an_error(self, rng):
        with pytest.raises(KeyError), shapes_only():
            raise KeyError
        assert kaiming_normal((2, 3), 3, rng).std() > 0

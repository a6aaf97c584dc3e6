"""The moving average of a module's state agrees with its formula."""

import numpy as np
import pytest

from minidl import Tensor, no_grad
from minidl.backend import Kernels
from minidl.ema import EMA
from minidl.nn import BatchNorm2d, Conv2d, Module


class Twice(Module):
    """One convolution under two names, and a batch norm, whose running statistics are buffers."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.conv = Conv2d(2, 2, 1, rng=rng)
        self.same = self.conv
        self.norm = BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.same(self.conv(x)))


@pytest.fixture
def module(rng):
    return Twice(rng)


def change(module, rng):
    """Change every weight and, by a batch in training mode, every running statistic."""
    for p in module.parameters():
        p.data = p.data + rng.normal(size=p.shape).astype(np.float32)
    with no_grad():
        module(Tensor(rng.normal(size=(4, 2, 3, 3)).astype(np.float32)))


def averages(module, decay, rng, steps):
    """Return the EMA after some steps, and the same averages by the formula, in float64."""
    ema, expected = EMA(module, decay), {n: a.astype(np.float64) for n, a in module.state_dict().items()}
    for n in range(1, steps + 1):
        change(module, rng)
        ema.update()
        d = min(decay, (1 + n) / (10 + n))
        expected = {name: d * expected[name] + (1 - d) * a for name, a in module.state_dict().items()}
    return ema, expected


class TestAverage:
    @pytest.mark.parametrize("decay", [0.0, 0.25, 0.999])
    def test_follows_the_formula_for_weights_and_running_statistics(self, module, rng, decay):
        ema, expected = averages(module, decay, rng, steps=8)
        assert set(expected) == {
            *("conv.weight", "conv.bias", "norm.weight", "norm.bias"),
            *("norm.running_mean", "norm.running_var"),
        }
        for name, array in ema.state_dict()["average"].items():
            assert array.dtype == np.float32
            np.testing.assert_allclose(array, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)

    def test_launches_one_kernel_for_all_arrays(self, module, rng, device, monkeypatch):
        if device == "cpu":
            pytest.skip("the CPU launches no kernels")
        ema, launches, launch = EMA(module.to(device)), [], Kernels.launch
        monkeypatch.setattr(
            Kernels, "launch", lambda self, name, *more: (launches.append(name), launch(self, name, *more))
        )
        before = ema.state_dict()["average"]
        for leaf in ema.leaves.values():
            leaf.data = leaf.data + 1.0
        ema.update()
        assert launches == ["moving_average"]
        for name, array in ema.state_dict()["average"].items():
            np.testing.assert_allclose(array, before[name] + 9 / 11, rtol=1e-5)

    def test_covers_about_a_tenth_of_a_short_training_and_1000_steps_of_a_long_one(self, module):
        ema = EMA(module, 0.999)
        weight = module.conv.weight
        for start, back in ((100, 110 / 9), (100_000, 1000)):
            ema.steps = start
            ema.average["conv.weight"] = np.zeros_like(weight.data)
            weight.data = np.ones_like(weight.data)
            ema.update()
            np.testing.assert_allclose(ema.average["conv.weight"], 1 / back, rtol=0.01)

    def test_of_constant_weights_is_these_weights(self, module):
        ema = EMA(module, 0.9)
        for _ in range(5):
            ema.update()
        for name, array in module.state_dict().items():
            np.testing.assert_allclose(ema.average[name], array, rtol=1e-6)

    def test_of_noisy_weights_is_closer_to_their_mean(self, module, rng):
        ema, distance = EMA(module, 0.99), []
        for _ in range(2000):
            module.conv.weight.data = 1 + rng.normal(size=(2, 2, 1, 1)).astype(np.float32)
            ema.update()
            distance.append(np.abs(module.conv.weight.data - 1).mean())
        assert np.abs(ema.average["conv.weight"] - 1).mean() < 0.25 * np.mean(distance)

    @pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
    def test_rejects_a_decay_outside_zero_to_one(self, module, decay):
        with pytest.raises(ValueError, match=r"expected 0 <= decay < 1"):
            EMA(module, decay)


class TestApplied:
    def test_replaces_the_weights_and_restores_them(self, module, rng):
        ema, _ = averages(module, 0.9, rng, steps=3)
        before, average = module.state_dict(), ema.state_dict()["average"]
        with ema.applied():
            for name, array in module.state_dict().items():
                assert (array == average[name]).all()
        for name, array in module.state_dict().items():
            assert (array == before[name]).all()

    def test_restores_them_after_an_exception(self, module, rng):
        ema, _ = averages(module, 0.9, rng, steps=1)
        before = module.conv.weight.data
        with pytest.raises(KeyError), ema.applied():
            raise KeyError
        assert module.conv.weight.data is before

    def test_does_not_change_when_training_changes_the_weights_later(self, module, rng):
        ema, _ = averages(module, 0.9, rng, steps=1)
        average = ema.state_dict()["average"]
        change(module, rng)
        assert all((ema.average[name] == average[name]).all() for name in average)


class TestState:
    def test_resumes_the_average_bit_for_bit(self, module, rng):
        ema, _ = averages(module, 0.9, rng, steps=3)
        other = EMA(module, 0.9)
        other.load_state_dict(ema.state_dict())
        for _ in range(2):
            change(module, rng)
            ema.update()
            other.update()
        assert other.steps == 5
        assert all((other.average[name] == ema.average[name]).all() for name in ema.average)

    def test_is_a_copy(self, module):
        ema = EMA(module, 0.9)
        ema.state_dict()["average"]["conv.weight"][...] = 7
        assert not (ema.average["conv.weight"] == 7).any()

    def test_of_another_module_is_rejected_and_changes_nothing(self, module, rng):
        ema = EMA(module, 0.9)
        before = ema.average
        with pytest.raises(ValueError, match="is the average of another module"):
            ema.load_state_dict(EMA(Conv2d(2, 2, 1, rng=rng), 0.9).state_dict())
        assert ema.average is before

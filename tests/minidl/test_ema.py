"""The moving average of a module's state, against its formula written out."""

import numpy as np
import pytest

from minidl import Tensor, no_grad
from minidl.backend import Kernels
from minidl.ema import EMA
from minidl.nn import BatchNorm2d, Conv2d, Module


class Twice(Module):
    """One convolution used under two names, and a batch norm, whose statistics are buffers."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.conv = Conv2d(2, 2, 1, rng=rng)
        self.same = self.conv
        self.norm = BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.same(self.conv(x)))


@pytest.fixture
def module(rng):
    return Twice(rng)


def move(module, rng):
    """Change every weight and, by a batch in training, every statistic."""
    for p in module.parameters():
        p.data = p.data + rng.normal(size=p.shape).astype(np.float32)
    with no_grad():
        module(Tensor(rng.normal(size=(4, 2, 3, 3)).astype(np.float32)))


def averages(module, decay, rng, steps):
    """Follow the formula for every parameter and buffer, and the EMA beside it."""
    ema, expected = EMA(module, decay), {n: a.astype(np.float64) for n, a in module.state_dict().items()}
    for n in range(1, steps + 1):
        move(module, rng)
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

    def test_takes_one_launch_for_each_on_a_device(self, module, rng, device, monkeypatch):
        if device == "cpu":
            pytest.skip("nothing is launched there")
        ema, launches, launch = EMA(module.to(device)), [], Kernels.launch
        monkeypatch.setattr(
            Kernels, "launch", lambda self, name, *more: (launches.append(name), launch(self, name, *more))
        )
        before = ema.state_dict()["average"]
        for leaf in ema.leaves.values():
            leaf.data = leaf.data + 1.0
        ema.update()
        assert launches == ["weighted_sum"] * 6
        for name, array in ema.state_dict()["average"].items():
            np.testing.assert_allclose(array, before[name] + 9 / 11, rtol=1e-5)

    def test_looks_back_the_tenth_part_of_a_short_training_and_1000_steps_of_a_long_one(self, module):
        ema = EMA(module, 0.999)
        weight = module.conv.weight
        for start, back in ((100, 110 / 9), (100_000, 1000)):
            ema.steps = start
            ema.average["conv.weight"] = np.zeros_like(weight.data)
            weight.data = np.ones_like(weight.data)
            ema.update()
            np.testing.assert_allclose(ema.average["conv.weight"], 1 / back, rtol=0.01)

    def test_of_what_does_not_move_is_what_it_is(self, module):
        ema = EMA(module, 0.9)
        for _ in range(5):
            ema.update()
        for name, array in module.state_dict().items():
            np.testing.assert_allclose(ema.average[name], array, rtol=1e-6)

    def test_of_noisy_weights_is_nearer_to_their_middle(self, module, rng):
        ema, distance = EMA(module, 0.99), []
        for _ in range(2000):
            module.conv.weight.data = 1 + rng.normal(size=(2, 2, 1, 1)).astype(np.float32)
            ema.update()
            distance.append(np.abs(module.conv.weight.data - 1).mean())
        assert np.abs(ema.average["conv.weight"] - 1).mean() < 0.25 * np.mean(distance)

    @pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
    def test_by_another_decay_is_refused(self, module, decay):
        with pytest.raises(ValueError, match=r"want 0 <= decay < 1"):
            EMA(module, decay)


class TestApplied:
    def test_stands_in_for_the_weights_and_gives_them_back(self, module, rng):
        ema, _ = averages(module, 0.9, rng, steps=3)
        before, average = module.state_dict(), ema.state_dict()["average"]
        with ema.applied():
            for name, array in module.state_dict().items():
                assert (array == average[name]).all()
        for name, array in module.state_dict().items():
            assert (array == before[name]).all()

    def test_gives_them_back_after_a_fault_too(self, module, rng):
        ema, _ = averages(module, 0.9, rng, steps=1)
        before = module.conv.weight.data
        with pytest.raises(KeyError), ema.applied():
            raise KeyError
        assert module.conv.weight.data is before

    def test_is_not_moved_by_what_training_does_to_the_weights_later(self, module, rng):
        ema, _ = averages(module, 0.9, rng, steps=1)
        average = ema.state_dict()["average"]
        move(module, rng)
        assert all((ema.average[name] == average[name]).all() for name in average)


class TestState:
    def test_lets_another_average_go_on_bit_for_bit(self, module, rng):
        ema, _ = averages(module, 0.9, rng, steps=3)
        other = EMA(module, 0.9)
        other.load_state_dict(ema.state_dict())
        for _ in range(2):
            move(module, rng)
            ema.update()
            other.update()
        assert other.steps == 5
        assert all((other.average[name] == ema.average[name]).all() for name in ema.average)

    def test_is_a_copy(self, module):
        ema = EMA(module, 0.9)
        ema.state_dict()["average"]["conv.weight"][...] = 7
        assert not (ema.average["conv.weight"] == 7).any()

    def test_of_another_module_is_refused_and_changes_nothing(self, module, rng):
        ema = EMA(module, 0.9)
        before = ema.average
        with pytest.raises(ValueError, match="averages another module"):
            ema.load_state_dict(EMA(Conv2d(2, 2, 1, rng=rng), 0.9).state_dict())
        assert ema.average is before

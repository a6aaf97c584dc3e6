"""The attention gate: the paper's formula, how much it lets pass, and what learns behind a shut one."""

import numpy as np
import pytest

from minidl import Parameter, Tensor
from r2unet.network.attention import AttentionGate


@pytest.fixture
def sides(rng):
    """What comes from below and the skip, (2, 4, 3, 5) each in float64."""
    return rng.normal(size=(2, 2, 4, 3, 5))


def naive_gate(gate, g, x):
    """The formula with sums written out, in training: each norm with this batch's own statistics."""

    def normed(a):
        return (a - a.mean((0, 2, 3), keepdims=True)) / np.sqrt(a.var((0, 2, 3), keepdims=True) + 1e-5)

    def mixed(layer, a):
        return np.einsum("oc,nchw->nohw", layer.weight.data[:, :, 0, 0], a) + layer.bias.data[:, None, None]

    a = np.maximum(normed(mixed(gate.from_below, g)) + normed(mixed(gate.from_skip, x)), 0.0)
    return x / (1.0 + np.exp(-normed(mixed(gate.psi, a))))


def test_agrees_with_the_formula(sides, rng):
    gate = AttentionGate(4, rng=rng).to(np.float64)
    g, x = sides
    y = gate(Tensor(g), Tensor(x)).numpy()
    np.testing.assert_allclose(y, naive_gate(gate, g, x), rtol=1e-10, atol=1e-12)


def test_lets_the_same_share_of_all_channels_pass_and_never_more_than_all(sides, rng):
    gate = AttentionGate(4, rng=rng).to(np.float64)
    g, x = (Tensor(a) for a in sides)
    share = gate.weights(g, x).numpy()
    assert share.shape == (2, 1, 3, 5) and 0.0 < share.min() < share.max() < 1.0
    np.testing.assert_allclose(gate(g, x).numpy() / x.numpy(), np.repeat(share, 4, axis=1), rtol=1e-12)


@pytest.mark.parametrize(("channels", "inner"), [(1, 1), (2, 1), (3, 1), (8, 4)])
def test_its_inner_width_is_half_of_the_channels(channels, inner, rng):
    gate = AttentionGate(channels, rng=rng)
    assert gate.from_below.weight.shape == gate.from_skip.weight.shape == (inner, channels, 1, 1)
    assert sum(p.size for p in gate.parameters()) == 2 * inner * (channels + 3) + inner + 3


def test_both_sides_decide_and_both_learn(sides, rng):
    gate = AttentionGate(4, rng=rng).to(np.float64)
    g, x = (Parameter(a) for a in sides)
    gate(g, x).backward(rng.normal(size=x.shape))
    assert np.abs(g.grad).max() > 0.01 and np.abs(x.grad).max() > 0.01


def test_what_a_shut_gate_shuts_out_learns_nothing(sides, rng):
    gate = AttentionGate(4, rng=rng).to(np.float64)
    gate.psi_norm.bias.data = np.array([-80.0])
    g, x = (Parameter(a) for a in sides)
    gate(g, x).backward(rng.normal(size=x.shape))
    assert np.abs(g.grad).max() < 1e-20 and np.abs(x.grad).max() < 1e-20

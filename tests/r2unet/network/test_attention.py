"""The attention gate: the paper's formula, the range of its coefficients, gradients through a closed gate."""

import numpy as np
import pytest

from minidl import Parameter, Tensor
from r2unet.network.attention import AttentionGate


@pytest.fixture
def inputs(rng):
    """The gating signal and the skip, (2, 4, 3, 5) each in float64."""
    return rng.normal(size=(2, 2, 4, 3, 5))


def naive_gate(gate, g, x):
    """The formula with explicit sums, in training: each norm uses the statistics of the batch."""

    def normed(a):
        return (a - a.mean((0, 2, 3), keepdims=True)) / np.sqrt(a.var((0, 2, 3), keepdims=True) + 1e-5)

    def mixed(layer, a):
        return np.einsum("oc,nchw->nohw", layer.weight.data[:, :, 0, 0], a) + layer.bias.data[:, None, None]

    a = np.maximum(normed(mixed(gate.from_below, g)) + normed(mixed(gate.from_skip, x)), 0.0)
    return x / (1.0 + np.exp(-normed(mixed(gate.psi, a))))


def test_agrees_with_the_formula(inputs, rng):
    gate = AttentionGate(4, rng=rng).to(np.float64)
    g, x = inputs
    y = gate(Tensor(g), Tensor(x)).numpy()
    np.testing.assert_allclose(y, naive_gate(gate, g, x), rtol=1e-10, atol=1e-12)


def test_all_channels_are_multiplied_by_one_coefficient_between_0_and_1(inputs, rng):
    gate = AttentionGate(4, rng=rng).to(np.float64)
    g, x = (Tensor(a) for a in inputs)
    psi = gate.weights(g, x).numpy()
    assert psi.shape == (2, 1, 3, 5) and 0.0 < psi.min() < psi.max() < 1.0
    np.testing.assert_allclose(gate(g, x).numpy() / x.numpy(), np.repeat(psi, 4, axis=1), rtol=1e-12)


@pytest.mark.parametrize(("channels", "inner"), [(1, 1), (2, 1), (3, 1), (8, 4)])
def test_the_inner_width_is_half_of_the_channels(channels, inner, rng):
    gate = AttentionGate(channels, rng=rng)
    assert gate.from_below.weight.shape == gate.from_skip.weight.shape == (inner, channels, 1, 1)
    assert sum(p.size for p in gate.parameters()) == 2 * inner * (channels + 3) + inner + 3


def test_both_inputs_receive_gradients(inputs, rng):
    gate = AttentionGate(4, rng=rng).to(np.float64)
    g, x = (Parameter(a) for a in inputs)
    gate(g, x).backward(rng.normal(size=x.shape))
    assert np.abs(g.grad).max() > 0.01 and np.abs(x.grad).max() > 0.01


def test_no_gradient_passes_a_closed_gate(inputs, rng):
    gate = AttentionGate(4, rng=rng).to(np.float64)
    gate.psi_norm.bias.data = np.array([-80.0])
    g, x = (Parameter(a) for a in inputs)
    gate(g, x).backward(rng.normal(size=x.shape))
    assert np.abs(g.grad).max() < 1e-20 and np.abs(x.grad).max() < 1e-20

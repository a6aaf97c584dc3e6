"""A folded network predicts what the network predicts, with fewer operations."""

import numpy as np
import pytest

from minidl import Tensor, no_grad
from minidl.backend import to_device
from minidl.nn import BatchNorm2d
from minidl.profiler import profiled
from r2unet.network.fold import fold_all
from r2unet.network.model import CHOICES, NETWORKS, R2UNet


def with_random_state(network, rng, **options):
    """Return a network in evaluation with random weights, biases and running statistics."""
    model = network(widths=(4, 8), rng=rng, **options).to(np.float64)
    for _, module in model.named_modules():
        if isinstance(module, BatchNorm2d):
            C = len(module.weight.data)
            module.running_mean.data, module.running_var.data = rng.normal(size=C), rng.uniform(0.5, 2, C)
    for parameter in model.parameters():
        parameter.data = parameter.data + 0.1 * rng.normal(size=parameter.shape)
    return model.eval()


VARIANTS = [(network, {}) for network in NETWORKS.values()]
VARIANTS += [(R2UNet, {name: choice}) for name, choices in CHOICES.items() for choice in choices[1:]]
VARIANTS += [(R2UNet, {"share_weights": False}), (R2UNet, {"steps": 0})]


@pytest.mark.parametrize(("network", "options"), VARIANTS)
def test_the_output_is_the_same(network, options, rng, device):
    model = with_random_state(network, rng, **options).to(device)
    x = to_device(rng.normal(size=(2, 3, 16, 12)), device)
    before = x.copy()
    with no_grad():
        expected, found = model.answer(Tensor(x)), fold_all(model).answer(Tensor(x))
    for before_folding, after_folding in zip(expected, found, strict=True):
        assert (before_folding is None) == (after_folding is None)
        if before_folding is not None:
            a, b = before_folding.numpy(), after_folding.numpy()
            np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-9)
    assert (x == before).all()


def test_the_original_network_is_unchanged(rng):
    model = with_random_state(R2UNet, rng)
    before = {name: array.copy() for name, array in model.state_dict().items()}
    with no_grad():
        fold_all(model)(Tensor(rng.normal(size=(1, 3, 8, 8))))
    after = model.state_dict()
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)


def test_no_norm_remains(rng):
    model = fold_all(with_random_state(R2UNet, rng))
    with no_grad(), profiled() as profile:
        model(Tensor(rng.normal(size=(1, 3, 8, 8))))
    assert {operation for operation, _ in profile.records} == {
        "Conv2d",
        "ConvTranspose2d",
        "Add",
        "MaxPool2d",
        "Concat",
    }

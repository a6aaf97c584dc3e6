"""A folded network predicts what the network predicts, with fewer operations."""

import numpy as np
import pytest

from minidl import Tensor, no_grad
from minidl.backend import to_device
from minidl.nn import BatchNorm2d
from minidl.profiler import profiled
from r2unet.network.fold import fold_all
from r2unet.network.model import CHOICES, NETWORKS, R2UNet


def trained_a_little(network, rng, **options):
    """A network whose norms have statistics, weights and biases of their own."""
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
def test_it_computes_the_same(network, options, rng, device):
    model = trained_a_little(network, rng, **options).to(device)
    x = to_device(rng.normal(size=(2, 3, 16, 12)), device)
    before = x.copy()
    with no_grad():
        expected, found = model(Tensor(x)).numpy(), fold_all(model)(Tensor(x)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    assert (x == before).all()


def test_the_network_itself_is_left_as_it_was(rng):
    model = trained_a_little(R2UNet, rng)
    before = {name: array.copy() for name, array in model.state_dict().items()}
    with no_grad():
        fold_all(model)(Tensor(rng.normal(size=(1, 3, 8, 8))))
    after = model.state_dict()
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)


def test_no_norm_is_left(rng):
    model = fold_all(trained_a_little(R2UNet, rng))
    with no_grad(), profiled() as profile:
        model(Tensor(rng.normal(size=(1, 3, 8, 8))))
    assert set(profile.records) == {"Conv2d", "ConvTranspose2d", "Add", "MaxPool2d", "Concat"}

"""Receptive fields: those of R2U-Net, derived by hand, and those of all networks, measured."""

import numpy as np
import pytest

from minidl import Tensor, no_grad
from minidl.nn import BatchNorm2d, Conv2d, ConvTranspose2d
from r2unet.network.hooks import forward_hooks
from r2unet.network.model import NETWORKS, R2UNet, UNet
from r2unet.network.receptive_field import receptive_fields
from r2unet.network.summary import image_of_zeros


def fields(model, size=16):
    return receptive_fields(model.eval(), image_of_zeros(size))


@pytest.mark.parametrize("t", [0, 1, 2, 3])
def test_every_application_of_a_recurrent_convolution_adds_a_pixel_of_its_level_on_each_side(rng, t):
    """A block sees 2 * 2 (t + 1) pixels of its level more than its input, and a pooling one pixel more."""
    found = fields(R2UNet(widths=(1, 1, 1, 1), steps=t, rng=rng))
    side = 1
    for level in range(4):
        pixel = 2**level
        side += 2 * (t + 1) * pixel
        assert found[f"encoder.{level}.first.conv"] == side
        side += 2 * (t + 1) * pixel
        assert found[f"encoder.{level}.second.conv"] == side
        side += pixel  # the pooling


def test_at_the_bottom_of_the_default_network_it_is_188_and_with_plain_convolutions_68(rng):
    assert fields(R2UNet(rng=rng))["encoder.3.second.conv"] == 188
    assert fields(UNet(rng=rng))["encoder.3.second.conv"] == 68


def measured(model, n):
    """Return the receptive field of every layer, from the pixels that change when a column of the image does.

    All weights are positive and all norms the identity, so a bright column in a black image of n columns
    brightens every pixel that depends on it. Row j of the batch has column j.
    """
    for _, module in model.named_modules():
        if isinstance(module, Conv2d | ConvTranspose2d):
            module.weight.data = np.full_like(module.weight.data, 0.5)
            if module.bias is not None:
                module.bias.data = np.zeros_like(module.bias.data)
        if isinstance(module, BatchNorm2d):
            module.eps = 0.0
    images = np.zeros((n, 3, model.multiple, n))
    images[np.arange(n), :, :, np.arange(n)] = 1.0
    found = {}

    def record(name, module, x, y):
        depends = (y.data != 0).any(axis=(1, 2))  # (n images, columns of the layer)
        first, last = depends.argmax(axis=0), n - 1 - depends[::-1].argmax(axis=0)
        found[name] = int((last - first).max()) + 1

    leaves = [(name, module) for name, module in model.named_modules() if not any(module.named_children())]
    with no_grad(), forward_hooks(leaves, record):
        model.to(np.float64).eval()(Tensor(images))
    return found


# Not those with attention: the sigmoid of a gate is positive everywhere.
@pytest.mark.parametrize("name", [name for name in NETWORKS if "attention" not in name])
@pytest.mark.parametrize("options", [{}, {"up": "nearest", "skips": "none"}], ids=["default", "nearest"])
def test_it_is_the_part_of_the_image_on_which_a_pixel_depends(rng, name, options):
    model = NETWORKS[name](widths=(1, 2), **options, rng=rng)
    found, expected = fields(model), measured(model, 96)
    assert found == expected
    assert max(expected.values()) < 96  # the axis was long enough


def test_of_a_diagnosis_it_is_the_whole_image(rng):
    found = fields(R2UNet(widths=(1, 2), task="both", rng=rng))
    assert found["diagnosis.linear"] is None
    assert found["head"] == fields(R2UNet(widths=(1, 2), rng=rng))["head"]


def test_blocks_that_are_recomputed_have_the_same_and_stay_recomputed(rng):
    model = R2UNet(widths=(1, 2), checkpoint_blocks=True, rng=rng)
    assert fields(model) == fields(R2UNet(widths=(1, 2), rng=rng))
    assert model.checkpoint_blocks


def test_an_attention_gate_sees_what_its_two_inputs_see_together(rng):
    found = fields(NETWORKS["r2-attention-unet"](widths=(1, 2), rng=rng))
    skip, below = found["gates.0.from_skip"], found["gates.0.from_below"]
    assert found["gates.0.psi"] == max(skip, below)

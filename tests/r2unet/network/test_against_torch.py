"""R2U-Net against PyTorch: equal weights and images give equal logits, loss and gradients."""

import sys
from pathlib import Path

import numpy as np
import pytest

from minidl import Tensor
from r2unet.network.losses import bce_and_dice
from r2unet.network.model import R2UNet

TESTS = Path(__file__).parents[2]
TOLERANCE = 1e-5  # of the largest element, in float32


def assert_close(ours: np.ndarray, theirs: np.ndarray, scale: float, what: str) -> None:
    error = float(np.abs(ours - theirs).max()) / scale
    assert error <= TOLERANCE, f"{what}: differs by {error:.1e} of {scale:.3g}"


def assert_agree(state, x, mask, widths, steps, training, logits, loss, gradients) -> None:
    """Compare logits, loss and gradients. A gradient's error is relative to its largest element.

    In training the bias before a batch norm has gradient zero, apart from rounding. Its error is relative to
    the gradient of the convolution's weight.
    """
    model = R2UNet(widths=widths, steps=steps, rng=np.random.default_rng(0))
    model.load_state_dict(state)
    model.train(training)
    y = model(Tensor(x))
    ours = bce_and_dice(y, Tensor(mask))
    ours.backward()
    assert_close(y.data, logits, np.abs(logits).max(), "logits")
    assert_close(np.float64(ours.item()), np.float64(loss), abs(loss), "loss")
    for name, p in model.named_parameters():
        reference = name.replace("bias", "weight") if training and ".norm" not in name else name
        scale = max(np.abs(gradients[name]).max(), np.abs(gradients[reference]).max())
        assert_close(p.grad, gradients[name], scale, name)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_agrees_with_the_stored_numbers_of_pytorch(mode):
    with np.load(TESTS / "r2unet_reference.npz") as file:
        stored = dict(file)
    state = {name.removeprefix("state/"): a for name, a in stored.items() if name.startswith("state/")}
    start = f"{mode}/gradient/"
    gradients = {name.removeprefix(start): a for name, a in stored.items() if name.startswith(start)}
    assert len(gradients) == 60
    assert_agree(
        state=state,
        x=stored["x"],
        mask=stored["mask"],
        widths=(3, 5, 6),
        steps=2,
        training=mode == "train",
        logits=stored[f"{mode}/logits"],
        loss=float(stored[f"{mode}/loss"]),
        gradients=gradients,
    )


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("training", [True, False])
def test_agrees_with_the_installed_pytorch(steps, training, rng, monkeypatch):
    pytest.importorskip("torch", reason="PyTorch is not installed; the stored numbers are compared instead")
    monkeypatch.setattr(sys, "path", [str(TESTS), *sys.path])
    from torch_r2unet import loss_and_gradients

    widths = (8, 16, 32, 64)
    model = R2UNet(widths=widths, steps=steps, rng=rng)
    for _, module in model.named_modules():
        module.momentum = 1.0  # the running statistics become those of one batch
    model(Tensor(rng.normal(size=(4, 3, 48, 32)).astype(np.float32)))
    state = model.state_dict()
    x = rng.normal(size=(2, 3, 48, 32)).astype(np.float32)
    mask = (rng.random((2, 1, 48, 32)) > 0.5).astype(np.float32)
    expected = loss_and_gradients(state, x, mask, len(widths), steps, training)
    assert_agree(state, x, mask, widths, steps, training, *expected)

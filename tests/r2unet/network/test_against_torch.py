"""The whole network against PyTorch: the same weights and images give the same logits, loss and gradients."""

import sys
from pathlib import Path

import numpy as np
import pytest

from minidl import Tensor
from r2unet.network.model import R2UNet
from r2unet.training.trainer import loss_of

TESTS = Path(__file__).parents[2]
TOLERANCE = 1e-5  # of the largest element, in float32


def assert_close(ours: np.ndarray, theirs: np.ndarray, scale: float, what: str) -> None:
    error = float(np.abs(ours - theirs).max()) / scale
    assert error <= TOLERANCE, f"{what}: differs by {error:.1e} of {scale:.3g}"


def assert_agree(state, x, mask, widths, steps, training, logits, loss, gradients) -> None:
    """Run our network and compare everything. A gradient is measured against its own largest element.

    The bias in front of a batch norm has the gradient zero in training: what either side computes is
    rounding, so it is measured against the convolution's weights beside it.
    """
    model = R2UNet(widths=widths, steps=steps, rng=np.random.default_rng(0))
    model.load_state_dict(state)
    model.train(training)
    y = model(Tensor(x))
    ours = loss_of(y, Tensor(mask))
    ours.backward()
    assert_close(y.data, logits, np.abs(logits).max(), "logits")
    assert_close(np.float64(ours.item()), np.float64(loss), abs(loss), "loss")
    for name, p in model.named_parameters():
        measure = name.replace("bias", "weight") if training and ".norm" not in name else name
        scale = max(np.abs(gradients[name]).max(), np.abs(gradients[measure]).max())
        assert_close(p.grad, gradients[name], scale, name)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_agrees_with_the_numbers_pytorch_gave(mode):
    with np.load(TESTS / "r2unet_reference.npz") as file:
        kept = dict(file)
    state = {name.removeprefix("state/"): a for name, a in kept.items() if name.startswith("state/")}
    start = f"{mode}/gradient/"
    gradients = {name.removeprefix(start): a for name, a in kept.items() if name.startswith(start)}
    assert len(gradients) == 60
    assert_agree(
        state=state,
        x=kept["x"],
        mask=kept["mask"],
        widths=(3, 5, 6),
        steps=2,
        training=mode == "train",
        logits=kept[f"{mode}/logits"],
        loss=float(kept[f"{mode}/loss"]),
        gradients=gradients,
    )


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("training", [True, False])
def test_agrees_with_pytorch_beside_it(steps, training, rng, monkeypatch):
    pytest.importorskip("torch", reason="PyTorch is not installed; the stored numbers are compared instead")
    monkeypatch.setattr(sys, "path", [str(TESTS), *sys.path])
    from torch_r2unet import loss_and_gradients

    widths = (8, 16, 32, 64)
    model = R2UNet(widths=widths, steps=steps, rng=rng)
    for _, module in model.named_modules():
        module.momentum = 1.0  # so that one batch settles the running statistics
    model(Tensor(rng.normal(size=(4, 3, 48, 32)).astype(np.float32)))
    state = model.state_dict()
    x = rng.normal(size=(2, 3, 48, 32)).astype(np.float32)
    mask = (rng.random((2, 1, 48, 32)) > 0.5).astype(np.float32)
    expected = loss_and_gradients(state, x, mask, len(widths), steps, training)
    assert_agree(state, x, mask, widths, steps, training, *expected)

"""A run takes the same steps with and without a CUDA graph; without one, it prints the reason."""

import numpy as np
import pytest

from minidl import nn
from minidl.backend import GPU
from minidl.implementation import choose, name_of
from minidl.ops.conv import convolution
from minidl.ops.conv.definition import Conv2d, ConvTranspose2d
from r2unet.errors import InputError
from r2unet.network.model import R2UNet
from r2unet.training.state import arrays_in

SMALL = {"widths": (2,), "steps": 1, "batch_size": 2, "images": 5}  # 3 batches, the last of them smaller


def train(run, epochs=1):
    """Run the steps of some epochs; return the bits of all that they leave."""
    run.state.train_mode()
    for _ in range(epochs):
        for batch in run.feed.batches():
            run.train_step(batch)
    losses = [float(value) for step in run.losses.unread for value in (step.loss, step.gradient_norm)]
    run.losses.unread.clear()
    arrays = {name: array.tobytes() for name, array in arrays_in(run.state.state_dict())}
    return losses, arrays


@pytest.fixture
def device(device):
    if device not in GPU:
        pytest.skip("the CPU launches no kernels")
    return device


@pytest.mark.parametrize(
    "settings",
    [
        {"widths": (2, 2), "ema": 0.9},
        {"norm": "group", "loss": "focal", "up": "nearest"},
        {"checkpoint_blocks": True},
        {"task": "both"},
        {"task": "both", "pooled_levels": "all"},
    ],
    ids=lambda settings: ", ".join(settings),
)
def test_losses_weights_statistics_moments_and_averages_are_the_same(new_trainer, tmp_path, device, settings):
    settings = {**SMALL, **settings}
    runs = [new_trainer(tmp_path, device=device, graph=graph, **settings) for graph in ("no", "yes")]
    expected, found = (train(run, epochs=2) for run in runs)
    assert found == expected
    assert runs[1].step.captured


def test_a_state_that_is_loaded_later_is_used(new_trainer, tmp_path, device):
    runs = [new_trainer(tmp_path, device=device, graph=graph, **SMALL) for graph in ("no", "yes")]
    results = []
    for run in runs:
        start = run.state.state_dict()
        train(run)
        run.load_state(start)
        results.append(train(run))
    assert results[0] == results[1]


class TestWithoutAGraph:
    def test_a_product_by_cublas_is_the_printed_reason(self, new_trainer, tmp_path, device):
        lines = []
        with convolution("im2col"):
            run = new_trainer(tmp_path, device=device, log=lines.append, **SMALL)
            train(run)
        assert lines[1:] == [  # the first one is about the feed
            "no CUDA graph: cuBLAS computes a matrix product (of im2col, or of a large linear layer), which "
            "CuPy cannot capture; each kernel is launched by itself"
        ]
        assert run.step.run == run.step.launches

    def test_it_is_an_error_if_a_graph_was_required(self, new_trainer, tmp_path, device):
        run = new_trainer(tmp_path, device=device, graph="yes", **SMALL)
        with (
            pytest.raises(InputError, match="--graph yes: cuBLAS .* use --graph auto"),
            convolution("im2col"),
        ):
            train(run)

    def test_a_profile_sees_every_operation(self, new_trainer, tmp_path, device):
        table = new_trainer(tmp_path, device=device, **SMALL).profile()
        assert "Conv2d" in table and "strips" in table


def test_the_cpu_has_no_graphs(r2unet, new_trainer, tiny, tmp_path):
    code, _, err = r2unet("train", *tiny, "--graph", "yes", "--out", tmp_path / "a")
    assert code == 2
    assert err == (
        "r2unet: error: --graph yes: cpu launches no kernels; use --device cuda, or --graph auto\n"
    )
    run = new_trainer(tmp_path / "b")
    assert run.step.run == run.step.launches


@pytest.mark.parametrize("widths", [(16, 32, 64, 128), (16, 24, 48, 96, 128)], ids=str)
def test_no_layer_of_a_network_of_up_to_128_channels_needs_cublas(widths):
    """So a training step of these networks can be captured."""
    definitions = {nn.Conv2d: Conv2d, nn.ConvTranspose2d: ConvTranspose2d}
    model = R2UNet(widths=widths, rng=np.random.default_rng(0))
    layers = [layer for _, layer in model.named_modules() if type(layer) in definitions]
    chosen = {
        name_of(choose(definitions[type(layer)], "cuda", layer.weight.shape, layer.stride, layer.padding))
        for layer in layers
    }
    assert chosen == {"strips", "phases", "pointwise"}

"""The summary of every layer: output shape, parameters and multiply-adds, compared with explicit counts."""

import numpy as np
import pytest

from minidl import Tensor
from r2unet.network.model import R2UNet
from r2unet.network.summary import as_table, image_of_zeros, summarize


@pytest.fixture
def lines(rng):
    model = R2UNet(widths=(2, 4), steps=1, rng=rng)
    return {line.name: line for line in summarize(model, image_of_zeros(8))}


# Level 0 has 2 channels at 8 x 8 = 64 pixels, level 1 has 4 at 4 x 4 = 16. A 3x3 convolution of C channels
# into OC has OC (9 C + 1) parameters and 9 C OC multiply-adds per pixel; it runs twice because steps is 1.
@pytest.mark.parametrize(
    "name, output, parameters, multiply_adds, calls",
    [
        ("encoder.0.project", (1, 2, 8, 8), 2 * (3 + 1), 2 * 3 * 64, 1),
        ("encoder.0.first.conv", (1, 2, 8, 8), 2 * (18 + 1), 2 * (2 * 18 * 64), 2),
        ("encoder.0.first.norm.0", (1, 2, 8, 8), 2 + 2, 2 * 64, 1),
        ("encoder.0.first.norm.1", (1, 2, 8, 8), 0, 2 * 64, 1),  # shares the weights of norm.0
        ("encoder.1.project", (1, 4, 4, 4), 4 * (2 + 1), 4 * 2 * 16, 1),
        ("encoder.1.second.conv", (1, 4, 4, 4), 4 * (36 + 1), 2 * (4 * 36 * 16), 2),
        # Each of 16 pixels of 4 channels contributes to 3 x 3 pixels of 2 channels.
        ("up.0.up", (1, 2, 8, 8), 4 * 2 * 9 + 2, 4 * 16 * 2 * 9, 1),
        ("up.0.norm", (1, 2, 8, 8), 2 + 2, 2 * 64, 1),
        ("decoder.0.project", (1, 2, 8, 8), 2 * (4 + 1), 2 * 4 * 64, 1),
        ("head", (1, 1, 8, 8), 2 + 1, 2 * 64, 1),
    ],
)
def test_each_layer_is_counted(lines, name, output, parameters, multiply_adds, calls):
    line = lines[name]
    assert line.output == output
    assert (line.parameters, line.multiply_adds, line.calls) == (parameters, multiply_adds, calls)


def test_totals(lines):
    # A block: projection, two recurrent convolutions, two shared norms.
    def block(before, after):
        return after * (before + 1) + 2 * after * (9 * after + 1) + 2 * 2 * after

    parameters = block(3, 2) + block(2, 4) + block(4, 2) + (4 * 2 * 9 + 2) + 4 + 3
    assert sum(line.parameters for line in lines.values()) == parameters

    def products(before, after, pixels):  # four convolutions and four norms a block
        return pixels * (before * after + 4 * 9 * after * after + 4 * after)

    multiply_adds = products(3, 2, 64) + products(2, 4, 16) + products(4, 2, 64)
    multiply_adds += 4 * 16 * 2 * 9 + 2 * 64 + 2 * 64
    assert sum(line.multiply_adds for line in lines.values()) == multiply_adds


@pytest.mark.parametrize("widths, steps", [((8, 16, 32, 64), 2), ((3,), 0), ((2, 4, 6), 3)])
def test_the_parameters_add_up_to_those_of_the_model(rng, widths, steps):
    model = R2UNet(widths=widths, steps=steps, rng=rng)
    lines = summarize(model, image_of_zeros(16))
    assert sum(line.parameters for line in lines) == sum(p.size for p in model.parameters())


def test_a_norm_shared_by_all_steps_is_one_row_with_all_its_calls(rng):
    for norm, per_element in (("shared", 1), ("group", 2)):
        model = R2UNet(widths=(2, 4), norm=norm, rng=rng)
        lines = {line.name: line for line in summarize(model, image_of_zeros(8))}
        line = lines["encoder.0.first.norm.0"]
        assert (line.parameters, line.calls, line.multiply_adds) == (4, 3, 3 * per_element * 2 * 64)
        assert "encoder.0.first.norm.1" not in lines


def test_the_model_is_unchanged(rng):
    model = R2UNet(widths=(2, 4), rng=rng)
    before, x = model.state_dict(), Tensor(rng.normal(size=(1, 3, 8, 8)).astype(np.float32))
    y = model.eval()(x).numpy()
    model.train()
    summarize(model, image_of_zeros(8))
    assert model.training and all(module.training for _, module in model.named_modules())
    assert all(np.array_equal(before[name], value) for name, value in model.state_dict().items())
    assert not any("forward" in vars(module) for _, module in model.named_modules())
    assert np.array_equal(model.eval()(x).numpy(), y)


def test_the_table_has_a_row_for_every_layer_and_totals(lines):
    head, *rows, total = as_table(list(lines.values())).splitlines()
    assert head.split("  ")[-4:] == ["receptive field", "parameters", "multiply-adds", "calls"]
    assert [row.split()[0] for row in rows] == list(lines)
    assert " ".join(rows[1].split()) == "encoder.0.first.conv Conv2d 2 x 8 x 8 5 x 5 38 4,608 2"
    sums = [sum(getattr(x, k) for x in lines.values()) for k in ("parameters", "multiply_adds")]
    assert total.split() == ["total", *(f"{n:,}" for n in sums)]


@pytest.mark.parametrize("task, pooled", [("both", 4 * 4), ("diagnosis", 2 * 4)])
def test_the_head_of_the_diagnosis_is_counted(rng, task, pooled):
    """A linear layer of the pooled features of 4 channels into 7 classes."""
    model = R2UNet(widths=(2, 4), steps=1, task=task, classes=7, rng=rng)
    lines = {line.name: line for line in summarize(model, image_of_zeros(8))}
    head = lines["diagnosis.linear"]
    assert (head.output, head.parameters, head.multiply_adds) == ((1, 7), 7 * (pooled + 1), 7 * pooled)
    assert ("head" in lines) == (task == "both")
    assert sum(line.parameters for line in lines.values()) == sum(p.size for p in model.parameters())

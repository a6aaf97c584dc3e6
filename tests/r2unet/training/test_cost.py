"""The cost of a training step: the memory estimate agrees with the measured peak; profiling gives a table."""

import tracemalloc

import numpy as np
import pytest

from minidl import Tensor
from minidl.optim import AdamW
from r2unet.network.losses import LOSSES
from r2unet.network.model import R2UNet, UNet
from r2unet.training.cost import MemoryEstimate, describe_memory, estimate_memory, profile, resident_bytes

MiB = 2**20


def bce_dice(model, images, masks):
    return LOSSES["bce+dice"](model(images), masks)


def measure_peak(new_model, batch, size):
    """Return the peak of two steps in bytes, with the network and its optimizer, as tracemalloc counts."""
    rng = np.random.default_rng(0)
    tracemalloc.start()
    model = new_model()
    optimizer = AdamW(model.parameters())
    for _ in range(2):
        images, masks = (Tensor(rng.random((batch, n, size, size), np.float32)) for n in (3, 1))
        optimizer.zero_grad()
        bce_dice(model, images, masks).backward()
        optimizer.step()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize(
    "network, options, batch, size",
    [
        (R2UNet, {"widths": (8, 16, 32, 64)}, 4, 128),
        (R2UNet, {"widths": (8, 16, 32, 64), "checkpoint_blocks": True}, 4, 128),
        (R2UNet, {"widths": (16, 32), "norm": "group", "skips": "add"}, 8, 96),
        (UNet, {"widths": (4, 8, 16), "up": "nearest"}, 3, 160),
    ],
)
def test_the_estimate_is_within_15_percent_of_the_peak(network, options, batch, size):
    def new_model():
        return network(**options, rng=np.random.default_rng(0))

    memory = estimate_memory(new_model, bce_dice, new_model().multiple)
    assert memory.peak(batch, size, size) == pytest.approx(measure_peak(new_model, batch, size), rel=0.15)


def test_activation_checkpointing_at_least_halves_the_peak():
    options = {"widths": (8, 16, 32), "rng": np.random.default_rng(0)}
    plain, recomputed = (
        measure_peak(lambda c=c: R2UNet(checkpoint_blocks=c, **options), 2, 96) for c in (0, 1)
    )
    assert recomputed < 0.5 * plain


def test_the_estimate_is_linear_in_the_number_of_pixels():
    memory = estimate_memory(lambda: R2UNet(widths=(4, 8), rng=np.random.default_rng(0)), bce_dice, 2)
    one, two, three = (memory.peak(n, 128, 128) for n in (1, 2, 3))
    assert three - two == pytest.approx(two - one, rel=1e-3) and two - one > MiB
    assert memory.peak(4, 128, 128) == memory.peak(1, 256, 256) == memory.peak(2, 128, 256)


def test_the_peak_is_the_largest_of_the_lines():
    memory = MemoryEstimate(np.array([0.0, 10.0, 50.0]), np.array([3.0, 2.0, 0.0]))
    assert [memory.peak(1, 1, pixels) for pixels in (1, 16, 19, 25)] == [50, 50, 57, 75]
    assert memory.peak(2, 5, 10) == 300


def test_very_deep_networks_are_not_estimated():
    assert (
        estimate_memory(lambda: R2UNet(widths=(1,) * 9, rng=np.random.default_rng(0)), bce_dice, 256) is None
    )
    assert "not estimated" in describe_memory(None, 1, 256)


def test_the_estimate_is_described_in_one_line():
    memory = MemoryEstimate(np.array([2.0 * MiB]), np.array([MiB / 1024]))
    assert describe_memory(memory, 4, 32, 60 * MiB) == (
        "a training step on 4 x 32 x 32 pixels takes about 6 MiB of arrays, 1.0 MiB per image; Python "
        "and its libraries take 60 MiB"
    )
    assert (
        describe_memory(memory, 1, 32) == "a training step on 1 x 32 x 32 pixels takes about 3 MiB of arrays"
    )


def test_tracing_that_was_on_before_stays_on():
    tracemalloc.start()
    estimate_memory(lambda: UNet(widths=(2, 4), rng=np.random.default_rng(0)), bce_dice, 2)
    assert tracemalloc.is_tracing()
    tracemalloc.stop()


def test_resident_memory_is_plausible_for_a_python_process():
    here = resident_bytes()
    assert here is None or 10 * MiB < here < 10_000 * MiB


def test_profile_runs_one_warm_up_step_and_five_profiled_steps():
    x, seen = Tensor(np.ones((4, 4), np.float32), requires_grad=True), []

    def step(batch):
        seen.append(batch)
        (x * 2.0).sum().backward()

    lines = profile(step, iter(range(100))).splitlines()
    assert seen == [0, 1, 2, 3, 4, 5]
    assert lines[0].split()[:2] == ["operation", "implementation"] and lines[-1].startswith("total")
    assert {tuple(line.split()[:3]) for line in lines[1:3]} == {
        ("Multiply", "definition", "1"),
        ("Sum", "definition", "1"),
    }

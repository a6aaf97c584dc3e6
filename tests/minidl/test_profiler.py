"""The profile lists every operation with its time and memory, and restores the engine afterwards."""

import numpy as np
import pytest

from minidl import Tensor, ops
from minidl.implementation import implementation
from minidl.profiler import Profile, Record, profiled
from minidl.tensor import Function

MiB = 2**20


@pytest.fixture
def image(rng):
    return Tensor(rng.normal(size=(2, 8, 64, 64)).astype(np.float32), requires_grad=True)  # 256 KiB


def test_every_operation_has_a_record_of_its_calls_and_times(image):
    with profiled() as profile:
        (ops.relu(ops.relu(image)) * 2.0).sum().backward()
    calls = {name: r.calls for (name, _), r in profile.records.items()}
    assert calls == {"ReLU": 2, "Multiply": 1, "Sum": 1}
    for record in profile.records.values():
        assert record.forward > 0 and record.backward > 0
    assert profile.seconds >= sum(r.forward + r.backward for r in profile.records.values())


def test_the_memory_is_the_bytes_kept_and_the_peak(image):
    with profiled() as profile:
        y = ops.exp(image)
    kept = profile.records["Exp", "definition"].kept
    assert image.data.nbytes <= kept < image.data.nbytes + 10_000
    assert kept <= profile.records["Exp", "definition"].peak < 2.2 * image.data.nbytes
    assert y.shape == image.shape


def test_profiling_does_not_change_the_results(image):
    with profiled():
        profiled_result = ops.relu(image)
        profiled_result.sum().backward()
    np.testing.assert_array_equal(profiled_result.data, np.maximum(image.data, 0))
    np.testing.assert_array_equal(image.grad, image.data > 0)


def test_the_engine_is_restored_even_after_an_error(image):
    before = Function.__call__, Function.checked_backward
    with pytest.raises(IndexError), profiled():
        ops.concat([image, image], axis=7)
    assert (Function.__call__, Function.checked_backward) == before


def test_each_implementation_of_an_operation_has_its_own_record(image):
    with profiled() as profile:
        ops.max_pool2d(image)
        with implementation("definition"):
            ops.max_pool2d(image)
            ops.max_pool2d(image)
    assert {key: r.calls for key, r in profile.records.items()} == {
        ("MaxPool2d", "running maximum"): 1,
        ("MaxPool2d", "definition"): 2,
    }


def test_the_table_is_sorted_by_cost_and_adds_up():
    profile = Profile(
        {
            ("Cheap", "definition"): Record(4, 0.01, 0.01, 0, 0),
            ("Expensive", "implicit GEMM"): Record(2, 0.2, 0.4, 4 * MiB, 3 * MiB),
        },
        1.0,
    )
    head, expensive, cheap, rest, total = profile.table(steps=2).splitlines()
    assert head.split() == [
        "operation",
        "implementation",
        "calls",
        "forward",
        "backward",
        "share",
        "kept",
        "peak",
    ]
    assert expensive.split() == [
        "Expensive",
        "implicit",
        "GEMM",
        "1",
        "100.00",
        "ms",
        "200.00",
        "ms",
        "60.0%",
        "2.00",
        "MiB",
        "3.00",
        "MiB",
    ]
    assert cheap.split()[:7] == ["Cheap", "definition", "2", "5.00", "ms", "5.00", "ms"]
    assert rest.split() == ["everything", "else", "190.00", "ms", "38.0%"]
    assert total.split() == ["total", "500.00", "ms"]

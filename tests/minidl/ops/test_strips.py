"""The kernels for 3x3 convolutions of stride 1: each strip, each piece, and which of them a layer gets."""

import re

import numpy as np
import pytest

from minidl.backend import to_numpy
from minidl.ops.conv import columns, definition, im2col, parts, strips


@pytest.fixture
def put(put, device):
    """The function of the same name, on devices that run CUDA kernels."""
    if device == "cpu":
        pytest.skip("these are CUDA kernels")
    return put


def test_sizes_defined_in_both_python_and_cuda_are_equal():
    text = strips.kernels.source.read_text(encoding="utf-8")
    assert f"COLUMNS = {strips.COLUMNS}, STRIPS = {strips.STRIPS};" in text
    assert f"TILE = {strips.TILE};" in text
    rows = re.findall(r"STRIPS_KERNEL\(strips_(?:forward|adjoint)_(\d), (\d), 1,", text)
    assert f"STRIPS_KERNEL(strips_halving, {strips.HALVING_ROWS}, 2, false)" in text
    assert rows == 2 * [(str(r), str(r)) for r in sorted(strips.ROWS)]
    text = columns.kernels.source.read_text(encoding="utf-8")
    for names in (("CHANNELS", "TILE"), ("COLUMNS", "ROWS")):
        assert ", ".join(f"{name} = {getattr(columns, name)}" for name in names) in text
    text = im2col.kernels.source.read_text(encoding="utf-8")
    assert f"CHANNELS = {im2col.CHANNELS};" in text
    text = parts.kernels.source.read_text(encoding="utf-8")
    assert f"WEIGHTS = {parts.WEIGHTS}, MOST_ROWS = {parts.ROWS};" in text


# channels, size: the rows that were fastest on an H200, or 1 % slower than the fastest (see strips.py)
MEASURED = {(8, 256): 8, (16, 128): 8, (32, 64): 8, (64, 32): 4}


@pytest.mark.parametrize("layer", MEASURED, ids=str)
def test_a_strip_has_as_many_rows_as_were_measured_to_be_fastest(layer):
    channels, size = layer
    assert strips.strip_rows(16, channels, (size, size)) == MEASURED[layer]


@pytest.mark.parametrize("rows", strips.ROWS)
def test_strips_of_every_length_agree_with_the_definition(rows, rng, put, monkeypatch):
    monkeypatch.setattr(strips, "ROWS", (rows,))
    for size, padding in [((9, 35), (1, 1)), ((3, 4), (0, 0)), ((1, 3), (1, 0)), ((33, 2), (0, 1))]:
        x, w, b = rng.normal(size=(2, 5, *size)), rng.normal(size=(9, 5, 3, 3)), rng.normal(size=(2, 9))
        expected = definition.convolve(x, w, b[0], (1, 1), padding)
        y = strips.convolve(put(x), put(w), put(b[0]), (1, 1), padding)
        np.testing.assert_allclose(to_numpy(y), expected, rtol=1e-10, atol=1e-12)
        dy, bias = rng.normal(size=y.shape), b[1, :5]
        wanted = definition.input_gradient(dy, w, bias, size, (1, 1), padding)
        dx = strips.input_gradient(put(dy), put(w), put(bias), size, (1, 1), padding)
        np.testing.assert_allclose(to_numpy(dx), wanted, rtol=1e-10, atol=1e-12)


def test_the_weight_gradient_by_columns_has_the_same_bits_twice_and_agrees_for_any_pieces(
    rng, put, monkeypatch
):
    x, dy = rng.normal(size=(2, 9, 19, 17)), rng.normal(size=(2, 3, 19, 17))
    expected = definition.weight_gradient(x, dy, (3, 3), (1, 1), (1, 1))
    for segment, blocks in [(32, 528), (5, 528), (16, 1)]:
        monkeypatch.setattr(columns, "SEGMENT", segment)
        monkeypatch.setattr(columns, "BLOCKS", blocks)
        dw, again = (to_numpy(columns.weight_gradient(put(x), put(dy), (1, 1))) for _ in range(2))
        np.testing.assert_allclose(dw, expected, rtol=1e-10, atol=1e-11)
        np.testing.assert_array_equal(dw, again)


@pytest.mark.parametrize("shape", [(1, 5), (2, 40), (16, 32), (50, 3, 11)], ids=str)
def test_parts_are_added_in_a_fixed_order(shape, rng, put):
    values = rng.normal(size=shape)
    total, again = (to_numpy(parts.add_parts(put(values))) for _ in range(2))
    np.testing.assert_allclose(total, values.sum(axis=0), rtol=1e-12, atol=1e-13)
    np.testing.assert_array_equal(total, again)

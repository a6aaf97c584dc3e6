"""The kernels for 3x3 convolutions of stride 2: strips, squares of 2x2 pixels, and columns."""

import re

import numpy as np
import pytest

from minidl import ops
from minidl.backend import to_numpy
from minidl.implementation import choose, name_of
from minidl.ops.conv import Conv2d, ConvTranspose2d, columns, definition, phases
from minidl.ops.window import output_size
from minidl.tensor import Tensor

PADDINGS = [(1, 1), (0, 0), (0, 1), (1, 0)]
# One pixel, odd and even sizes, squares that fill a block exactly, and one more in each direction.
SIZES = [(1, 3), (3, 4), (16, 64), (17, 65), (9, 131)]


@pytest.fixture
def put(put, device):
    """The function of the same name, on devices that run CUDA kernels."""
    if device == "cpu":
        pytest.skip("these are CUDA kernels")
    return put


def outputs(padding):
    """Return the sizes that some window fits into, each with the size of the convolution's output."""
    sizes = ((size, output_size(size, (3, 3), (2, 2), padding)) for size in SIZES)
    return [(size, output) for size, output in sizes if min(output) > 0]


def test_sizes_defined_in_both_python_and_cuda_are_equal():
    text = phases.kernels.source.read_text(encoding="utf-8")
    assert f"COLUMNS = {phases.COLUMNS}, STRIPS = {phases.STRIPS};" in text
    assert f"ROWS = {phases.ROWS}, TILE = {phases.TILE};" in text
    text = columns.kernels.source.read_text(encoding="utf-8")
    assert re.findall(r"COLUMNS_KERNEL\(columns_weight_gradient_(\d), (\d)\)", text) == [
        ("1", "1"),
        ("2", "2"),
    ]


@pytest.mark.parametrize("padding", PADDINGS, ids=str)
def test_the_forward_pass_agrees_with_the_definition(padding, rng, put):
    for size, _ in outputs(padding):
        x, w, b = rng.normal(size=(2, 9, *size)), rng.normal(size=(10, 9, 3, 3)), rng.normal(size=10)
        y = phases.convolve(put(x), put(w), put(b), (2, 2), padding)
        expected = definition.convolve(x, w, b, (2, 2), padding)
        np.testing.assert_allclose(to_numpy(y), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("padding", PADDINGS, ids=str)
def test_the_adjoint_agrees_with_the_definition(padding, rng, put):
    for size, output in outputs(padding):
        dy, w, b = rng.normal(size=(2, 5, *output)), rng.normal(size=(5, 9, 3, 3)), rng.normal(size=9)
        expected = definition.input_gradient(dy, w, b, size, (2, 2), padding)
        dx = phases.input_gradient(put(dy), put(w), put(b), size, (2, 2), padding)
        np.testing.assert_allclose(to_numpy(dx), expected, rtol=1e-10, atol=1e-12)


def test_the_adjoint_of_one_pixel_is_the_window(put):
    """With a padding of 1, the first row and column of the window are outside the image."""
    w = np.arange(9.0).reshape(1, 1, 3, 3)
    one = put(np.ones((1, 1, 1, 1)))
    whole = phases.input_gradient(one, put(w), None, (3, 3), (2, 2), (0, 0))
    np.testing.assert_array_equal(to_numpy(whole)[0, 0], w[0, 0])
    cropped = phases.input_gradient(one, put(w), None, (2, 2), (2, 2), (1, 1))
    np.testing.assert_array_equal(to_numpy(cropped)[0, 0], [[4.0, 5.0], [7.0, 8.0]])


@pytest.mark.parametrize("padding", PADDINGS, ids=str)
def test_the_weight_gradient_agrees_with_the_definition_for_any_pieces(padding, rng, put, monkeypatch):
    for segment, blocks in [(32, 528), (5, 3)]:
        monkeypatch.setattr(columns, "SEGMENT", segment)
        monkeypatch.setattr(columns, "BLOCKS", blocks)
        for size, output in outputs(padding):
            x, dy = rng.normal(size=(2, 9, *size)), rng.normal(size=(2, 10, *output))
            expected = definition.weight_gradient(x, dy, (3, 3), (2, 2), padding)
            dw = phases.weight_gradient(put(x), put(dy), (3, 3), (2, 2), padding)
            np.testing.assert_allclose(to_numpy(dw), expected, rtol=1e-10, atol=1e-11)


def test_an_upsampling_layer_in_float32_agrees_and_has_the_same_bits_twice(rng, put):
    arrays = rng.normal(size=(2, 12, 9, 11)), rng.normal(size=(12, 5, 3, 3)), rng.normal(size=5)
    settings = {"stride": 2, "padding": 1, "output_padding": 1}

    def passes(move):
        x, w, b = (Tensor(move(a.astype(np.float32)), requires_grad=True) for a in arrays)
        y = ops.conv_transpose2d(x, w, b, **settings)
        y.backward(move(np.ones(y.shape, np.float32)))
        return [to_numpy(a) for a in (y.data, x.grad, w.grad, b.grad)]

    first, again, expected = passes(put), passes(put), passes(np.asarray)
    for a, b, e in zip(first, again, expected, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", [Conv2d, ConvTranspose2d])
def test_which_layers_are_computed_by_phases(kind):
    def chosen(shape, stride, padding):
        return name_of(choose(kind, "cuda", shape, stride, padding))

    assert chosen((16, 8, 3, 3), (2, 2), (1, 1)) == chosen((128, 128, 3, 3), (2, 2), (0, 0)) == "phases"
    assert chosen((16, 8, 3, 3), (2, 1), (1, 1)) == chosen((16, 8, 3, 3), (2, 2), (2, 1)) == "implicit GEMM"
    assert chosen((16, 8, 2, 2), (2, 2), (0, 0)) == "implicit GEMM"
    assert chosen((129, 8, 3, 3), (2, 2), (1, 1)) == "im2col"

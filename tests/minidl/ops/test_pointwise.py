"""The kernels for 1x1 convolutions: each tile, any pieces, and which layers they get."""

import re

import numpy as np
import pytest

from minidl.backend import to_numpy
from minidl.implementation import choose, name_of
from minidl.ops.conv import Conv2d, ConvTranspose2d, definition, pointwise

SETTINGS = (1, 1), (0, 0)
# Channels and sizes: one pixel, no multiple of a tile; 8 channels and 256 pixels, and one more of each.
LAYERS = [(5, 9, (3, 7)), (3, 1, (1, 1)), (1, 35, (2, 5)), (8, 16, (8, 32)), (9, 17, (1, 257))]


@pytest.fixture
def put(put, device):
    """The function of the same name, on devices that run CUDA kernels."""
    if device == "cpu":
        pytest.skip("these are CUDA kernels")
    return put


def test_sizes_defined_in_both_python_and_cuda_are_equal():
    text = pointwise.kernels.source.read_text(encoding="utf-8")
    for name in ("THREADS", "PIXELS", "SIDE"):
        assert f"const int {name} = {getattr(pointwise, name)};" in text
    tiles = re.findall(r"POINTWISE\(pointwise_(?:forward|adjoint)_(\d+), (\d+),", text)
    assert tiles == 2 * [(str(tile), str(tile)) for tile in sorted(pointwise.TILES)]
    assert pointwise.THREADS >= pointwise.SIDE**2


@pytest.mark.parametrize("tile", pointwise.TILES)
def test_tiles_of_every_size_agree_with_the_definition(tile, rng, put, monkeypatch):
    monkeypatch.setattr(pointwise, "TILES", (tile,))
    for C, OC, size in LAYERS:
        x, w, b = rng.normal(size=(2, C, *size)), rng.normal(size=(OC, C, 1, 1)), rng.normal(size=OC)
        y = pointwise.convolve(put(x), put(w), put(b), *SETTINGS)
        expected = definition.convolve(x, w, b, *SETTINGS)
        np.testing.assert_allclose(to_numpy(y), expected, rtol=1e-10, atol=1e-12)
        dy, bias = rng.normal(size=y.shape), rng.normal(size=C)
        dx = pointwise.input_gradient(put(dy), put(w), put(bias), size, *SETTINGS)
        wanted = definition.input_gradient(dy, w, bias, size, *SETTINGS)
        np.testing.assert_allclose(to_numpy(dx), wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("blocks", "least"), [(528, 1024), (528, 1), (40, 50), (1, 1)])
def test_the_weight_gradient_has_the_same_bits_twice_and_agrees_for_any_pieces(
    blocks, least, rng, put, monkeypatch
):
    monkeypatch.setattr(pointwise, "BLOCKS", blocks)
    monkeypatch.setattr(pointwise, "PIECE_PIXELS", least)
    for C, OC, size in LAYERS:
        x, dy = rng.normal(size=(3, C, *size)), rng.normal(size=(3, OC, *size))
        expected = definition.weight_gradient(x, dy, (1, 1), *SETTINGS)
        dw, again = (
            to_numpy(pointwise.weight_gradient(put(x), put(dy), (1, 1), *SETTINGS)) for _ in range(2)
        )
        np.testing.assert_allclose(dw, expected, rtol=1e-10, atol=1e-11)
        np.testing.assert_array_equal(dw, again)


def test_float32_agrees_with_the_definition(rng, put):
    x, w = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 20, 7, 9), (33, 20, 1, 1)))
    y = to_numpy(pointwise.convolve(put(x), put(w), None, *SETTINGS))
    dw = to_numpy(pointwise.weight_gradient(put(x), put(y), (1, 1), *SETTINGS))
    assert y.dtype == dw.dtype == np.float32
    np.testing.assert_allclose(y, definition.convolve(x, w, None, *SETTINGS), rtol=1e-5, atol=1e-5)
    wanted = definition.weight_gradient(x, y, (1, 1), *SETTINGS)
    np.testing.assert_allclose(dw, wanted, rtol=1e-5, atol=1e-3)


def test_a_tile_is_at_most_half_empty_and_leaves_enough_blocks():
    """16 images: many pixels get large tiles, few pixels small ones."""
    assert pointwise.channels_of_a_block(16, 32, 256 * 256) == 32
    assert pointwise.channels_of_a_block(16, 17, 256 * 256) == 32
    assert pointwise.channels_of_a_block(16, 16, 256 * 256) == 16
    assert pointwise.channels_of_a_block(16, 1, 256 * 256) == 8
    assert pointwise.channels_of_a_block(16, 64, 32 * 32) == 8  # 512 blocks, and 128 with tiles of 32


@pytest.mark.parametrize("kind", [Conv2d, ConvTranspose2d])
def test_which_layers_are_computed_pixel_by_pixel(kind):
    def chosen(shape, stride=(1, 1), padding=(0, 0)):
        return name_of(choose(kind, "cuda", shape, stride, padding))

    assert chosen((1, 8, 1, 1)) == chosen((128, 256, 1, 1)) == "pointwise"
    assert chosen((8, 8, 1, 1), stride=(2, 2)) == chosen((8, 8, 1, 1), padding=(0, 1)) == "implicit GEMM"
    assert chosen((8, 8, 1, 2)) == "implicit GEMM"
    assert chosen((257, 8, 1, 1)) == "im2col"

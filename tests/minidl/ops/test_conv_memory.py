"""A convolution processes its batch in pieces, and stores and computes only what is needed."""

import numpy as np
import pytest

from minidl import ops
from minidl.backend import DEVICES
from minidl.ops.conv import definition, im2col
from minidl.tensor import Tensor

BOTH_OPERATIONS = pytest.mark.parametrize("f", [ops.conv2d, ops.conv_transpose2d])


@pytest.mark.parametrize("images", [1, 3, 100])
@pytest.mark.parametrize("stride", [1, 2])
def test_results_do_not_depend_on_the_size_of_the_pieces(images, stride, rng, gradients, value, monkeypatch):
    x, w, b = rng.normal(size=(7, 2, 6, 5)), rng.normal(size=(3, 2, 3, 3)), rng.normal(size=3)
    back = rng.normal(size=2)

    def convolve(*inputs):
        return ops.conv2d(*inputs, stride=stride, padding=1)

    def transposed(*inputs):
        return ops.conv_transpose2d(*inputs, stride=stride, padding=1)

    y = value(convolve, x, w, b)
    dy, dx = rng.normal(size=y.shape), rng.normal(size=value(transposed, y, w, back).shape)

    def all_results():
        yield from (value(convolve, x, w, b), value(transposed, y, w, back))
        yield from gradients(convolve, x, w, b, cotangent=dy)
        yield from gradients(transposed, y, w, back, cotangent=dx)

    whole = list(all_results())
    col_bytes = w[0].size * y[0, 0].size * w.itemsize
    monkeypatch.setattr(im2col, "PIECE_BYTES", dict.fromkeys(DEVICES, images * col_bytes))
    for in_pieces, at_once in zip(all_results(), whole, strict=True):
        np.testing.assert_allclose(in_pieces, at_once, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("limit, lengths", [(1, [1] * 7), (2, [2, 2, 2, 1]), (2.9, [2, 2, 2, 1]), (99, [7])])
def test_pieces_cover_the_batch_once_and_stay_within_the_limit(limit, lengths, put, device, monkeypatch):
    x = put(np.zeros((7, 2, 6, 5), np.float32))
    col_bytes = (2 * 3 * 3) * (4 * 3) * 4  # C KH KW rows, OH OW columns, four bytes each
    monkeypatch.setitem(im2col.PIECE_BYTES, device, int(limit * col_bytes))
    images = [list(range(7)[piece]) for piece in im2col.pieces(x, 2 * 3 * 3, 4, 3)]
    assert [len(piece) for piece in images] == lengths
    assert sum(images, []) == list(range(7))
    assert definition.im2col(x[:1], (3, 3), (1, 1), (0, 0)).nbytes == col_bytes


def test_an_image_larger_than_the_limit_is_its_own_piece(put, device, monkeypatch):
    monkeypatch.setitem(im2col.PIECE_BYTES, device, 1)
    assert len(list(im2col.pieces(put(np.zeros((3, 1, 4, 4))), 4, 3, 3))) == 3


@BOTH_OPERATIONS
def test_the_columns_are_not_stored_for_the_backward_pass(f, rng):
    x, w = Tensor(rng.normal(size=(2, 3, 5, 5))), Tensor(rng.normal(size=(3, 3, 3, 3)), requires_grad=True)
    saved = [a for a in vars(f(x, w).creator).values() if isinstance(a, np.ndarray)]
    assert {id(a) for a in saved} == {id(x.data), id(w.data)}


@BOTH_OPERATIONS
def test_only_required_gradients_are_computed(f, rng):
    x, w = rng.normal(size=(2, 3, 5, 5)), rng.normal(size=(3, 3, 3, 3))
    for required in (0, 1):
        y = f(*(Tensor(a, requires_grad=i == required) for i, a in enumerate((x, w))))
        found = y.creator.backward(np.ones(y.shape))
        assert found[required] is not None and found[1 - required] is None

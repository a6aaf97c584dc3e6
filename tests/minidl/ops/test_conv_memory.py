"""A convolution processes its batch in pieces, and stores and computes only what is needed."""

import numpy as np
import pytest

from minidl import Parameter, ops
from minidl.backend import DEVICES, problem_of, to_device
from minidl.cuda_on_cpu import array
from minidl.ops.conv import convolution, definition, im2col
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


@pytest.fixture
def operations(monkeypatch):
    """Return a function that runs another one and returns what the emulator's arrays did: (name, axes)."""
    if problem := problem_of("cuda-on-cpu"):
        pytest.skip(problem)
    done = []
    call, reshape = array.call, np.ndarray.reshape

    def recorded_call(function, name, inputs, options):
        done.append((name, max(getattr(a, "ndim", 0) for a in inputs)))
        return call(function, name, inputs, options)

    def recorded_reshape(x, *shape):
        result = reshape(x, *shape)
        if result.base is not x and result.base is not x.base:
            done.append(("copy", x.ndim))
        return result

    def run(f, *inputs):
        with monkeypatch.context() as patch:
            patch.setattr(array, "call", recorded_call)
            patch.setattr(array.Array, "reshape", recorded_reshape)
            f(*inputs)
        found = [each for each in done if each[0] != "add.reduce"]  # the gradient of the bias
        done.clear()
        return found

    return run


@BOTH_OPERATIONS
@pytest.mark.parametrize("stride", [1, 2])
def test_each_pass_through_im2col_is_one_product_besides_kernels_of_our_own(f, stride, rng, operations):
    """On a GPU every array operation is a launch, and a product of a batch of matrices is several."""
    x, w, b = (to_device(rng.normal(size=n), "cuda-on-cpu") for n in [(4, 3, 7, 7), (3, 3, 3, 3), 3])
    with convolution("im2col"):
        creator = f(Tensor(x, requires_grad=True), *map(Parameter, (w, b)), stride=stride, padding=1).creator
    dy = array.xp.ones(creator.forward(x, w, b).shape)
    product, bias = ("matmul", 2), ("add", 4)
    assert operations(creator.forward, x, w, b) == [product, bias]
    bias_of_backward = [] if f is ops.conv2d else [bias]  # its convolution adds a bias of 0
    assert operations(creator.backward, dy) == [product, *bias_of_backward, product]


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

"""Convolution and transposed convolution agree with naive loops for many geometries, forward and backward."""

import itertools
import re

import numpy as np
import pytest

from minidl import ops
from minidl.backend import to_numpy
from minidl.gradcheck import check_adjoint, check_vjp
from minidl.ops import conv
from minidl.ops.conv import definition, im2col, implicit_gemm, strips
from minidl.ops.conv import rows as row_views
from minidl.ops.window import output_size
from minidl.tensor import Tensor
from minidl.threads import set_threads

BOTH_DTYPES = pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-5), (np.float64, 1e-12)])

# image (H, W), kernel, stride, padding
GEOMETRIES = {
    "3x3, same size": ((5, 6), (3, 3), (1, 1), (1, 1)),
    "1x1": ((4, 5), (1, 1), (1, 1), (0, 0)),
    "1x1 with a stride": ((4, 5), (1, 1), (2, 3), (0, 0)),
    "kernel as large as the image": ((4, 3), (4, 3), (1, 1), (0, 0)),
    "kernel larger than the image": ((2, 1), (4, 3), (1, 1), (1, 1)),
    "one pixel": ((1, 1), (3, 3), (1, 1), (1, 1)),
    "rectangular": ((7, 6), (3, 2), (2, 1), (1, 0)),
    "stride of two": ((6, 8), (2, 2), (2, 2), (0, 0)),
    "sides not divisible by the stride": ((6, 7), (3, 3), (2, 3), (0, 1)),
    "stride larger than the kernel": ((7, 8), (2, 1), (3, 4), (0, 0)),
    "padding larger than the kernel": ((3, 4), (2, 2), (1, 1), (2, 3)),
    "padding as large as the kernel": ((3, 4), (2, 3), (1, 1), (1, 3)),
    "stride and padding": ((5, 4), (3, 3), (2, 2), (2, 1)),
}
ALL_GEOMETRIES = pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
BOTH_OPERATIONS = pytest.mark.parametrize("f", [ops.conv2d, ops.conv_transpose2d])
CHANNELS = pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 2, 4)], ids="N, C, OC = {}".format)


@pytest.fixture(autouse=True, params=["im2col", "direct"])
def method(request):
    """Every test of this file runs with both methods."""
    with conv.convolution(request.param):
        yield request.param


@pytest.fixture
def modules(device):
    """The modules with an im2col and a col2im for the device under test: the definition, and the kernels."""
    return [definition] if device == "cpu" else [definition, im2col]


def naive_windows(size, kernel, stride, padding):
    """Yield (i, j, rows, columns): the window of output pixel (i, j) in the padded image."""
    tops = range(0, size[0] + 2 * padding[0] - kernel[0] + 1, stride[0])
    lefts = range(0, size[1] + 2 * padding[1] - kernel[1] + 1, stride[1])
    for (i, top), (j, left) in itertools.product(enumerate(tops), enumerate(lefts)):
        yield i, j, slice(top, top + kernel[0]), slice(left, left + kernel[1])


def naive_conv2d(x, w, b, stride, padding):
    padded = np.pad(x, [(0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2])
    windows = list(naive_windows(x.shape[2:], w.shape[2:], stride, padding))
    y = np.zeros((len(x), len(w), windows[-1][0] + 1, windows[-1][1] + 1))
    for n, o, (i, j, rows, columns) in itertools.product(range(len(x)), range(len(w)), windows):
        y[n, o, i, j] = (padded[n, :, rows, columns] * w[o]).sum() + b[o]
    return y


def naive_conv2d_gradients(x, w, dy, stride, padding):
    """Every output pixel adds dy w to each pixel of its window, and dy x to each weight."""
    margins = [(0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2]
    padded, dw = np.pad(x, margins), np.zeros_like(w)
    dpadded = np.zeros_like(padded)
    windows = list(naive_windows(x.shape[2:], w.shape[2:], stride, padding))
    for n, o, (i, j, rows, columns) in itertools.product(range(len(x)), range(len(w)), windows):
        dpadded[n, :, rows, columns] += dy[n, o, i, j] * w[o]
        dw[o] += dy[n, o, i, j] * padded[n, :, rows, columns]
    (H, W), (PH, PW) = x.shape[2:], padding
    return dpadded[:, :, PH : PH + H, PW : PW + W], dw, dy.sum((0, 2, 3))


def naive_conv_transpose2d(x, w, b, stride, padding, extra):
    """Every pixel of x adds a scaled kernel to a canvas, which is then cropped by the padding."""
    (N, _, H, W), (_, OC, KH, KW) = x.shape, w.shape
    canvas = np.zeros((N, OC, (H - 1) * stride[0] + KH + extra[0], (W - 1) * stride[1] + KW + extra[1]))
    for n, c, i, j in np.ndindex(x.shape):
        top, left = stride[0] * i, stride[1] * j
        canvas[n, :, top : top + KH, left : left + KW] += x[n, c, i, j] * w[c]
    OH, OW = canvas.shape[2] - 2 * padding[0], canvas.shape[3] - 2 * padding[1]
    return canvas[:, :, padding[0] : padding[0] + OH, padding[1] : padding[1] + OW] + b[:, None, None]


def leftover(size, kernel, stride, padding):
    """The rows and columns at the end that no window covers: the output_padding of the adjoint."""
    return tuple((n + 2 * p - k) % s for n, k, s, p in zip(size, kernel, stride, padding, strict=True))


@CHANNELS
@ALL_GEOMETRIES
def test_conv2d_and_its_gradients_agree_with_naive_loops(geometry, sizes, rng, value, gradients):
    (size, kernel, stride, padding), (N, C, OC) = geometry, sizes
    x, w, b = rng.normal(size=(N, C, *size)), rng.normal(size=(OC, C, *kernel)), rng.normal(size=OC)

    def f(*inputs):
        return ops.conv2d(*inputs, stride=stride, padding=padding)

    expected = naive_conv2d(x, w, b, stride, padding)
    y = value(f, x, w, b)
    assert y.shape == expected.shape
    np.testing.assert_allclose(y, expected, rtol=1e-10, atol=1e-12)
    dy = rng.normal(size=expected.shape)
    wanted = naive_conv2d_gradients(x, w, dy, stride, padding)
    for dx, naive in zip(gradients(f, x, w, b, cotangent=dy), wanted, strict=True):
        np.testing.assert_allclose(dx, naive, rtol=1e-10, atol=1e-12)


@CHANNELS
@ALL_GEOMETRIES
def test_conv_transpose2d_agrees_with_naive_scattering(geometry, sizes, rng, value):
    (size, kernel, stride, padding), (N, C, OC) = geometry, sizes
    extra = leftover(*geometry)
    x = rng.normal(size=(N, C, *output_size(size, kernel, stride, padding)))
    w, b = rng.normal(size=(C, OC, *kernel)), rng.normal(size=OC)
    y = value(lambda *inputs: ops.conv_transpose2d(*inputs, stride, padding, extra), x, w, b)
    assert y.shape == (N, OC, *size)
    np.testing.assert_allclose(
        y, naive_conv_transpose2d(x, w, b, stride, padding, extra), rtol=1e-10, atol=1e-12
    )


@CHANNELS
@ALL_GEOMETRIES
def test_the_gradients_of_conv_transpose2d_are_those_of_conv2d_with_the_roles_exchanged(
    geometry, sizes, rng, gradients
):
    (size, kernel, stride, padding), (N, C, OC) = geometry, sizes
    x = rng.normal(size=(N, C, *output_size(size, kernel, stride, padding)))
    w, b, dy = rng.normal(size=(C, OC, *kernel)), rng.normal(size=OC), rng.normal(size=(N, OC, *size))

    def f(*inputs):
        return ops.conv_transpose2d(*inputs, stride, padding, leftover(*geometry))

    dx, dw, db = gradients(f, x, w, b, cotangent=dy)
    np.testing.assert_allclose(dx, naive_conv2d(dy, w, np.zeros(C), stride, padding), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(
        dw, naive_conv2d_gradients(dy, w, x, stride, padding)[1], rtol=1e-10, atol=1e-12
    )
    np.testing.assert_allclose(db, dy.sum((0, 2, 3)), rtol=1e-12)


@ALL_GEOMETRIES
def test_both_operations_agree_with_a_central_difference(geometry, rng):
    size, kernel, stride, padding = geometry
    x, w, b = rng.normal(size=(2, 3, *size)), rng.normal(size=(4, 3, *kernel)), rng.normal(size=4)
    check_vjp(lambda *inputs: ops.conv2d(*inputs, stride, padding), x, w, b, rng=rng)
    small = rng.normal(size=(2, 4, *output_size(*geometry)))
    back = rng.normal(size=3)
    extra = leftover(*geometry)
    check_vjp(lambda *inputs: ops.conv_transpose2d(*inputs, stride, padding, extra), small, w, back, rng=rng)


@BOTH_DTYPES
@ALL_GEOMETRIES
def test_im2col_and_col2im_are_adjoint(geometry, dtype, tolerance, rng, put, modules):
    size, kernel, stride, padding = geometry
    OH, OW = output_size(*geometry)
    x = put(rng.random((2, 3, *size)).astype(dtype))
    col = put(rng.random((2, 3 * kernel[0] * kernel[1], OH * OW)).astype(dtype))
    for module in modules:
        check_adjoint(
            lambda a, module=module: module.im2col(a, kernel, stride, padding),
            lambda c, module=module: module.col2im(c, size, kernel, stride, padding),
            x,
            col if module is definition else im2col.side_by_side(col),
            tolerance,
        )


@BOTH_DTYPES
@ALL_GEOMETRIES
def test_conv2d_and_conv_transpose2d_are_adjoint(geometry, dtype, tolerance, rng, put):
    size, kernel, stride, padding = geometry
    x = put(rng.random((2, 3, *size)).astype(dtype))
    y = put(rng.random((2, 4, *output_size(*geometry))).astype(dtype))
    w = Tensor(put(rng.random((4, 3, *kernel)).astype(dtype)))
    check_adjoint(
        lambda a: ops.conv2d(Tensor(a), w, None, stride, padding).data,
        lambda b: ops.conv_transpose2d(Tensor(b), w, None, stride, padding, leftover(*geometry)).data,
        x,
        y,
        tolerance,
    )


def test_im2col_copies_each_window_into_a_column(put, modules):
    x = put(np.arange(9.0).reshape(1, 1, 3, 3))
    expected = [[0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8]]  # the 4 windows, read downwards
    for module in modules:
        col = to_numpy(module.im2col(x, (2, 2), (1, 1), (0, 0)))
        np.testing.assert_array_equal(col.reshape(4, 4), expected)


def test_the_kernels_copy_the_columns_of_all_images_side_by_side(rng, put, modules):
    x = put(rng.random((3, 2, 5, 4)))
    geometry = (3, 2), (2, 1), (1, 0)
    expected = (
        to_numpy(definition.im2col(x, *geometry)).swapaxes(0, 1).reshape(12, -1)
    )  # 2 3 2 numbers a window
    for module in modules[1:]:
        np.testing.assert_array_equal(to_numpy(module.im2col(x, *geometry)), expected)


def test_col2im_counts_the_windows_that_see_each_pixel(put, modules):
    ones = put(np.ones((1, 4, 4)))
    for module in modules:
        columns = ones if module is definition else ones[0]
        counts = to_numpy(module.col2im(columns, (3, 3), (2, 2), (1, 1), (0, 0)))
        np.testing.assert_array_equal(counts[0, 0], [[1, 2, 1], [2, 4, 2], [1, 2, 1]])


def test_conv2d_is_a_cross_correlation_the_kernel_is_not_flipped(value):
    x = np.zeros((1, 1, 3, 3))
    x[0, 0, 1, 1] = 1.0
    w = np.arange(9.0).reshape(1, 1, 3, 3)
    y = value(lambda a, b: ops.conv2d(a, b, padding=1), x, w)
    np.testing.assert_array_equal(y, w[:, :, ::-1, ::-1])


def test_pixels_outside_every_window_receive_a_zero_gradient(gradients):
    x, w, dy = np.ones((1, 1, 5, 6)), np.ones((1, 1, 2, 2)), np.ones((1, 1, 2, 2))
    dx, _ = gradients(lambda a, b: ops.conv2d(a, b, stride=3), x, w, cotangent=dy)
    covered = np.outer([1, 1, 0, 1, 1], [1, 1, 0, 1, 1, 0])
    np.testing.assert_array_equal(dx[0, 0], covered)


def test_every_implementation_has_the_same_input_gradient(rng, put, device):
    for kernel, padding in [((3, 3), (1, 1)), ((3, 2), (0, 1)), ((1, 1), (0, 0)), ((4, 5), (3, 2))]:
        x, w = rng.normal(size=(2, 3, 5, 6)), rng.normal(size=(4, 3, *kernel))
        OH, OW = output_size((5, 6), kernel, (1, 1), padding)
        dy = rng.normal(size=(2, 4, OH, OW))
        arguments = put(dy), put(w), None, (5, 6), (1, 1), padding
        expected = definition.input_gradient(*arguments)
        on_gpu = [im2col, implicit_gemm, *([strips] if kernel == (3, 3) else [])]
        for module in [row_views] if device == "cpu" else on_gpu:
            dx = module.input_gradient(*arguments)
            assert dx.shape == expected.shape == x.shape
            np.testing.assert_allclose(to_numpy(dx), to_numpy(expected), rtol=1e-10, atol=1e-12)


def test_im2col_copies_nothing_for_the_output_and_the_input_gradient_of_a_1x1_window(
    rng, put, device, monkeypatch
):
    if device == "cpu":
        pytest.skip("im2col.py has CUDA kernels")
    x, w, b = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(6, 3, 1, 1)), rng.normal(size=6)
    settings = (1, 1), (0, 0)
    monkeypatch.setattr(im2col, "kernels", None)  # a launch would fail
    y = im2col.convolve(put(x), put(w), put(b), *settings)
    np.testing.assert_allclose(to_numpy(y), definition.convolve(x, w, b, *settings), rtol=1e-12, atol=1e-13)
    dy = rng.normal(size=y.shape)
    dx = im2col.input_gradient(put(dy), put(w), put(b[:3]), (4, 5), *settings)
    expected = definition.input_gradient(dy, w, b[:3], (4, 5), *settings)
    np.testing.assert_allclose(to_numpy(dx), expected, rtol=1e-12, atol=1e-13)


@BOTH_OPERATIONS
def test_the_bias_is_optional_and_an_integer_applies_to_both_axes(f, rng, value, gradients):
    x, w = rng.normal(size=(2, 3, 6, 5)), rng.normal(size=(3, 3, 3, 3))
    plain = value(lambda a, b: f(a, b, stride=2, padding=1), x, w)
    with_zeros = value(lambda *t: f(*t, stride=(2, 2), padding=(1, 1)), x, w, np.zeros(3))
    np.testing.assert_array_equal(plain, with_zeros)
    dy = rng.normal(size=plain.shape)
    assert len(gradients(lambda a, b: f(a, b, stride=2, padding=1), x, w, cotangent=dy)) == 2


@pytest.mark.parametrize("extra", [(0, 0), (1, 0), (1, 2)])
def test_output_padding_selects_among_the_sizes_that_a_convolution_maps_to_one_size(extra, value):
    x, w = np.ones((1, 2, 4, 3)), np.ones((2, 1, 3, 3))
    y = value(lambda a, b: ops.conv_transpose2d(a, b, None, (2, 3), 1, extra), x, w)
    assert y.shape == (1, 1, 7 + extra[0], 7 + extra[1])
    assert output_size(y.shape[2:], (3, 3), (2, 3), (1, 1)) == (4, 3)


def test_a_transposed_convolution_with_stride_two_doubles_an_image(value):
    x, w = np.array([[[[1.0, 2.0], [3.0, 4.0]]]]), np.array([[[[1.0, 10.0], [100.0, 1000.0]]]])
    y = value(lambda a, b: ops.conv_transpose2d(a, b, stride=2), x, w)
    np.testing.assert_array_equal(y[0, 0], np.kron(x[0, 0], w[0, 0]))


def test_an_empty_batch_gives_an_empty_batch(value):
    assert value(ops.conv2d, np.ones((0, 2, 4, 4)), np.ones((3, 2, 3, 3))).shape == (0, 3, 2, 2)


INVALID = {
    "an image without a batch axis": (lambda f, t: f(t(3, 4, 4), t(3, 3, 3, 3)), [(3, 4, 4), (3, 3, 3, 3)]),
    "a kernel of two axes": (lambda f, t: f(t(1, 3, 4, 4), t(3, 3)), [(1, 3, 4, 4), (3, 3)]),
    "channels": (lambda f, t: f(t(1, 2, 4, 4), t(3, 3, 2, 2)), [(1, 2, 4, 4), (3, 3, 2, 2)]),
    "bias": (lambda f, t: f(t(1, 3, 4, 4), t(3, 3, 2, 2), t(4)), [(3,), (4,)]),
    "a bias of two axes": (lambda f, t: f(t(1, 3, 4, 4), t(3, 3, 2, 2), t(3, 1)), [(3,), (3, 1)]),
    "stride": (lambda f, t: f(t(1, 3, 4, 4), t(3, 3, 2, 2), stride=(1, 0)), [(1, 0)]),
    "padding": (lambda f, t: f(t(1, 3, 4, 4), t(3, 3, 2, 2), padding=-1), [(-1, -1)]),
}


@BOTH_OPERATIONS
@pytest.mark.parametrize("name", INVALID)
def test_the_error_for_mismatched_shapes_names_the_operation_and_the_shapes(f, name):
    call, mentioned = INVALID[name]
    with pytest.raises(ValueError) as error:
        call(f, lambda *shape: Tensor(np.ones(shape)))
    assert str(error.value).startswith(f"{f.__name__}: ")
    assert all(str(shape) in str(error.value) for shape in mentioned)


def test_the_bias_must_match_the_output_channels_not_the_input_channels():
    x, w = Tensor(np.ones((1, 2, 4, 4))), Tensor(np.ones((3, 2, 2, 2)))
    assert ops.conv2d(x, w, Tensor(np.ones(3))).shape == (1, 3, 3, 3)
    with pytest.raises(ValueError, match=r"conv2d: expected a bias of \(3,\), got \(2,\)"):
        ops.conv2d(x, w, Tensor(np.ones(2)))
    y = Tensor(np.ones((1, 3, 4, 4)))
    assert ops.conv_transpose2d(y, w, Tensor(np.ones(2))).shape == (1, 2, 5, 5)
    with pytest.raises(ValueError, match=r"conv_transpose2d: expected a bias of \(2,\), got \(3,\)"):
        ops.conv_transpose2d(y, w, Tensor(np.ones(3)))


def test_windows_and_paddings_that_leave_no_output_are_rejected():
    x, w = Tensor(np.ones((1, 1, 4, 2))), Tensor(np.ones((1, 1, 3, 3)))
    with pytest.raises(ValueError, match=r"conv2d: the \(3, 3\) window does not fit .*\(1, 1, 4, 2\)"):
        ops.conv2d(x, w)
    with pytest.raises(ValueError, match=r"conv_transpose2d: nothing is left of \(1, 1, 4, 2\).*\(1, 2\)"):
        ops.conv_transpose2d(x, w, padding=(1, 2))
    for extra in ((0, 2), (-1, 0)):
        with pytest.raises(ValueError, match=r"conv_transpose2d: output_padding .* the stride \(2, 2\)"):
            ops.conv_transpose2d(x, w, stride=2, output_padding=extra)


@pytest.mark.parametrize("channels", [(1, 8), (9, 16), (3, 33), (40, 7)], ids="C, OC = {}".format)
@pytest.mark.parametrize("stride", [1, 2])
def test_more_channels_and_pixels_than_fit_into_a_block_or_a_band(
    channels, stride, rng, value, gradients, monkeypatch
):
    monkeypatch.setattr(row_views, "BAND_PIXELS", 1)
    monkeypatch.setattr(row_views, "STACK_BYTES", 1)
    (C, OC), N, padding = channels, 3, (1, 1)
    x, w, b = rng.normal(size=(N, C, 29, 13)), rng.normal(size=(OC, C, 3, 3)), rng.normal(size=OC)

    def f(*inputs):
        return ops.conv2d(*inputs, stride, padding)

    # The product with the whole col, which the tests above compare with naive loops.
    col = definition.im2col(x, (3, 3), (stride, stride), padding)
    y = value(f, x, w, b)
    flat = w.reshape(OC, -1) @ col + b[:, None]
    np.testing.assert_allclose(y, flat.reshape(y.shape), rtol=1e-10, atol=1e-12)
    dy = rng.normal(size=y.shape)
    dx, dw, db = gradients(f, x, w, b, cotangent=dy)
    dcol = w.reshape(OC, -1).T @ dy.reshape(N, OC, -1)
    back = definition.col2im(dcol, (29, 13), (3, 3), (stride, stride), padding)
    np.testing.assert_allclose(dx, back, rtol=1e-10, atol=1e-11)
    products = np.einsum("nop,nkp->ok", dy.reshape(N, OC, -1), col)
    np.testing.assert_allclose(dw, products.reshape(w.shape), rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(db, dy.sum((0, 2, 3)), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("window", [(3, 3), (2, 5), (1, 1)])
def test_products_by_row_and_by_channel_agree_with_the_definition(window, rng, monkeypatch):
    monkeypatch.setattr(row_views, "BAND_PIXELS", 1)
    monkeypatch.setattr(row_views, "STACK_BYTES", 1)  # several bands
    padding = (window[0] - 1, window[1] // 2)
    arguments = rng.normal(size=(3, 5, 29, 35)), rng.normal(size=(7, 5, *window)), rng.normal(size=7), (1, 1)
    expected = definition.convolve(*arguments, padding)
    for small_product in (1, 10**6):
        monkeypatch.setattr(row_views, "SMALL_PRODUCT", small_product)
        by_row = row_views.product_by_row(window[0], 35, work=5 * window[1] * 7)
        assert by_row == (small_product > 1 and window != (1, 1))
        np.testing.assert_allclose(row_views.convolve(*arguments, padding), expected, rtol=1e-10, atol=1e-11)


def test_results_are_bit_identical_for_any_number_of_threads(rng, value, gradients, monkeypatch):
    monkeypatch.setattr(row_views, "SHARED_WORK", 0)
    monkeypatch.setattr(row_views, "BAND_PIXELS", 1)  # several bands for each partial sum
    monkeypatch.setattr(row_views, "STACK_BYTES", 1)
    x, w = rng.normal(size=(5, 4, 19, 35)), rng.normal(size=(6, 4, 3, 3))
    results = []
    for threads in (1, 2, 5):
        set_threads(threads)
        y = value(lambda *t: ops.conv2d(*t, padding=1), x, w)
        results.append([y, *gradients(lambda *t: ops.conv2d(*t, padding=1), x, w, cotangent=np.cos(y))])
    set_threads(1)
    for others in results[1:]:
        for array, other in zip(results[0], others, strict=True):
            np.testing.assert_array_equal(array, other)


def test_the_backward_pass_uses_the_method_of_the_forward_pass(rng, monkeypatch):
    x = Tensor(rng.normal(size=(1, 2, 5, 5)), requires_grad=True)
    w = Tensor(rng.normal(size=(2, 2, 3, 3)), requires_grad=True)
    with conv.convolution("im2col"):
        y = ops.conv2d(x, w).sum()
    monkeypatch.setattr(row_views.RowPasses, "input_gradient", None)  # calling the other method now fails
    monkeypatch.setattr(row_views.RowPasses, "weight_gradient", None)
    with conv.convolution("direct"):
        y.backward()
    assert x.grad is not None and w.grad is not None


def test_the_error_for_an_unknown_method_lists_the_choices():
    with (
        pytest.raises(ValueError, match="'winograd'; choose from auto, im2col, direct"),
        conv.convolution("winograd"),
    ):
        pass


def test_sizes_defined_in_both_python_and_cuda_are_equal():
    text = implicit_gemm.kernels.source.read_text(encoding="utf-8")
    assert re.search(r"const int SIDE = (\d+);", text)[1] == str(implicit_gemm.SIDE)
    tiles = re.findall(r"IMPLICIT_GEMM\(implicit_gemm_(?:forward|adjoint)_(\d+), (\d+),", text)
    assert tiles == 2 * [(str(tile), str(tile)) for tile in implicit_gemm.TILES]
    assert implicit_gemm.PIXELS % 32 == 0 and implicit_gemm.PIXELS >= implicit_gemm.SIDE**2

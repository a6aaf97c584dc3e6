"""Checks of the exercises of chapter 3, docs/3-convolution.md."""

import numpy as np

from exercises.gradients import check_gradient
from minidl import Tensor
from minidl.ops import conv2d


def convolve(x, w):
    return conv2d(Tensor(x), Tensor(w), padding=1).data


def check_1(answers):
    rng = np.random.default_rng(3)
    x, w, dy = rng.normal(size=(2, 3, 5, 4)), rng.normal(size=(4, 3, 3, 3)), rng.normal(size=(2, 4, 5, 4))
    shape = np.shape(answers.weight_gradient(x, dy))
    assert shape == w.shape, f"dw has the shape {shape}, and w has {w.shape}"
    check_gradient(lambda w: convolve(x, w), lambda w, dy: answers.weight_gradient(x, dy), w)


def check_2(answers):
    rng = np.random.default_rng(4)
    for name, w in (("a symmetric", np.ones((4, 3, 3, 3))), ("an asymmetric", rng.normal(size=(4, 3, 3, 3)))):
        try:
            check_gradient(
                lambda x, w=w: convolve(x, w),
                lambda x, dy, w=w: answers.input_gradient(w, dy),
                rng.normal(size=(2, 3, 5, 4)),
            )
        except AssertionError as error:
            raise AssertionError(f"with {name} kernel: {error}") from None


def measured_field(layers, size=40):
    """The pixels of one row of an image that its middle output depends on, by the gradient."""
    image = Tensor(np.ones((1, 1, 1, size)), requires_grad=True)
    y = image
    for kernel, stride in layers:
        y = conv2d(y, Tensor(np.ones((1, 1, 1, kernel))), stride=(1, stride))
    y[0, 0, 0, y.shape[3] // 2].backward(np.array(1.0))
    return np.count_nonzero(image.grad)


def check_3(answers):
    deep = [(3, 1), (2, 2), (5, 1), (3, 2), (3, 1)]
    for layers in ([], [(3, 1)], [(3, 1), (3, 1)], [(2, 2), (3, 1)], deep):
        expected, found = measured_field(layers) if layers else 1, answers.receptive_field(layers)
        assert found == expected, f"(kernel, stride) {layers}: the field has {expected} pixels, not {found}"

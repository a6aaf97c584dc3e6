"""Checks of the exercises of chapter 10, docs/10-a-gpu.md."""

import tempfile
from pathlib import Path

import numpy as np

from exercises.gradients import check_gradient
from minidl.backend import Kernels, cover, to_device, to_numpy
from minidl.cuda_on_cpu import thread_order
from minidl.ops.conv.im2col import im2col

DEVICE = "cuda-on-cpu"


def check_1(answers):
    N, C, H, W, KH, KW = 2, 3, 4, 5, 3, 2
    OH, OW = H - KH + 1, W - KW + 1
    images = np.arange(float(N * C * H * W)).reshape(N, C, H, W)
    col = to_numpy(im2col(to_device(images, DEVICE), (KH, KW), (1, 1), (0, 0))).ravel()
    for n, c, oh, ow, kh, kw in np.ndindex(N, C, OH, OW, KH, KW):
        i = ((c * N + n) * OH + oh) * OW + ow
        address, pixel = answers.col_address(i, kh, kw, N, OH, OW, KH, KW), images[n, c, oh + kh, ow + kw]
        place = f"thread {i}, weight ({kh}, {kw}): address {address}"
        assert 0 <= address < col.size, f"{place} is outside col, which has {col.size} numbers"
        there = col[address]
        assert there == pixel, f"{place} has pixel {there:.0f}, and the thread copies pixel {pixel:.0f}"


def launch(source, name, grid, block, arrays, shape, *scalars):
    """Run a kernel of this source on the emulator: inputs, then an output of `shape`, then the scalars."""
    with tempfile.TemporaryDirectory() as folder:
        kernels = Kernels(Path(folder) / "answer.py")
        kernels.source.write_text(source)
        output = to_device(np.full(shape, np.nan), DEVICE)
        kernels.launch(name, grid, block, *(to_device(a, DEVICE) for a in arrays), output, *scalars)
        return to_numpy(output)


def check_2(answers):
    source, slope = answers.leaky_relu_kernels(), 0.2

    def forward(x):
        return launch(source, "leaky_relu_forward", *cover(x.size), [x], x.shape, slope, x.size)

    def backward(x, dy):
        return launch(source, "leaky_relu_backward", *cover(x.size), [dy, x], x.shape, slope, x.size)

    x = np.array([-2.0, -0.5, 0.0, 3.0, np.nan, np.inf, -np.inf])
    found, expected = forward(x), np.array([-0.4, -0.1, 0.0, 3.0, np.nan, np.inf, -np.inf])
    assert np.allclose(found, expected, rtol=1e-14, equal_nan=True), f"x {x}: y is {expected}, not {found}"
    x = np.random.default_rng(22).permutation(np.linspace(-3.0, 3.0, 300))  # two blocks, and 0 is not in it
    for order in ("forward", "reverse"):
        with thread_order(order):
            found = forward(x)
        unwritten = np.count_nonzero(np.isnan(found))
        assert not unwritten, f"{unwritten} of 300 numbers were not written: which i has the second block?"
        assert np.allclose(found, np.where(x > 0, x, slope * x), rtol=1e-14), "300 numbers: some are wrong"
    dx = backward(np.zeros(1), np.ones(1))
    assert np.allclose(dx, slope), f"at x = 0 the derivative is the slope, 0.2, not {dx[0]}"
    check_gradient(forward, backward, x)


def check_3(answers):
    source = answers.weight_gradient_kernel()
    assert "warp_sum" not in source, "write the five rounds yourself"
    for size in (1, 7, 32, 100):
        x, dy = np.arange(1.0, size + 1), 2.0 ** -(np.arange(size) % 40)
        found = launch(source, "weight_gradient", (1,), (32,), [x, dy], 1, size)[0]
        expected = x @ dy
        missing = "" if size > 32 else f" Pixel i adds (i + 1) / 2^i. The difference is {found - expected:g}."
        assert np.isclose(found, expected, rtol=1e-13), (
            f"{size} pixels: the sum is {expected:.12g}, yours is {found:.12g}.{missing}"
        )

"""Exercises of chapter 3, docs/3-convolution.md.

Fill in the functions. `make exercise N=3` says which are right.
"""

from collections.abc import Sequence

import numpy as np


def weight_gradient(x: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Return dw of a 3 x 3 convolution with stride 1 and padding 1.

    x is (N, C, H, W), dy is (N, OC, H, W), dw is (OC, C, 3, 3). The weight w[o, c, kh, kw] multiplies the
    pixel x[n, c, h + kh - 1, w + kw - 1] for the output y[n, o, h, w]. Loop over the nine positions kh, kw,
    and over nothing else: np.einsum can sum over images and pixels.

    Chapter 3, "The gradients".
    """
    raise NotImplementedError("exercise 3.1")


def input_gradient(w: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Return dx of a 3 x 3 convolution with stride 1 and padding 1, without col2im.

    w is (OC, C, 3, 3), dy is (N, OC, H, W), dx is (N, C, H, W). The code gathers dx from dy, as a convolution
    does. It is right for symmetric kernels only. Write down which outputs contain the pixel in row h: the
    output in row h - 1 reads it through which row of weights?

    Chapter 3, "With stride 1, the input gradient is a convolution".
    """
    raise NotImplementedError("exercise 3.2")  # delete this line, then mend the code below
    H, W = dy.shape[2:]
    padded = np.pad(dy, ((0, 0), (0, 0), (1, 1), (1, 1)))
    dx = np.zeros((len(dy), w.shape[1], H, W))
    for kh in range(3):
        for kw in range(3):
            part = padded[:, :, kh : kh + H, kw : kw + W]  # (N, OC, H, W)
            dx += np.einsum("oc,nohw->nchw", w[:, :, kh, kw], part)
    return dx


def receptive_field(layers: Sequence[tuple[int, int]]) -> int:
    """Return how many pixels of the input, in one direction, an output pixel depends on.

    A layer is (kernel, stride), both in one direction: (3, 1) is a 3x3 convolution, (2, 2) a max-pool that
    halves. Without a layer the field is 1. Keep two numbers: the field, and the distance in the input between
    neighbouring pixels of the present layer. What does a layer do to each?

    Chapter 3, "As loops".
    """
    raise NotImplementedError("exercise 3.3")

"""Matrix products: y = a b, and the fully connected layer made of one.

    y_ij = sum_k a_ik b_kj    =>    da = dy b^T,    db = a^T dy.

The shapes allow no other product: dy is (n, m), b is (k, m), and only dy b^T has the shape (n, k) of a.
Axes before the last two are batch axes, which are broadcast as in any other operation.
"""

from __future__ import annotations

from minidl.backend import Array
from minidl.ops.elementwise import unbroadcast
from minidl.tensor import Function, Tensor


class MatMul(Function):
    """y = a b; the axes before the last two are batch axes."""

    def forward(self, a: Array, b: Array) -> Array:
        self.a, self.b = a, b
        return a @ b  # (..., n, k) (..., k, m) -> (..., n, m)

    def backward(self, dy: Array) -> tuple[Array | None, Array | None]:
        da = unbroadcast(dy @ self.b.swapaxes(-1, -2), self.a.shape) if self.needs[0] else None
        db = unbroadcast(self.a.swapaxes(-1, -2) @ dy, self.b.shape) if self.needs[1] else None
        return da, db


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Return the matrix product, a (..., n, k), b (..., k, m) -> y (..., n, m)."""
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
        raise ValueError(
            f"matmul: cannot multiply {a.shape} by {b.shape}; expected (..., n, k) by (..., k, m)"
        )
    return MatMul()(a, b)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x W^T + b, x (N, C), weight (OC, C), bias (OC,) -> y (N, OC); W has PyTorch's layout."""
    y = matmul(x, weight.transpose(1, 0))
    return y if bias is None else y + bias

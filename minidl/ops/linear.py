"""Matrix products: y = a b, and the fully connected layer made of one.

    y_ij = sum_k a_ik b_kj    =>    da = dy b^T,    db = a^T dy.

The shapes allow no other product: dy is (n, m), b is (k, m), and only dy b^T has the shape (n, k) of a.
Axes before the last two are batch axes, which are broadcast as in any other operation.

On a GPU, CuPy computes products with cuBLAS, which it cannot capture in a CUDA graph (`minidl.graph`). Small
products, such as those of the last layer of a diagnosis, therefore have a kernel (linear.cu).
"""

from __future__ import annotations

from minidl.backend import GPU, Array, Kernels, array_module, contiguous, cover
from minidl.implementation import choose, implements
from minidl.ops.elementwise import unbroadcast
from minidl.tensor import Function, Tensor

kernels = Kernels(__file__)

# The maximum number of multiply-adds for the kernel, which reads every number from memory. It is an estimate,
# not measured on a GPU.
SMALL = 1 << 20


class MatMul(Function):
    """y = a b; the axes before the last two are batch axes."""

    def forward(self, a: Array, b: Array) -> Array:
        self.a, self.b = a, b
        return self.product(a, b)  # (..., n, k) (..., k, m) -> (..., n, m)

    def backward(self, dy: Array) -> tuple[Array | None, Array | None]:
        da = unbroadcast(self.product(dy, self.b.swapaxes(-1, -2)), self.a.shape) if self.needs[0] else None
        db = unbroadcast(self.product(self.a.swapaxes(-1, -2), dy), self.b.shape) if self.needs[1] else None
        return da, db

    def product(self, a: Array, b: Array) -> Array:
        """Return a b, on raw arrays."""
        return a @ b


def are_small_matrices(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Return whether a and b are the shapes of two matrices with a small product."""
    return len(a) == len(b) == 2 and a[0] * a[1] * b[1] <= SMALL


@implements(MatMul, "kernels", devices=GPU, can=are_small_matrices)
class SmallMatMul(MatMul):
    """The product of two small matrices, with one launch for each of y, da and db."""

    def product(self, a: Array, b: Array) -> Array:
        (n, k), m = a.shape, b.shape[1]
        y = array_module(a).empty((n, m), a.dtype)
        kernels.launch("small_product", *cover(n * m), contiguous(a), contiguous(b), y, n, k, m)
        return y


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Return the matrix product, a (..., n, k), b (..., k, m) -> y (..., n, m)."""
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
        raise ValueError(
            f"matmul: cannot multiply {a.shape} by {b.shape}; expected (..., n, k) by (..., k, m)"
        )
    return choose(MatMul, a.device, a.shape, b.shape)()(a, b)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x W^T + b, x (N, C), weight (OC, C), bias (OC,) -> y (N, OC); W has PyTorch's layout."""
    y = matmul(x, weight.transpose(1, 0))
    return y if bias is None else y + bias

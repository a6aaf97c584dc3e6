"""TF32: matrix products of float32 numbers that are rounded to 10 bits of mantissa, on tensor cores.

An element of a matrix product is a sum of many products of two numbers. With TF32 a GPU rounds each of the
two from 23 to 10 bits of mantissa, a relative error of up to 2^-11, and adds in float32. On an H100 a large
product is eight times as fast (docs/gpu). TF32 applies only to products that cuBLAS computes: those of im2col
and of linear layers. Our own kernels always compute with all 23 bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def tf32(allowed: bool, device: str) -> Iterator[None]:
    """Allow or forbid TF32 in matrix products inside this block; without effect on devices but "cuda"."""
    if device != "cuda":
        yield
        return
    from cupy.cuda.device import get_cublas_handle
    from cupy_backends.cuda.libs import cublas

    # CUPY_TF32=1 affects only products of two matrices, not CuPy's batched products, which convolutions use.
    # The math mode of the cuBLAS handle affects both.
    cublas.setMathMode(get_cublas_handle(), 3 if allowed else 0)  # CUBLAS_TF32_TENSOR_OP_MATH or _DEFAULT_
    try:
        yield
    finally:
        cublas.setMathMode(get_cublas_handle(), 0)

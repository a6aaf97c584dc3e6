"""TF32 is allowed in the products of cuBLAS inside a block, and nowhere else."""

import sys
from types import ModuleType

import numpy as np
import pytest

from minidl.backend import library, problem_of, tf32, to_device


@pytest.fixture
def modes(monkeypatch):
    """The math modes that a stand-in for cuBLAS received; 3 allows TF32."""
    found = []
    names = (
        "cupy",
        "cupy.cuda",
        "cupy.cuda.device",
        "cupy_backends",
        "cupy_backends.cuda",
        "cupy_backends.cuda.libs",
    )
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["cupy.cuda.device"].get_cublas_handle = lambda: "handle"
    cublas = ModuleType("cublas")
    cublas.setMathMode = lambda handle, mode: found.append((handle, mode))
    sys.modules["cupy_backends.cuda.libs"].cublas = cublas
    return found


@pytest.mark.parametrize("allowed, mode", [(True, 3), (False, 0)])
def test_the_mode_holds_inside_the_block(modes, allowed, mode):
    with pytest.raises(ZeroDivisionError), tf32(allowed, "cuda"):
        assert modes == [("handle", mode)]
        raise ZeroDivisionError
    assert modes == [("handle", mode), ("handle", 0)]


@pytest.mark.parametrize("device", ["cpu", "cuda-on-cpu"])
def test_other_devices_have_no_cublas(modes, device):
    with tf32(True, device):
        pass
    assert modes == []


def test_a_product_on_a_gpu_is_rounded_to_ten_bits(rng):
    if problem := problem_of("cuda"):
        pytest.skip(problem)
    a, b = (to_device(rng.normal(size=(256, 256)).astype(np.float32), "cuda") for _ in range(2))
    exact = a.get().astype(np.float64) @ b.get()
    errors = []
    for allowed in (False, True):
        with tf32(allowed, "cuda"):
            product = library("cuda").matmul(a[None], b[None])[0].get()
        errors.append(np.linalg.norm(product - exact) / np.linalg.norm(exact))
    assert errors[0] < 1e-6 < 1e-5 < errors[1] < 1e-3

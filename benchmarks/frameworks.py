"""The other frameworks: which are installed, and how to import them. All are optional.

NumPy multiplies matrices with OpenBLAS, on the number of threads that OPENBLAS_NUM_THREADS had when NumPy was
loaded. This project, DeZero and MyGrad share these threads. PyTorch has its own library and OpenMP threads.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import numpy as np

from r2unet.errors import InputError

OWN = "r2unet"
PACKAGES = {"PyTorch": "torch", "DeZero": "dezero", "MyGrad": "mygrad"}
TESTS = Path(__file__).resolve().parents[1] / "tests"


def versions() -> dict[str, str | None]:
    """Return the version of each other framework, or None if it is not installed."""
    found = {name: importlib.util.find_spec(package) for name, package in PACKAGES.items()}
    return {name: version(PACKAGES[name]) if spec else None for name, spec in found.items()}


def installed() -> list[str]:
    """Return the names of the other frameworks that are installed."""
    return [name for name, number in versions().items() if number]


def import_torch_reference() -> ModuleType:
    """Return the tests' reference implementation of the network in PyTorch, as a module."""
    if str(TESTS) not in sys.path:
        sys.path.append(str(TESTS))  # last: it has folders with the names of the two packages
    import torch_r2unet

    return torch_r2unet


def import_dezero() -> ModuleType:
    """Return DeZero, with all its modules imported."""
    # DeZero 0.0.13, its last release, has numpy.int as a default argument of a function not used here. NumPy
    # 1.24 removed this alias of int, so the import fails. Define it during the import only.
    missing = "int" not in vars(np)
    if missing:
        np.int = int  # noqa: NPY001
    try:
        import dezero
    finally:
        if missing:
            del np.int  # noqa: NPY001
    return dezero


def blas_threads() -> list[int] | None:
    """Return the number of threads of each loaded BLAS, or None if threadpoolctl is not installed."""
    if not importlib.util.find_spec("threadpoolctl"):
        return None
    from threadpoolctl import threadpool_info

    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def set_torch_threads(threads: int) -> None:
    """Set PyTorch's threads if it is installed. Raises InputError if this changes NumPy's BLAS threads."""
    if "PyTorch" not in installed():
        return
    before = blas_threads()
    import torch

    torch.set_num_threads(threads)
    after = blas_threads()
    if after != before or torch.get_num_threads() != threads:
        raise InputError(
            f"--torch-threads {threads}: PyTorch has {torch.get_num_threads()} threads, and those of NumPy's "
            f"BLAS changed from {before} to {after}: they share threads; set --threads to the same number"
        )

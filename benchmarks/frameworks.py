"""The other frameworks: which are installed, and how each is imported. None is needed by this project.

NumPy multiplies matrices in OpenBLAS, on as many threads as OPENBLAS_NUM_THREADS said when NumPy was
loaded; this project, DeZero and MyGrad share it. PyTorch brings its own library and its own OpenMP threads.
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
    """Return the version of each other framework, None for one that is not installed."""
    found = {name: importlib.util.find_spec(package) for name, package in PACKAGES.items()}
    return {name: version(PACKAGES[name]) if spec else None for name, spec in found.items()}


def installed() -> list[str]:
    """Return the names of the other frameworks that are here."""
    return [name for name, number in versions().items() if number]


def import_twin() -> ModuleType:
    """Return the network that the tests wrote a second time, in PyTorch."""
    if str(TESTS) not in sys.path:
        sys.path.append(str(TESTS))  # last, since folders in it are called like the two packages
    import torch_r2unet

    return torch_r2unet


def import_dezero() -> ModuleType:
    """Return DeZero, all of it."""
    # DeZero 0.0.13, its last release, names numpy.int as the default of a conversion that is not used here.
    # NumPy 1.24 removed that name for the built-in int, and so the import fails: lend it while it lasts.
    lent = "int" not in vars(np)
    if lent:
        np.int = int  # noqa: NPY001
    try:
        import dezero
    finally:
        if lent:
            del np.int  # noqa: NPY001
    return dezero


def blas_threads() -> list[int] | None:
    """Return the number of threads of each BLAS loaded, None where threadpoolctl is not there to ask."""
    if not importlib.util.find_spec("threadpoolctl"):
        return None
    from threadpoolctl import threadpool_info

    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def set_torch_threads(threads: int) -> None:
    """Set PyTorch's threads, where it is installed. Raises InputError if NumPy's BLAS shares them."""
    if "PyTorch" not in installed():
        return
    before = blas_threads()
    import torch

    torch.set_num_threads(threads)
    after = blas_threads()
    if after != before or torch.get_num_threads() != threads:
        raise InputError(
            f"--torch-threads {threads}: PyTorch took {torch.get_num_threads()}, and NumPy's BLAS went from "
            f"{before} to {after}: here they share their threads; give --threads the same number"
        )

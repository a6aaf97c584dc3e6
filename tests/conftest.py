"""What every test may ask for: each device there is, a generator, and the real images if they are here."""

import importlib.util
import os
from pathlib import Path

# Before NumPy is loaded: the tests' products of matrices are small, and on a busy machine threads that wait
# for each other take many times as long. It also holds for the programs that tests start.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest

from minidl.backend import DEVICES, cuda_problem, problem_of, to_device


def pytest_report_header() -> list[str]:
    """Say at the top of a run what it cannot test here, and why; hundreds of tests skip for one reason."""
    torch = importlib.util.find_spec("torch")
    return [
        f"on the GPU: {cuda_problem() or 'tested'}",
        f"real images: {os.environ.get('ISIC_ROOT', 'not tested; ISIC_ROOT names no folder of ISIC 2017')}",
        f"PyTorch beside it: {'tested' if torch else 'not installed; its stored numbers are compared'}",
    ]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--device cuda`: run the tests of one device alone, and let none of them skip."""
    parser.addoption("--device", choices=DEVICES, help="run only the tests on this device; it has to work")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --device, keep the tests that run on that device."""
    if only := config.getoption("device"):
        devices = [getattr(item, "callspec", None) and item.callspec.params.get("device") for item in items]
        others = [item for item, device in zip(items, devices, strict=True) if device != only]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item, device in zip(items, devices, strict=True) if device == only]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """Each device in turn: NumPy, CuPy on a GPU, and the CUDA kernels run on the CPU."""
    if problem := problem_of(request.param):
        required = request.config.getoption("device") or os.environ.get("MINIDL_REQUIRE_CUDA") == "1"
        assert request.param != "cuda" or not required, problem
        # A machine without a GPU is common, but what checks every change has no excuse for lacking g++.
        assert request.param != "cuda-on-cpu" or not os.environ.get("CI"), problem
        pytest.skip(problem)
    return request.param


@pytest.fixture
def put(device: str):
    """Return a function that moves a NumPy array to the device under test."""
    return lambda array: to_device(np.asarray(array), device)


@pytest.fixture
def rng() -> np.random.Generator:
    """A fresh generator with a fixed seed for each test."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def isic_root() -> Path:
    """The folder of real images, ISIC 2017 as the challenge ships it."""
    if "ISIC_ROOT" not in os.environ:
        pytest.skip("ISIC_ROOT is not set; give it a folder of ISIC 2017 to test on real images")
    return Path(os.environ["ISIC_ROOT"])

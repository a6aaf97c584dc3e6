"""Fixtures for all tests: each device that works, a random generator, and the real images if available."""

import importlib.util
import os
import signal
from pathlib import Path

# Before NumPy is imported: the tests' matrix products are small, and on a busy machine threads that wait for
# each other take many times as long. The setting also applies to the programs that tests start.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest

from minidl.backend import DEVICES, cuda_problem, problem_of, to_device


def pytest_configure() -> None:
    """Take Ctrl-C as a terminal sends it; a program that was started in the background may ignore it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> list[str]:
    """Report what cannot be tested on this machine, and why; many tests skip for the same reason."""
    torch = importlib.util.find_spec("torch")
    return [
        f"on the GPU: {cuda_problem() or 'tested'}",
        f"real images: {os.environ.get('ISIC_ROOT', 'not tested; set ISIC_ROOT to a folder of ISIC 2017')}",
        f"comparison with PyTorch: {'tested' if torch else 'not installed; stored numbers are compared'}",
    ]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option `--device`, for example `--device cuda`: run only the tests on one device."""
    parser.addoption("--device", choices=DEVICES, help="run only the tests on this device, which must work")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --device, select the tests that run on that device."""
    if only := config.getoption("device"):
        devices = [getattr(item, "callspec", None) and item.callspec.params.get("device") for item in items]
        others = [item for item, device in zip(items, devices, strict=True) if device != only]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item, device in zip(items, devices, strict=True) if device == only]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """Each device in turn: the CPU, a GPU, and the CUDA emulator."""
    if problem := problem_of(request.param):
        required = request.config.getoption("device") or os.environ.get("MINIDL_REQUIRE_CUDA") == "1"
        assert request.param != "cuda" or not required, problem
        # A machine without a GPU is common, but continuous integration (CI) must have g++.
        assert request.param != "cuda-on-cpu" or not os.environ.get("CI"), problem
        pytest.skip(problem)
    return request.param


@pytest.fixture
def put(device: str):
    """Return a function that moves a NumPy array to the device under test."""
    return lambda array: to_device(np.asarray(array), device)


@pytest.fixture
def rng() -> np.random.Generator:
    """A new generator with a fixed seed for each test."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def isic_root() -> Path:
    """The folder of real images, in the layout of the ISIC 2017 challenge."""
    if "ISIC_ROOT" not in os.environ:
        pytest.skip("ISIC_ROOT is not set; set it to a folder of ISIC 2017 to test on real images")
    return Path(os.environ["ISIC_ROOT"])

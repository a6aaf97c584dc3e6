"""Arrays know where they live, and a device that cannot be had is refused with the reason and the remedy."""

import subprocess
import sys

import numpy as np
import pytest

from minidl.backend import (
    DeviceError,
    array_module,
    cuda_problem,
    device_of,
    is_array,
    resolve_device,
    to_device,
    to_numpy,
)

without_cuda = pytest.mark.skipif(cuda_problem() is None, reason="CUDA works here")


def python(program, *path):
    """Run a program in a fresh interpreter, with folders put in front of its path; return what it prints."""
    lines = f"import sys; sys.path[:0] = {[str(p) for p in path]!r}\n{program}"
    return subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True).stdout


class TestArrays:
    def test_numpy_arrays_and_scalars_are_on_the_cpu(self):
        for value in (np.zeros(3), np.float32(1.0), np.zeros(3).sum(), np.array(1)):
            assert device_of(value) == "cpu"
            assert array_module(value) is np

    def test_an_array_that_is_there_already_is_not_copied(self):
        array = np.zeros(3)
        assert to_device(array, "cpu") is array
        assert to_numpy(array) is array

    def test_is_array_tells_arrays_from_what_looks_like_one(self):
        assert is_array(np.zeros(3)) and is_array(np.array(1))
        assert not any(is_array(value) for value in ([1.0], 1.0, None, "cupy", np.float32(1.0)))

    def test_a_round_trip_by_a_device_keeps_everything(self, device):
        array = np.arange(6, dtype=np.float32).reshape(2, 3)
        moved = to_device(array, device)
        assert device_of(moved) == device and is_array(moved)
        assert array_module(moved).__name__ == {"cpu": "numpy", "cuda": "cupy"}[device]
        back = to_numpy(moved)
        assert isinstance(back, np.ndarray) and back.dtype == np.float32
        np.testing.assert_array_equal(back, array)


class TestResolveDevice:
    def test_cpu_is_always_there(self):
        assert resolve_device("cpu") == "cpu"

    @without_cuda
    def test_auto_is_the_cpu_where_cuda_does_not_work(self):
        assert resolve_device("auto") == "cpu"

    @pytest.mark.skipif(cuda_problem() is not None, reason="CUDA does not work here")
    def test_auto_is_cuda_where_it_works(self):
        assert resolve_device("auto") == resolve_device("cuda") == "cuda"

    @without_cuda
    def test_cuda_by_name_is_an_error_with_reason_and_remedy(self):
        with pytest.raises(DeviceError) as fault:
            resolve_device("cuda")
        message = str(fault.value)
        assert message == f"cuda: {cuda_problem()}; or use --device cpu"
        assert "\n" not in message

    @without_cuda
    def test_moving_to_cuda_is_the_same_error(self):
        with pytest.raises(DeviceError, match="or use --device cpu"):
            to_device(np.zeros(3), "cuda")

    @pytest.mark.parametrize("name", ["gpu", "CPU", "", "cuda:0"])
    def test_an_unknown_device_is_an_error_that_lists_the_known(self, name):
        with pytest.raises(DeviceError, match=f"unknown device '{name}'; choose from auto, cpu, cuda"):
            resolve_device(name)


class TestCudaProblem:
    """The three ways a machine can lack CUDA, each with a package `cupy` that behaves so."""

    ask = "from minidl.backend import cuda_problem; print(cuda_problem())"

    def problem(self, tmp_path, cupy):
        (tmp_path / "cupy.py").write_text(cupy)
        (line,) = python(self.ask, tmp_path).splitlines()
        return line

    def test_cupy_that_is_not_installed(self, tmp_path):
        line = self.problem(tmp_path, "raise ModuleNotFoundError(\"No module named 'cupy'\")")
        assert line.startswith("CuPy is not installed; pip install -e '.[cuda13]'")

    def test_cupy_that_does_not_load_tells_why(self, tmp_path):
        line = self.problem(
            tmp_path,
            "try:\n"
            "    raise ImportError('libnvrtc.so.12: cannot open shared object file')\n"
            "except ImportError as cause:\n"
            "    raise ImportError('=======\\nFailed to import CuPy.') from cause",
        )
        assert line == (
            "CuPy cannot use the GPU (libnvrtc.so.12: cannot open shared object file); check `nvidia-smi`"
        )

    def test_a_gpu_without_driver_tells_the_first_line_of_why(self, tmp_path):
        line = self.problem(tmp_path, "def arange(*a, **k): raise RuntimeError('no driver\\nat line 5')")
        assert line == "CuPy cannot use the GPU (no driver); check `nvidia-smi`"

    def test_a_reason_without_words_is_named_by_its_type(self, tmp_path):
        line = self.problem(tmp_path, "def arange(*a, **k): raise MemoryError()")
        assert line == "CuPy cannot use the GPU (MemoryError); check `nvidia-smi`"

    def test_a_wrong_sum_is_noticed(self, tmp_path):
        line = self.problem(tmp_path, "import numpy\ndef arange(n, dtype): return numpy.zeros(n, dtype)")
        assert "came out wrong" in line

    def test_a_right_sum_is_no_problem(self, tmp_path):
        assert self.problem(tmp_path, "from numpy import arange") == "None"


def test_importing_every_module_prints_nothing_and_loads_nothing_heavy():
    program = (
        "import importlib, pkgutil, minidl, r2unet\n"
        "for package in (minidl, r2unet):\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if not module.name.endswith('__main__'):\n"
        "            importlib.import_module(module.name)\n"
        "assert {'minidl.ops.conv', 'minidl.gradcheck', 'r2unet.model', 'r2unet.cli'} <= set(sys.modules)\n"
        "print(sorted({'cupy', 'matplotlib', 'PIL', 'tqdm', 'torch'} & set(sys.modules)))\n"
    )
    assert python(program) == "[]\n"

"""Every array has a device, and a device that does not work is rejected with the reason and the remedy."""

import subprocess
import sys

import numpy as np
import pytest

from minidl import cuda_on_cpu
from minidl.backend import (
    C_TYPES,
    LARGEST,
    DeviceError,
    TooLargeError,
    array_module,
    cuda_problem,
    describe,
    device_of,
    is_array,
    library,
    resolve_device,
    to_device,
    to_floats,
    to_numpy,
)
from minidl.cuda_on_cpu import compiler
from minidl.ops import activation

without_cuda = pytest.mark.skipif(cuda_problem() is None, reason="CUDA works here")


def python(program, *path):
    """Run a program in a fresh interpreter, with folders prepended to its path; return its output."""
    lines = f"import sys; sys.path[:0] = {[str(p) for p in path]!r}\n{program}"
    return subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True).stdout


class TestArrays:
    def test_numpy_arrays_and_scalars_are_on_the_cpu(self):
        for value in (np.zeros(3), np.float32(1.0), np.zeros(3).sum(), np.array(1)):
            assert device_of(value) == "cpu"
            assert array_module(value) is np

    @pytest.mark.parametrize("value", [[1.0], 1.0, None, "cupy"])
    def test_other_values_have_no_device(self, value):
        kind = type(value).__name__
        with pytest.raises(TypeError, match=f"expected an array of NumPy or CuPy, got builtins.{kind}"):
            device_of(value)

    def test_an_array_that_is_already_on_the_device_is_not_copied(self):
        array = np.zeros(3)
        assert to_device(array, "cpu") is array
        assert to_numpy(array) is array

    def test_is_array_is_true_for_arrays_only(self):
        assert is_array(np.zeros(3)) and is_array(np.array(1))
        assert not any(is_array(value) for value in ([1.0], 1.0, None, "cupy", np.float32(1.0)))

    def test_a_round_trip_to_a_device_changes_nothing(self, device):
        array = np.arange(6, dtype=np.float32).reshape(2, 3)
        moved = to_device(array, device)
        assert device_of(moved) == device and is_array(moved)
        assert array_module(moved) is library(device)
        back = to_numpy(moved)
        assert isinstance(back, np.ndarray) and back.dtype == np.float32
        np.testing.assert_array_equal(back, array)

    def test_numbers_on_a_device_become_python_floats(self, put, device):
        numbers = [put(np.float32(0.5)), put(np.float32(2.0)), put(np.float32(np.inf))]
        assert to_floats(numbers) == [0.5, 2.0, np.inf]
        assert to_floats([]) == []

    def test_on_the_cpu_arrays_and_floats_may_be_mixed(self):
        assert to_floats([np.float32(0.5), 0.1, np.array(2.0)]) == [0.5, 0.1, 2.0]

    def test_a_description_starts_with_the_device_s_name(self, device):
        assert describe(device).startswith(device)
        assert device != "cuda-on-cpu" or "slow" in describe(device)


class TestResolveDevice:
    def test_the_cpu_always_works(self):
        assert resolve_device("cpu") == "cpu"

    @without_cuda
    def test_auto_is_the_cpu_if_cuda_does_not_work(self):
        assert resolve_device("auto") == "cpu"

    @pytest.mark.skipif(cuda_problem() is not None, reason="CUDA does not work here")
    def test_auto_is_cuda_if_it_works(self):
        assert resolve_device("auto") == resolve_device("cuda") == "cuda"

    @without_cuda
    def test_cuda_by_name_raises_an_error_with_reason_and_remedy(self):
        with pytest.raises(DeviceError) as fault:
            resolve_device("cuda")
        message = str(fault.value)
        assert message == f"cuda: {cuda_problem()}; or use --device cpu"
        assert "\n" not in message

    @without_cuda
    def test_moving_an_array_to_cuda_raises_the_same_error(self):
        with pytest.raises(DeviceError, match="or use --device cpu"):
            to_device(np.zeros(3), "cuda")

    @pytest.mark.parametrize("name", ["gpu", "CPU", "", "cuda:0"])
    def test_an_unknown_device_raises_an_error_that_lists_the_known_ones(self, name):
        with pytest.raises(
            DeviceError, match=f"unknown device '{name}'; choose from auto, cpu, cuda, cuda-on-cpu"
        ):
            resolve_device(name)


class TestCudaProblem:
    """The causes for which CUDA can fail, each simulated by a package `cupy` that raises what CuPy 14 raises.

    The messages for a missing driver, missing headers and missing cuBLAS are CuPy's own.
    """

    NVRTC = 'Failure finding "libnvrtc.so.13": No such file: libnvrtc.so.13\n'
    HEADERS = 'x.cu(1): catastrophic error: cannot open source file "cuda_fp16.h"\n  #include <cuda_fp16.h>\n'
    DRIVER = "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version"

    def problem(self, tmp_path, cupy, driver=13000):
        (tmp_path / "cupy" / "cuda").mkdir(parents=True)
        (tmp_path / "cupy" / "__init__.py").write_text(cupy)
        (tmp_path / "cupy" / "cuda" / "__init__.py").touch()
        (tmp_path / "cupy" / "cuda" / "runtime.py").write_text(
            f"def driverGetVersion(): return {driver}\ndef runtimeGetVersion(): return 13020\n"
        )
        program = "from minidl.backend import cuda_problem; print(cuda_problem())"
        (line,) = python(program, tmp_path).splitlines()
        return line

    def raised(self, tmp_path, message, driver=13000):
        return self.problem(tmp_path, f"def arange(*a, **k): raise RuntimeError({message!r})", driver)

    def test_cupy_is_not_installed(self, tmp_path):
        line = self.problem(tmp_path, "raise ModuleNotFoundError(\"No module named 'cupy'\")")
        assert line == "CuPy is not installed; pip install -e '.[cuda13]', or '.[cuda12]' for older drivers"

    def test_no_driver(self, tmp_path):
        line = self.raised(tmp_path, self.DRIVER, driver=0)
        assert line == "there is no NVIDIA driver; install the one for your GPU"

    def test_the_driver_is_too_old(self, tmp_path):
        assert self.raised(tmp_path, self.DRIVER, driver=12040) == (
            "the driver supports CUDA 12.4 but CuPy needs 13.2; update the driver, or install an older CuPy"
        )

    def test_no_gpu(self, tmp_path):
        line = self.raised(tmp_path, "cudaErrorNoDevice: no CUDA-capable device is detected")
        assert line.startswith("the driver finds no GPU; check `nvidia-smi`")

    @pytest.mark.parametrize("message, missing", [(NVRTC, "compiler"), (HEADERS, "headers")])
    def test_no_compiler_or_no_headers(self, tmp_path, message, missing):
        assert self.raised(tmp_path, message) == (
            f"CUDA's {missing} cannot be found; pip install 'cupy-cuda13x[ctk]', "
            "or 'cupy-cuda12x[ctk]' for older drivers"
        )

    def test_cublas_is_missing_although_sums_can_be_computed(self, tmp_path):
        message = 'Failure finding "libcublasLt.so.13 or libcublasLt.so.12": No such file: libcublasLt.so.13'
        product = f"    def __matmul__(self, other): raise ImportError({message!r})\n"
        arange = "def arange(n, dtype): return numpy.arange(n, dtype=dtype).view(array)\n"
        line = self.problem(tmp_path, f"import numpy\nclass array(numpy.ndarray):\n{product}{arange}")
        assert line == (
            "CUDA's cuBLAS cannot be found; pip install 'cupy-cuda13x[ctk]', "
            "or 'cupy-cuda12x[ctk]' for older drivers"
        )

    def test_if_cupy_does_not_load_the_underlying_cause_is_reported(self, tmp_path):
        line = self.problem(
            tmp_path,
            "try:\n"
            "    raise ImportError('libcudart.so.12: cannot open shared object file')\n"
            "except ImportError as cause:\n"
            "    raise ImportError('=======\\nFailed to import CuPy.') from cause",
        )
        assert line == (
            "CuPy cannot use the GPU (libcudart.so.12: cannot open shared object file); check `nvidia-smi`"
        )

    def test_any_other_error_is_reported_by_its_first_line(self, tmp_path):
        line = self.raised(tmp_path, "cudaErrorUnknown: unknown error\nat line 5")
        assert line == "CuPy cannot use the GPU (cudaErrorUnknown: unknown error); check `nvidia-smi`"

    def test_an_error_without_a_message_is_reported_by_its_type(self, tmp_path):
        line = self.problem(tmp_path, "def arange(*a, **k): raise MemoryError()")
        assert line == "CuPy cannot use the GPU (MemoryError); check `nvidia-smi`"

    def test_a_wrong_product_is_a_problem(self, tmp_path):
        line = self.problem(tmp_path, "import numpy\ndef arange(n, dtype): return numpy.zeros(n, dtype)")
        assert "came out wrong" in line

    def test_a_correct_product_is_no_problem(self, tmp_path):
        assert self.problem(tmp_path, "from numpy import arange") == "None"


@pytest.mark.skipif(cuda_on_cpu.problem() is not None, reason="kernels cannot run on this CPU")
class TestKernels:
    @pytest.mark.parametrize(
        ("array", "size", "what"),
        [(3, LARGEST + 1, f"{LARGEST + 1}"), (LARGEST + 1, 3, f"an array of {LARGEST + 1} numbers")],
    )
    def test_reject_sizes_beyond_32_bits(self, array, size, what):
        x = library("cuda-on-cpu").zeros(3, np.float32)
        # Its memory is never accessed, so the system provides none.
        y = np.empty(array, np.int8).view(type(x))
        message = f"relu_forward: {what} is too large for the kernel's 32 bits; use a smaller batch"
        with pytest.raises(TooLargeError, match=message):
            activation.kernels.launch("relu_forward", (1,), (32,), x, y, size)

    def test_can_stride_past_the_largest_size_within_32_bits(self):
        """The stride is the number of threads in a large grid: 1,024 blocks of 256."""
        assert LARGEST + 1024 * 256 < 2**31

    @pytest.mark.parametrize(
        ("y", "what"),
        [
            (library("cuda-on-cpu").zeros(3), "float64 on cuda-on-cpu"),
            (np.zeros(3, np.float32), "float32 on cpu"),
            (np.float32(3), "float32 on cpu"),
        ],
    )
    def test_reject_an_array_whose_dtype_or_device_differs_from_the_first_one_s(self, y, what):
        x = library("cuda-on-cpu").zeros(3, np.float32)
        with pytest.raises(TypeError) as fault:
            activation.kernels.launch("relu_forward", (1,), (32,), x, y, 3)
        assert str(fault.value) == (
            f"relu_forward: {what} and float32 on cuda-on-cpu in one launch; convert one of them"
        )

    def test_are_compiled_for_the_same_types_on_a_gpu_and_in_the_emulator(self):
        assert C_TYPES == compiler.C_TYPES


def test_importing_every_module_prints_nothing_and_loads_no_heavy_library():
    program = (
        "import importlib, pkgutil, minidl, r2unet\n"
        "for package in (minidl, r2unet):\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if not module.name.endswith('__main__'):\n"
        "            importlib.import_module(module.name)\n"
        "expected = {'minidl.ops.conv', 'minidl.gradcheck', 'r2unet.network.model', 'r2unet.commands.main'}\n"
        "assert expected <= set(sys.modules)\n"
        "print(sorted({'cupy', 'matplotlib', 'PIL', 'tqdm', 'torch'} & set(sys.modules)))\n"
    )
    assert python(program) == "[]\n"

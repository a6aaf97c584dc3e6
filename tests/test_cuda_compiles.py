"""Every kernel compiles for A100 and H100 within its resource limits; these tests need no GPU.

The limits: nothing is spilled to memory, and a thread uses at most 64 registers. Then 1,024 threads can be
resident on a multiprocessor, half of its maximum (50 % occupancy): enough to hide memory latency. A kernel
whose threads share a tile (it has a barrier) reads memory less often and may use 128. A double occupies two
registers, so both limits are twice as high in double, which is used for gradient checks and not for training.
"""

import os
import re
import sys
import tomllib
from functools import cache
from pathlib import Path

import nvrtc
import pytest
from nvrtc import ARCHITECTURES, DTYPES, SOURCES, CompileError, Kernel

WITHOUT_BARRIER, WITH_BARRIER = 64, 128  # registers per thread, in float

every_file = pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)
compile_once = cache(nvrtc.compile_file)


@pytest.fixture
def compiler():
    """Skip the test if NVRTC is missing, but fail in continuous integration (CI is set)."""
    if reason := nvrtc.problem():
        (pytest.fail if "CI" in os.environ and sys.platform == "linux" else pytest.skip)(reason)


@pytest.fixture
def source(tmp_path):
    """Return a function that writes a file of kernels and returns its path."""

    def write(text: str) -> Path:
        path = tmp_path / "sample.cu"
        path.write_text(text)
        return path

    return write


def exceeded_limits(kernel: Kernel, dtype: str) -> list[str]:
    """Return a line for each limit that a kernel exceeds."""
    registers = (WITH_BARRIER if kernel.barriers else WITHOUT_BARRIER) * (2 if dtype == "float64" else 1)
    limits = {"registers": registers, "stack": 0, "spilled": 0}
    return [
        f"{kernel.name}: {name} {getattr(kernel, name)} > {limit}"
        for name, limit in limits.items()
        if getattr(kernel, name) > limit
    ]


def without_comments(text: str) -> str:
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)


def kernel_names(text: str) -> list[str]:
    """Return the sorted names of the kernels in a source, including those that a macro defines."""
    text = re.sub(r"__launch_bounds__\s*\(.*?\)", "", without_comments(text))
    names = re.findall(r"__global__\s+void\s+(\w+)", text)
    for macro, first in re.findall(r"#define\s+(\w+)\((\w+)", text):
        if first in names:
            names.remove(first)
            names += re.findall(rf"^\s*{macro}\((\w+)", text, flags=re.MULTILINE)
    return sorted(names)


def float_literals(text: str) -> list[str]:
    return re.findall(r"(?<![\w.])(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[fF]\b", without_comments(text))


def test_kernel_files_are_found():
    assert nvrtc.PACKAGE / "ops" / "conv" / "im2col.cu" in SOURCES


@every_file
@every_dtype
@every_architecture
def test_every_kernel_compiles_within_its_limits(compiler, path, dtype, architecture):
    kernels = compile_once(path, dtype, architecture).kernels
    assert [kernel.name for kernel in kernels] == kernel_names(path.read_text(encoding="utf-8"))
    assert [fault for kernel in kernels for fault in exceeded_limits(kernel, dtype)] == []


@every_file
@every_dtype
def test_all_arithmetic_is_done_in_type_t(compiler, path, dtype):
    """With T = float, a literal such as 0.1 promotes the whole expression to double, up to 64 times slower on
    many GPUs. With T = double, an intermediate float leaves 7 digits, too few for gradient checks. Some CUDA
    functions convert internally (tanh, erf, sin, cos); exp, log, log1p, sqrt and pow do not.
    """
    assert nvrtc.conversions(compile_once(path, dtype, ARCHITECTURES[0]).ptx) == []


@every_file
def test_no_literal_has_float_precision(path):
    """With T = double, 0.1f is 0.10000000149, and no instruction shows it; T(0.1) is right for both types."""
    assert float_literals(path.read_text(encoding="utf-8")) == []


def test_the_installed_package_contains_every_kernel_file():
    """Setuptools installs all .py files, but other files only if pyproject.toml lists them."""
    project = nvrtc.PACKAGE.parent
    with open(project / "pyproject.toml", "rb") as file:
        installed = tomllib.load(file)["tool"]["setuptools"]["package-data"]
    sources = [path for path in nvrtc.PACKAGE.rglob("*") if path.suffix in (".cu", ".cuh", ".h", ".cpp")]
    assert len(sources) > len(SOURCES)
    for path in sources:
        assert any(path.match(pattern) for pattern in installed["*"]), path


class TestTheCheck:
    """Tests of the code above: the limits are only as reliable as the parsing of the compiler's report."""

    ADD = 'extern "C" __global__ void add(const T* x, T* y) { y[threadIdx.x] += x[threadIdx.x]; }\n'
    REVERSE = """
        extern "C" __global__ void __launch_bounds__(64) reverse(const T* x, T* y) {
            __shared__ T tile[64];
            tile[threadIdx.x] = x[threadIdx.x];
            __syncthreads();
            y[threadIdx.x] = tile[63 - threadIdx.x];
        }"""
    # 100 partial sums need more than the 32 registers per thread that 2,048 resident threads allow.
    SUMS = """
        extern "C" __global__ void __launch_bounds__(1024, 2) sums(const T* x, T* y, int n) {
            T sum[100] = {};
            for (int i = 0; i < n; ++i)
                #pragma unroll
                for (int k = 0; k < 100; ++k) sum[k] += x[i] * x[k * n + i];
            #pragma unroll
            for (int k = 0; k < 100; ++k) y[threadIdx.x * 100 + k] = sum[k];
        }"""
    # Registers have no addresses, so an array indexed by a variable is stored in memory.
    PERMUTE = """
        extern "C" __global__ void permute(const T* x, const int* from, T* y) {
            T row[32];
            for (int k = 0; k < 32; ++k) row[k] = x[k];
            for (int k = 0; k < 32; ++k) y[k] = row[from[k]];
        }"""

    @every_architecture
    @pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("float64", 8)])
    def test_the_report_is_parsed(self, compiler, source, dtype, size, architecture):
        add, reverse = nvrtc.compile_file(source(self.ADD + self.REVERSE), dtype, architecture).kernels
        assert (add.name, add.barriers, add.shared, add.stack, add.spilled) == ("add", 0, 0, 0, 0)
        assert (reverse.name, reverse.barriers, reverse.shared) == ("reverse", 1, 64 * size)
        assert 4 < add.registers < 32
        assert exceeded_limits(add, dtype) == exceeded_limits(reverse, dtype) == []

    @every_architecture
    @every_dtype
    def test_a_kernel_that_spills_registers_is_rejected(self, compiler, source, dtype, architecture):
        (sums,) = nvrtc.compile_file(source(self.SUMS), dtype, architecture).kernels
        assert sums.registers == 32
        assert sums.spilled > 0
        assert f"sums: spilled {sums.spilled} > 0" in exceeded_limits(sums, dtype)

    def test_an_array_in_local_memory_is_rejected(self, compiler, source):
        (permute,) = nvrtc.compile_file(source(self.PERMUTE), "float32", "sm_90").kernels
        assert exceeded_limits(permute, "float32") == ["permute: stack 128 > 0"]

    def test_too_many_registers_are_rejected(self, compiler, source):
        unbounded = self.SUMS.replace("__launch_bounds__(1024, 2)", "")
        (sums,) = nvrtc.compile_file(source(unbounded), "float32", "sm_80").kernels
        assert exceeded_limits(sums, "float32") == [f"sums: registers {sums.registers} > 64"]

    @pytest.mark.parametrize(
        ("dtype", "barriers", "limit"), [("float32", 0, 64), ("float32", 1, 128), ("float64", 0, 128)]
    )
    def test_the_limit_is_higher_with_a_barrier_and_twice_as_high_in_double(self, dtype, barriers, limit):
        kernels = [Kernel("k", limit + more, barriers, shared=0, stack=0, spilled=0) for more in (0, 1)]
        assert [exceeded_limits(k, dtype) for k in kernels] == [[], [f"k: registers {limit + 1} > {limit}"]]

    def test_an_error_names_the_file_and_the_line(self, compiler, source):
        broken = source("// A comment.\n" + self.ADD.replace("+= x", "+= z"))
        with pytest.raises(CompileError, match=r'sample\.cu\(2\): error: identifier "z" is undefined'):
            nvrtc.compile_file(broken, "float32", "sm_80")

    @pytest.mark.parametrize(
        ("dtype", "line", "instructions"),
        [
            ("float32", "y[i] += x[i] * 0.1;", {"cvt.f64.f32", "cvt.rn.f32.f64"}),
            (
                "float32",
                "double sum = x[i]; sum += x[i + 1]; sum += x[i + 2]; y[i] = sum;",
                {"cvt.f64.f32", "cvt.rn.f32.f64"},
            ),
            (
                "float64",
                "float sum = x[i]; sum += x[i + 1]; sum += x[i + 2]; y[i] = sum;",
                {"cvt.rn.f32.f64", "cvt.f64.f32"},
            ),
            ("float64", "y[i] = expf(x[i]);", {"cvt.rn.f32.f64", "cvt.f64.f32"}),
            ("float32", "y[i] += x[i] * T(0.1) + exp(x[i]) / 3 + log1p(x[i]);", set()),
            ("float64", "y[i] += x[i] * T(0.1) + exp(x[i]) / 3 + log1p(x[i]);", set()),
        ],
    )
    def test_arithmetic_in_another_type_is_detected(self, compiler, source, dtype, line, instructions):
        text = f'extern "C" __global__ void f(const T* x, T* y) {{ int i = threadIdx.x;\n{line}\n}}'
        found = nvrtc.conversions(nvrtc.compile_file(source(text), dtype, "sm_80").ptx)
        assert {place.replace(".ftz", "") for place in found} == {
            f"sample.cu line 2: {i}" for i in instructions
        }

    @pytest.mark.parametrize(
        ("text", "literals"),
        [
            ("x * 0.1f + 1e-5F - .5f - 2.f", ["0.1f", "1e-5F", ".5f", "2.f"]),
            ("0x1f + 1u + a1f + T(0.1) + 1.0 // 0.1f", []),
        ],
    )
    def test_float_literals_are_detected(self, text, literals):
        assert float_literals(text) == literals

    def test_kernel_names_are_found_in_every_form_of_declaration(self):
        written = self.REVERSE + self.ADD + "__device__ T f(T x);\n// __global__ void removed()\n"
        annotated = "__global__ __launch_bounds__(256) void\nbefore(int n) {}\n"
        macro = "#define COPY(NAME, N) \\\n  __global__ void NAME(int n) {}\nCOPY(two, 2)\nCOPY(four, 4)\n"
        assert kernel_names(written + annotated + macro) == ["add", "before", "four", "reverse", "two"]

    def test_a_kernel_without_extern_c_has_a_mangled_name(self, compiler, source):
        """CuPy does not find such a kernel; nor is its name in the report."""
        (add,) = nvrtc.compile_file(source(self.ADD.replace('extern "C"', "")), "float32", "sm_80").kernels
        assert add.name != "add"

    def test_the_table_has_one_row_per_kernel(self, compiler, source, monkeypatch):
        monkeypatch.setattr(nvrtc, "SOURCES", [source(self.ADD + self.REVERSE)])
        rows = nvrtc.table().splitlines()[2:]
        assert [row.split(" | ")[:2] for row in rows] == [["| sample.cu", "add"], ["| sample.cu", "reverse"]]
        assert rows[1].endswith("| 256 / 512 | 0 |")

"""The emulator runs kernels as CUDA defines, and reports errors that a GPU would ignore, with their lines."""

import functools
import os
import re
import textwrap

import numpy as np
import pytest

from minidl import cuda_on_cpu
from minidl.cuda_on_cpu import KernelError, thread_order
from minidl.cuda_on_cpu.arguments import Region, merged
from minidl.cuda_on_cpu.array import address, asarray, xp

ORDERS = ["forward", "reverse", "shuffled"]

SAXPY = """
extern "C" __global__ void saxpy(const T* __restrict__ x, T* __restrict__ y, T a, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] += a * x[i];
}
"""

MATMUL = """
const int TILE = 8;
extern "C" __global__ void matmul(const T* a, const T* b, T* c, int n)
{
    __shared__ T A[TILE][TILE], B[TILE][TILE];
    int row = blockIdx.y * TILE + threadIdx.y, column = blockIdx.x * TILE + threadIdx.x;
    T sum = 0;
    for (int k = 0; k < n; k += TILE) {
        A[threadIdx.y][threadIdx.x] = a[row * n + k + threadIdx.x];
        B[threadIdx.y][threadIdx.x] = b[(k + threadIdx.y) * n + column];
        __syncthreads();  // the tiles are complete
        for (int i = 0; i < TILE; i++) sum += A[threadIdx.y][i] * B[i][threadIdx.x];
        __syncthreads();  // the tiles are no longer needed
    }
    c[row * n + column] = sum;
}
"""


# Illegal statements, and the error message for each.
ILLEGAL = {
    "y[n] = 1;": r"writes 4 bytes 0 bytes past the end of argument 2 `T\* y`, which has 40 bytes",
    "y[0] = x[-1];": r"reads 4 bytes 4 bytes before the start of argument 1 `const T\* x`",
    "y[0] = x[n + 7];": r"reads 4 bytes 28 bytes past the end of argument 1",
    "typedef long long unaligned __attribute__((aligned(4))); y[0] = *(const unaligned*)(x + n - 1);": (
        r"reads 8 bytes across the end of argument 1"
    ),
    "y[0] = s[n];": r"index 10 is outside its array",
    "q[1][n - 6] = 1;": r"index 4 is outside its array",  # although inside q
    "T* p = s; p[n] = 1;": r"writes 4 bytes 0 bytes past the end of shared array `s`",
    "e[n + 2] = 1;": r"writes 4 bytes 8 bytes past the end of the `extern __shared__` array",
    "T mine[4]; for (int i = 0; i <= n; ++i) mine[i] = i;": r"index 4 is outside its array",
    "y[0] = 7 / (n - 10);": r"divides by zero",
    "y[0] = n * 1000000000;": r"a multiplication overflows its integer type",
    "*(float2*)(y + 1) = make_float2(1, 2);": r"address 0x\w+ is not aligned for its type",
    "((T*)(1LL << 40))[n] = 1;": r"writes 4 bytes at address 0x10000000028, not near any array",
    "((T*)0)[n - 10] = 1;": r"writes 4 bytes at address 0x0, through a null pointer",
    "((T*)0)[n] = 1;": r"writes 4 bytes at address 0x28, through a null pointer",
    "atomicAdd(y + n, 1);": r"reads 4 bytes 0 bytes past the end of argument 2",
}
ILLEGAL_KERNELS = "".join(
    f"""
    extern "C" __global__ void illegal_{i}(const T* x, T* y, int n)
    {{
        __shared__ T s[10], q[4][4];
        extern __shared__ T e[];
        s[threadIdx.x] = q[0][threadIdx.x] = e[threadIdx.x] = 0;
        if (blockIdx.x == 1 && threadIdx.x == 2) {{
            {statement}
        }}
        y[1] = s[threadIdx.x] + q[0][threadIdx.x] + e[threadIdx.x];
    }}"""
    for i, statement in enumerate(ILLEGAL)
)


@pytest.fixture(scope="module", autouse=True)
def require_emulator():
    """Skip if the emulator does not work here; in continuous integration (CI) a missing g++ is a failure."""
    if problem := cuda_on_cpu.problem():
        assert not os.environ.get("CI"), problem
        pytest.skip(problem)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Return a function that compiles the text of a file and returns a kernel, by default the first."""

    @functools.cache
    def module(text: str, dtype: str) -> cuda_on_cpu.Module:
        source = tmp_path_factory.mktemp("kernels") / "kernels.cu"
        source.write_text(textwrap.dedent(text).lstrip())
        return cuda_on_cpu.Module(source, dtype)

    def compiled(text: str, name: str | None = None, dtype: str = "float32") -> cuda_on_cpu.Kernel:
        found = module(text, dtype)
        return found.get_function(name or next(iter(found.kernels)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield compiled


def ints(count: int):
    return xp.zeros(count, np.int32)


class TestResults:
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_one_thread_per_number(self, compiled, dtype, rng):
        x, y = rng.standard_normal((2, 1000)).astype(dtype)
        result = asarray(y)
        a = np.dtype(dtype).type(3)
        compiled(SAXPY, dtype=dtype)((4,), (256,), (asarray(x), result, a, np.int32(1000)))
        assert result.dtype == dtype
        np.testing.assert_allclose(result.get(), y + 3 * x, rtol=1e-6)

    def test_blocks_and_grids_with_three_axes(self, compiled):
        kernel = compiled("""
            extern "C" __global__ void where(int* y)
            {
                int x = blockIdx.x * blockDim.x + threadIdx.x, width = gridDim.x * blockDim.x;
                int row = blockIdx.y * blockDim.y + threadIdx.y, height = gridDim.y * blockDim.y;
                int plane = blockIdx.z * blockDim.z + threadIdx.z;
                y[(plane * height + row) * width + x] += 10000 * plane + 100 * row + x;
            }""")
        y = ints(6 * 12 * 15)
        kernel((3, 2, 2), (5, 6, 3), (y,))
        plane, row, x = np.indices((6, 12, 15))
        np.testing.assert_array_equal(y.get().reshape(6, 12, 15), 10000 * plane + 100 * row + x)

    @pytest.mark.parametrize("order", ORDERS)
    def test_a_tiled_matrix_product(self, compiled, order, rng):
        a, b = rng.standard_normal((2, 32, 32)).astype(np.float32)
        c = xp.empty((32, 32), np.float32)
        with thread_order(order):
            compiled(MATMUL)((4, 4), (8, 8), (asarray(a), asarray(b), c, np.int32(32)))
        np.testing.assert_allclose(c.get(), a @ b, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_a_sum_by_shuffles_and_shared_memory(self, compiled, order, dtype):
        kernel = compiled(
            """
            extern "C" __global__ void sum(const T* x, T* y, int n)
            {
                __shared__ T of_warp[32];
                int lane = threadIdx.x % warpSize, warp = threadIdx.x / warpSize;
                T sum = 0;
                for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
                    sum += x[i];
                for (int step = 16; step > 0; step /= 2) sum += __shfl_down_sync(0xffffffffu, sum, step);
                if (lane == 0) of_warp[warp] = sum;
                __syncthreads();
                if (warp > 0) return;
                sum = lane < blockDim.x / warpSize ? of_warp[lane] : T(0);
                for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
                if (lane == 0) y[blockIdx.x] = sum;
            }""",
            dtype=dtype,
        )
        y = xp.empty(3, dtype)
        with thread_order(order):
            kernel((3,), (256,), (asarray(np.arange(10_000, dtype=dtype)), y, np.int32(10_000)))
        assert y.sum() == 10_000 * 9_999 / 2

    def test_every_shuffle_and_vote(self, compiled):
        kernel = compiled("""
            extern "C" __global__ void exchange(int* y, double* d)
            {
                int lane = threadIdx.x;
                y[lane] = __shfl_sync(0xffffffffu, 10 * lane, 3);
                y[32 + lane] = __shfl_up_sync(0xffffffffu, lane, 1);
                y[64 + lane] = __shfl_down_sync(0xffffffffu, lane, 2, 8);  // in groups of eight
                y[96 + lane] = __shfl_xor_sync(0xffffffffu, lane, 1);
                y[128 + lane] = __ballot_sync(0xffffffffu, lane < 5);
                y[160 + lane] = 2 * __any_sync(~0u, lane == 7) + __all_sync(~0u, lane < 31);
                d[lane] = __shfl_sync(0xffffffffu, 0.5 * lane, 5);
                if (lane < 4) y[lane] += __shfl_sync(0xfu, lane, 2);  // four lanes only
                __syncwarp();
            }""")
        y, d = ints(192), xp.empty(32, np.float64)
        kernel((1,), (32,), (y, d))
        lane = np.arange(32)
        expected = [
            np.where(lane < 4, 32, 30),
            np.maximum(lane - 1, 0),
            np.where(lane % 8 < 6, lane + 2, lane),
            lane ^ 1,
            np.full(32, 31),
            np.full(32, 2),
        ]
        np.testing.assert_array_equal(y.get().reshape(6, 32), expected)
        assert (d == 2.5).all()

    def test_atomics_return_the_old_value(self, compiled):
        kernel = compiled("""
            extern "C" __global__ void count(int* y, float* f, double* d, int* before)
            {
                before[blockIdx.x * blockDim.x + threadIdx.x] = atomicAdd(y, 1);
                atomicAdd(f, 1);
                atomicAdd(d, 0.5);
                atomicMax(y + 1, threadIdx.x);
                atomicCAS(y + 2, 0, threadIdx.x + 1);
            }""")
        y, f, d, before = ints(3), xp.zeros(1, np.float32), xp.zeros(1, np.float64), ints(100)
        kernel((2,), (50,), (y, f, d, before))
        assert y.tolist() == [100, 49, 1]
        assert (f.item(), d.item()) == (100.0, 50.0)
        assert sorted(before.tolist()) == list(range(100))

    @pytest.mark.parametrize("order", ORDERS)
    def test_shared_memory_whose_size_is_set_at_the_launch(self, compiled, order):
        kernel = compiled("""
            extern "C" __global__ void reverse(const T* x, T* y)
            {
                extern __shared__ T s[];
                s[threadIdx.x] = x[threadIdx.x];
                __syncthreads();
                y[threadIdx.x] = s[blockDim.x - 1 - threadIdx.x];
            }""")
        x = np.arange(100, dtype=np.float32)
        y = xp.empty(100, np.float32)
        with thread_order(order):
            kernel((1,), (100,), (asarray(x), y), shared_mem=400)
        np.testing.assert_array_equal(y.get(), x[::-1])

    def test_templates_macros_vectors_and_the_keywords_of_cuda(self, compiled):
        kernel = compiled(
            """
            __constant__ float WEIGHTS[4] = {1, 10, 100};
            template <int N, class F> __device__ __forceinline__ T repeat(F f, T x) {
                if constexpr (N > 0) return repeat<N - 1>(f, f(x));
                return x;
            }
            template <int N> __device__ T shared_sum(T x) {
                __shared__ T all[N];
                all[threadIdx.x] = x;
                __syncthreads();
                T sum = 0;
                #pragma unroll
                for (int i = 0; i < N; ++i) sum += all[i];
                return sum;
            }
            #define KERNEL(NAME, N)                                                              \\
                extern "C" __global__ void __launch_bounds__(32, 1) NAME(const T* x, T* y) {      \\
                    float4 v = __ldg((const float4*)x);                                          \\
                    T sum = v.x * WEIGHTS[0] + v.y * WEIGHTS[1] + v.z * WEIGHTS[2] + v.w;        \\
                    y[threadIdx.x] = shared_sum<2>(repeat<N>([](T t) { return t * 2; }, sum));   \\
                }
            KERNEL(twice, 1)
            KERNEL(eightfold, 3)
            """,
            "eightfold",
        )
        assert list(kernel.module.kernels) == ["twice", "eightfold"]
        y = xp.empty(2, np.float32)
        kernel((1,), (2,), (asarray(np.array([1, 2, 3, 4], np.float32)), y))
        assert y.tolist() == [2 * 8 * 325] * 2

    def test_the_mathematical_functions_of_cuda(self, compiled):
        kernel = compiled("""
            extern "C" __global__ void numbers(T* y)
            {
                T values[] = {rsqrt(T(4)), max(T(NAN), T(1)), min(3, 2u), fmaxf(1, 2), expf(-INFINITY),
                              log1p(T(0)) + 1, abs(T(-2)), fabsf(-3.f), sizeof(float4), make_float2(1, 4).y};
                for (int i = 0; i < 10; ++i) y[i] = values[i];
            }""")
        y = xp.empty(10, np.float32)
        kernel((1,), (1,), (y,))
        assert y.tolist() == [0.5, 1, 2, 2, 0, 1, 2, 3, 16, 4]

    def test_a_table_of_pointers_gives_access_to_arrays_that_are_not_arguments(self, compiled):
        kernel = compiled("""
            extern "C" __global__ void double_all(T* const* arrays, const int* sizes)
            {
                T* y = arrays[blockIdx.x];
                for (int i = threadIdx.x; i < sizes[blockIdx.x]; i += blockDim.x) y[i] *= 2;
            }""")
        arrays = [xp.ones(n, np.float32) for n in (3, 70, 1)]
        table = asarray(np.array([address(a) for a in arrays], np.uint64))
        kernel((3,), (32,), (table, asarray(np.array([3, 70, 1], np.int32))))
        assert all((a == 2).all() for a in arrays)
        with pytest.raises(KernelError, match="4 bytes 0 bytes past the end of array 2 of argument 1"):
            kernel((3,), (32,), (table, asarray(np.array([3, 70, 2], np.int32))))
        table[1] = 12345
        with pytest.raises(TypeError, match="element 1 is not the address of an existing array"):
            kernel((3,), (32,), (table, asarray(np.array([3, 70, 1], np.int32))))


class TestBarriers:
    """A kernel that lacks a barrier must not be correct by chance."""

    @pytest.mark.parametrize("barrier", [0, 1])
    def test_a_missing_barrier_gives_a_wrong_product(self, compiled, barrier, rng):
        lines = MATMUL.splitlines()
        del lines[[i for i, line in enumerate(lines) if "__syncthreads" in line][barrier]]
        kernel = compiled("\n".join(lines))
        a, b = rng.standard_normal((2, 32, 32)).astype(np.float32)
        correct = []
        for order in ORDERS:
            c = xp.empty((32, 32), np.float32)
            with thread_order(order):
                kernel((4, 4), (8, 8), (asarray(a), asarray(b), c, np.int32(32)))
            correct.append(np.allclose(c.get(), a @ b, rtol=1e-4, atol=1e-5))
        assert not all(correct)

    @pytest.mark.parametrize(("reader", "order"), [(0, "reverse"), (63, "forward")])
    def test_a_missing_barrier_between_two_uses_of_an_array_gives_a_wrong_sum(self, compiled, reader, order):
        text = """
            __device__ T sum_to(int reader, T value)
            {
                __shared__ T of_warp[2];
                for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
                __syncthreads();  // the reader has read of_warp in an earlier call
                if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
                __syncthreads();
                return threadIdx.x == reader ? of_warp[0] + of_warp[1] : T(0);
            }
            extern "C" __global__ void sums(const T* x, T* y, int reader)
            {
                T number = x[threadIdx.x];
                T sum = sum_to(reader, number), squares = sum_to(reader, number * number);
                if (threadIdx.x == reader) y[0] = sum, y[1] = squares;
            }"""
        without = "\n".join(line for line in text.splitlines() if "earlier call" not in line)
        found = []
        for kernel in (compiled(text), compiled(without)):
            y = xp.empty(2, np.float32)
            with thread_order(order):
                kernel((1,), (64,), (asarray(np.arange(64, dtype=np.float32)), y, np.int32(reader)))
            found.append(y.tolist())
        correct = [63 * 64 / 2, 63 * 64 * 127 / 6]
        assert found[0] == correct
        assert found[1] != correct

    @pytest.mark.parametrize(("order", "first"), [("forward", 0), ("reverse", 63), ("shuffled", None)])
    def test_threads_run_in_the_given_order(self, compiled, order, first):
        kernel = compiled("""
            extern "C" __global__ void arrive(int* y, int* count) {
                if (threadIdx.x >= 0) y[(*count)++] = blockIdx.x * blockDim.x + threadIdx.x;
            }""")
        y, count = ints(64), ints(1)
        with thread_order(order):
            kernel((2,), (32,), (y, count))
        assert sorted(y.tolist()) == list(range(64))
        if first is None:
            assert y.tolist() not in ([*range(64)], [*range(63, -1, -1)])
        else:
            assert y[0] == first

    def test_an_unknown_order_is_rejected(self):
        with pytest.raises(
            ValueError, match="unknown order 'random'; choose from forward, reverse, shuffled"
        ):
            thread_order("random").__enter__()

    def test_a_barrier_after_some_threads_have_exited_is_an_error(self, compiled):
        kernel = compiled("""
            extern "C" __global__ void leave(T* y) {
                if (threadIdx.x == 5) return;
                __syncthreads();
                y[threadIdx.x] = 1;
            }""")
        message = r"kernels.cu, line 3: kernel leave, block \(0, 0, 0\), thread \(0, 0, 0\): "
        message += r"__syncthreads\(\) waits for all threads .* but thread \(5, 0, 0\) has exited the kernel"
        with pytest.raises(KernelError, match=message):
            kernel((1,), (8,), (xp.empty(8, np.float32),))

    def test_threads_at_two_different_barriers_are_an_error(self, compiled):
        kernel = compiled("""
            extern "C" __global__ void part(T* y) {
                if (threadIdx.y == 1) __syncthreads();
                else
                    __syncthreads();
            }""")
        with pytest.raises(KernelError, match=r"thread \(0, 1, 0\) waits at __syncthreads\(\) in line 2"):
            kernel((1,), (2, 2), (xp.empty(8, np.float32),))

    @pytest.mark.parametrize(
        ("threads", "mask", "message"),
        [
            (
                16,
                0xFFFFFFFF,
                r"__shfl_xor_sync with mask 0xffffffff waits for thread \(16, 0, 0\), which has exited",
            ),
            (33, 0xFFFF, r"mask 0x0000ffff, which does not include the calling thread"),
            (40, 0xFFFFFFFF, r"waits for lane 8, which is not in the block"),
        ],
        ids=["others have exited", "not itself", "not in the block"],
    )
    def test_the_mask_of_a_shuffle_names_the_lanes_that_take_part(self, compiled, threads, mask, message):
        kernel = compiled("""
            extern "C" __global__ void shuffle(int* y, int threads, unsigned mask) {
                int lane = threadIdx.x;
                if (lane < threads) y[lane] = __shfl_xor_sync(mask, lane, 1);
            }""")
        with pytest.raises(KernelError, match="line 3: .*" + message):
            kernel((1,), (40,), (ints(40), np.int32(threads), np.uint32(mask)))

    def test_a_launch_after_a_failed_launch_works(self, compiled):
        kernel = compiled("""
            extern "C" __global__ void leave(int* y, int n) {
                if (threadIdx.x < n) return;
                __syncthreads();
                y[threadIdx.x] += 1;
            }""")
        y = ints(64)
        for _ in range(40):
            with pytest.raises(KernelError):
                kernel((1,), (64,), (y, np.int32(7)))
            kernel((1,), (64,), (y, np.int32(0)))
        assert (y == 40).all()


class TestMemory:
    def test_numbers_that_no_thread_wrote_are_nan(self, compiled):
        y = xp.empty(10, np.float32)
        kernel = compiled(SAXPY.replace("+=", "="))
        kernel((1,), (32,), (xp.ones(10, np.float32), y, np.float32(2), np.int32(9)))
        assert np.isnan(y).tolist() == [False] * 9 + [True]

    def test_shared_memory_is_reset_to_nan_for_each_block(self, compiled):
        kernel = compiled("""
            template <int N> __device__ T look() {
                __shared__ T inner[N];
                T seen = inner[threadIdx.x];
                inner[threadIdx.x] = 1;
                return seen;
            }
            extern "C" __global__ void peek(T* y) {
                __shared__ T s[4];
                extern __shared__ T e[];
                y[8 * threadIdx.x + blockIdx.x] = s[threadIdx.x];
                y[8 * threadIdx.x + 2 + blockIdx.x] = e[threadIdx.x];
                y[8 * threadIdx.x + 4 + blockIdx.x] = look<4>();
                s[threadIdx.x] = e[threadIdx.x] = 1;
            }""")
        y = xp.zeros((4, 8), np.float32)
        kernel((2,), (4,), (y,), shared_mem=16)
        assert np.isnan(y[:, :6]).all()

    @pytest.mark.parametrize("statement", ILLEGAL)
    def test_an_illegal_statement_is_an_error_at_its_line(self, compiled, statement):
        name = f"illegal_{list(ILLEGAL).index(statement)}"
        where = rf"kernels.cu, line \d+: kernel {name}, block \(1, 0, 0\), thread \(2, 0, 0\): "
        kernel = compiled(ILLEGAL_KERNELS, name)
        x, y = xp.zeros(10, np.float32), xp.empty(10, np.float32)
        with pytest.raises(KernelError, match=where + ILLEGAL[statement]) as error:
            kernel((2,), (4,), (x, y, np.int32(10)), shared_mem=40)
        line = int(re.search(r"line (\d+)", str(error.value))[1])
        assert statement in kernel.module.source.read_text().splitlines()[line - 1]

    def test_the_line_is_that_of_the_function_not_of_its_caller(self, compiled):
        kernel = compiled("""
            __noinline__ __device__ T last(const T* x, int n)
            {
                return x[n];
            }
            extern "C" __global__ void copy(const T* x, T* y, int n) { y[0] = last(x, n); }
            """)
        x = xp.ones(10, np.float32)
        with pytest.raises(KernelError, match=r"kernels.cu, line 3: kernel copy, .*: reads 4 bytes 0 bytes"):
            kernel((1,), (1,), (x, xp.empty(1, np.float32), np.int32(10)))

    @pytest.mark.parametrize(
        ("statement", "message"),
        [
            ("y[threadIdx.x + 60] = 0;", "writes 4 bytes 0 bytes past the end of argument 1"),
            ("if (threadIdx.x < 9) __syncthreads();", r"__syncthreads\(\) waits for all threads"),
            ("int wide[2]; wide[threadIdx.x] = 0; y[0] = wide[1];", "index 2 is outside its array"),
        ],
    )
    def test_an_error_in_the_shared_functions_names_their_file(self, tmp_path, statement, message):
        common, source = tmp_path / "common.cuh", tmp_path / "kernels.cu"
        common.write_text("// Shared functions.\n__device__ void work(int* y)\n{\n    " + statement + "\n}\n")
        source.write_text('extern "C" __global__ void run(int* y) { work(y); }\n')
        kernel = cuda_on_cpu.Module(source, "float32", common).get_function("run")
        with pytest.raises(KernelError, match=r"common.cuh, line 4: kernel run, block .*: " + message):
            kernel((1,), (64,), (ints(64),))

    def test_constants_may_be_read(self, compiled):
        kernel = compiled("""
            __constant__ T WEIGHTS[5] = {1, 4, 6, 4, 1};
            extern "C" __global__ void weight(T* y, int n) { y[threadIdx.x] = WEIGHTS[threadIdx.x % n]; }
            """)
        y = xp.empty(10, np.float32)
        kernel((1,), (10,), (y, np.int32(5)))
        assert y.tolist() == 2 * [1, 4, 6, 4, 1]

    def test_overlapping_arrays_are_accessible_wherever_one_of_them_is(self, compiled):
        x = xp.ones(100, np.float32)
        compiled(SAXPY)((1,), (128,), (x[20:30], x, np.float32(2), np.int32(10)))
        compiled(SAXPY)((1,), (128,), (x, x[40:], np.float32(1), np.int32(40)))
        assert x.tolist() == [3.0] * 10 + [1.0] * 30 + [4.0] * 10 + [2.0] * 30 + [1.0] * 20
        regions = [Region("part", 80, 120), Region("whole", 0, 400), Region("other", 500, 600)]
        assert merged(regions) == [(0, 400), (500, 600)]

    def test_the_arrays_of_one_launch_are_not_accessible_to_the_next(self, compiled):
        x, y = xp.ones(100, np.float32), xp.ones(100, np.float32)
        compiled(SAXPY)((1,), (128,), (x, y, np.float32(2), np.int32(100)))
        with pytest.raises(KernelError, match=r"thread \(50, 0, 0\): reads 4 bytes 0 bytes past"):
            compiled(SAXPY)((1,), (128,), (x, y[:50], np.float32(2), np.int32(100)))

    @pytest.mark.parametrize(
        ("grid", "block", "shared", "message"),
        [
            ((1,), (33, 32), 0, r"the block \(33, 32, 1\) has more than 1024 threads"),
            ((1,), (1, 1, 65), 0, r"the block is \(1, 1, 65\); each number must be 1 to \(1024, 1024, 64\)"),
            ((0,), (32,), 0, r"the grid is \(0,\); each number must be 1 to"),
            ((1, 70_000), (32,), 0, r"the grid is \(1, 70000\)"),
            ((1,), (32,), 49_153, "49153 bytes of shared memory; a block has 49152"),
            ((1,), (32,), 40_000, r"10000 \+ 40000 bytes of shared memory; a block has 49152"),
        ],
    )
    def test_a_launch_beyond_the_limits_of_a_gpu_is_an_error(self, compiled, grid, block, shared, message):
        kernel = compiled("""
            extern "C" __global__ void large(T* y) {
                __shared__ char s[10000];
                s[threadIdx.x] = 0;
                __syncthreads();
                y[0] = s[blockDim.x - 1];
            }""")
        with pytest.raises(KernelError, match=f"kernel large: {message}"):
            kernel(grid, block, (xp.empty(1, np.float32),), shared)


class TestArguments:
    """The parameters of kernel saxpy are (const T* x, T* y, T a, int n)."""

    @pytest.mark.parametrize(
        ("position", "value", "message"),
        [
            (4, 10, r"argument 4 `int n`: got a Python int; pass np.int32\(...\)"),
            (4, np.int64(10), r"argument 4 `int n`: got np.int64; pass np.int32"),
            (4, 10.0, r"argument 4 `int n`: got a Python float; pass np.int32"),
            (3, 2.0, r"argument 3 `T a`: got a Python float; pass np.float32"),
            (3, xp.zeros((), np.float32), r"argument 3 `T a`: got an Array of float32 \(\); pass np.float32"),
            (
                2,
                xp.zeros(10),
                r"argument 2 `T\* __restrict__ y`: got an Array of float64 \(10,\); pass an Array",
            ),
            (2, np.zeros(10, np.float32), r"argument 2 .* a NumPy array .*; pass an Array .* by asarray\(\)"),
            (1, xp.zeros((10, 2), np.float32)[:, 0], r"argument 1 .* not contiguous; pass a copy"),
            (
                1,
                None,
                r"argument 1 `const T\* __restrict__ x`: got a Python NoneType; pass an Array of float32",
            ),
        ],
    )
    def test_each_must_have_the_type_that_the_kernel_declares(self, compiled, position, value, message):
        arguments = [xp.ones(10, np.float32), xp.ones(10, np.float32), np.float32(2), np.int32(10)]
        arguments[position - 1] = value
        with pytest.raises(TypeError, match="kernel saxpy, " + message):
            compiled(SAXPY)((1,), (32,), tuple(arguments))

    def test_their_number_must_match(self, compiled):
        message = r"saxpy takes 4 arguments \(const T\* __restrict__ x, .*, int n\), got 1"
        with pytest.raises(TypeError, match=message):
            compiled(SAXPY)((1,), (32,), (xp.ones(10, np.float32),))

    def test_the_grid_must_be_a_tuple(self, compiled):
        with pytest.raises(TypeError, match="the grid must be a tuple of one to three integers, got 4"):
            compiled(SAXPY)(4, (32,), ())


class TestFiles:
    def test_an_unknown_kernel_is_an_error_that_lists_the_known_ones(self, compiled):
        with pytest.raises(KernelError, match="kernels.cu has no kernel sax; it has saxpy"):
            compiled(SAXPY, "sax")

    def test_a_compiler_error_shows_the_line_of_the_file(self, compiled):
        with pytest.raises(KernelError, match=r"kernels\.cu:4:\d+: error: .*missing"):
            compiled(SAXPY.replace("a * x", "missing * x"))

    def test_a_kernel_without_extern_c_is_an_error(self, compiled):
        with pytest.raises(KernelError, match='write every kernel as `extern "C" __global__ void name'):
            compiled('__global__ void mangled(int* y) {} extern "C" __global__ void found(int* y) {}')

    def test_a_library_is_compiled_again_only_when_its_source_changes(self, compiled, tmp_path):
        source = tmp_path / "kernels.cu"
        source.write_text(SAXPY)
        first = cuda_on_cpu.Module(source, "float32").path
        made = first.stat().st_mtime_ns
        again = cuda_on_cpu.Module(source, "float32").path
        assert (again, again.stat().st_mtime_ns) == (first, made)
        assert cuda_on_cpu.Module(source, "float64").path != first
        source.write_text(SAXPY + "// changed")
        assert cuda_on_cpu.Module(source, "float32").path != first
        assert {path.suffix for path in first.parent.iterdir()} == {".so"}  # no temporary file is left

    def test_load_returns_the_same_module_twice(self, compiled, tmp_path):
        source = tmp_path / "saxpy.cu"
        source.write_text(SAXPY)
        assert cuda_on_cpu.load(source, "float32") is cuda_on_cpu.load(source, "float32")

    def test_a_missing_compiler_is_reported_in_one_line(self, monkeypatch):
        monkeypatch.setenv("PATH", "")
        assert cuda_on_cpu.problem.__wrapped__() == "g++ is not installed; apt install g++"

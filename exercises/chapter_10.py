"""Exercises of chapter 10, docs/10-a-gpu.md.

Fill in the functions. `make exercise N=10` says which are right.
"""


def col_address(i: int, kh: int, kw: int, N: int, OH: int, OW: int, KH: int, KW: int) -> int:
    """Return the address at which thread i of im2col writes the pixel under weight (kh, kw).

    Thread i = ((c N + n) OH + oh) OW + ow owns the window (oh, ow) of channel c of image n. `col` is the
    matrix (C KH KW, N OH OW): a row for each weight of a filter, a column for each window of each image. An
    address counts the numbers before it. Start from i alone: divide, and take remainders.

    Chapter 10, "One thread of im2col".
    """
    raise NotImplementedError("exercise 10.1")


def leaky_relu_kernels() -> str:
    """Return the CUDA C of leaky ReLU: y = x for x > 0, and slope x otherwise.

    Two kernels of one line each are to be written. Thread i owns element i. The grid has whole blocks of 256
    threads, so some threads have no element. T is float or double. A NaN must stay NaN, and at x = 0 the
    derivative is the slope. The emulator runs both kernels, and a gradient check judges the second.

    Chapter 10, "Threads, blocks, a grid".
    """
    raise NotImplementedError("exercise 10.2")  # delete this line, then mend the code below
    return """
        extern "C" __global__ void leaky_relu_forward(const T* x, T* y, T slope, int size)
        {
            int i = blockIdx.x * blockDim.x + threadIdx.x;
            // y[i] = ...
        }

        extern "C" __global__ void leaky_relu_backward(
            const T* dy, const T* x, T* dx, T slope, int size)
        {
            // dx[i] = ...
        }
    """


def weight_gradient_kernel() -> str:
    """Return the CUDA C of one number of a weight gradient: dw = sum over the pixels of x dy.

    x and dy are (size,), dw is one number. One block of 32 threads, a warp, shares the sum: thread i takes
    the pixels i, i + 32, i + 64, ... Then the 32 partial sums are added by shuffles, in five rounds. The
    kernel below leaves some of them out of dw: which? Do the rounds on paper for 8 lanes, which need offsets
    4, 2, 1. (The engine's own `warp_sum` would be too easy.)

    Chapter 10, "The weight gradient: few numbers, long sums".
    """
    raise NotImplementedError("exercise 10.3")  # delete this line, then mend the code below
    return """
        extern "C" __global__ void weight_gradient(const T* x, const T* dy, T* dw, int size)
        {
            T sum = 0;
            for (int i = threadIdx.x; i < size; i += 32) sum += x[i] * dy[i];
            for (int offset = 1; offset < 16; offset *= 2) sum += __shfl_down_sync(0xffffffff, sum, offset);
            if (threadIdx.x == 0) dw[0] = sum;
        }
    """

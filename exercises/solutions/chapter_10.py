"""Solutions of the exercises of chapter 10, docs/10-a-gpu.md."""


def col_address(i: int, kh: int, kw: int, N: int, OH: int, OW: int, KH: int, KW: int) -> int:
    """Return the address at which thread i of im2col writes the pixel under weight (kh, kw)."""
    c, window = divmod(i, N * OH * OW)  # The window is n OH OW + oh OW + ow, the column of col
    return ((c * KH + kh) * KW + kw) * N * OH * OW + window


def leaky_relu_kernels() -> str:
    """Return the CUDA C of leaky ReLU: y = x for x > 0, and slope x otherwise."""
    return """
        extern "C" __global__ void leaky_relu_forward(const T* x, T* y, T slope, int size)
        {
            int i = blockIdx.x * blockDim.x + threadIdx.x;
            if (i < size) y[i] = x[i] > T(0) ? x[i] : slope * x[i];
        }

        extern "C" __global__ void leaky_relu_backward(
            const T* dy, const T* x, T* dx, T slope, int size)
        {
            int i = blockIdx.x * blockDim.x + threadIdx.x;
            if (i < size) dx[i] = x[i] > T(0) ? dy[i] : slope * dy[i];
        }
    """


def weight_gradient_kernel() -> str:
    """Return the CUDA C of one number of a weight gradient: dw = sum over the pixels of x dy."""
    return """
        extern "C" __global__ void weight_gradient(const T* x, const T* dy, T* dw, int size)
        {
            T sum = 0;
            for (int i = threadIdx.x; i < size; i += 32) sum += x[i] * dy[i];
            for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_down_sync(0xffffffff, sum, offset);
            if (threadIdx.x == 0) dw[0] = sum;
        }
    """

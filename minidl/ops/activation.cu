// ReLU and the sigmoid, forward and backward: the formulas are derived in activation.py.
// All arrays are contiguous and hold `size` numbers; neighbouring threads read and write neighbouring numbers.

// Thread i owns y[i].
extern "C" __global__ void relu_forward(const T* __restrict__ x, T* __restrict__ y, int size)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < size) y[i] = x[i] <= T(0) ? T(0) : x[i];  // x > 0 ? x : 0 would hide a NaN
}

// Thread i owns dx[i].
extern "C" __global__ void relu_backward(
    const T* __restrict__ dy, const T* __restrict__ y, T* __restrict__ dx, int size)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < size) dx[i] = dy[i] * T(y[i] > T(0));  // relu'(0) = 0
}

// Thread i owns y[i].
extern "C" __global__ void sigmoid_forward(const T* __restrict__ x, T* __restrict__ y, int size)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < size) y[i] = sigmoid(x[i]);
}

// Thread i owns dx[i].
extern "C" __global__ void sigmoid_backward(
    const T* __restrict__ dy, const T* __restrict__ y, T* __restrict__ dx, int size)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < size) dx[i] = dy[i] * y[i] * (T(1) - y[i]);
}

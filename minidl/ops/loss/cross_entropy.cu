// Binary cross-entropy on logits x and a target t: the formulas are derived in cross_entropy.py.
//
// A sum over all numbers has two stages, each with the same order in every run: the first kernel writes one partial
// sum per block, and the second, a single block, sums these. The loss and its gradient dy are arrays of one
// number, which stay on the GPU, so that nothing waits for the CPU.

// Thread i of the grid owns the numbers i, i + (threads of the grid), ...; block b writes their sum to partial[b].
extern "C" __global__ void cross_entropy_sums(
    const T* __restrict__ x, const T* __restrict__ t, T* __restrict__ partial, int size)
{
    T sum = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < size; i += gridDim.x * blockDim.x)
        sum += max(x[i], T(0)) - x[i] * t[i] + log1p(exp(-abs(x[i])));  // x t propagates NaN
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// Thread i of the only block owns the partial sums i, i + (threads of the block), ...
extern "C" __global__ void cross_entropy(const T* __restrict__ partial, T* __restrict__ loss, int blocks, int size)
{
    T sum = 0;
    for (int i = threadIdx.x; i < blocks; i += blockDim.x) sum += partial[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *loss = sum / T(size);
}

// Thread i owns dx[i].
extern "C" __global__ void cross_entropy_backward(
    const T* __restrict__ dy, const T* __restrict__ x, const T* __restrict__ t, T* __restrict__ dx, int size)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < size) dx[i] = (sigmoid(x[i]) - t[i]) * (*dy / T(size));
}

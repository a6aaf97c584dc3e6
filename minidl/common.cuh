// Functions shared by several kernels. The engine inserts this file before every .cu file, after `using T`.

// 1 / (1 + exp(-x)), derived in ops/activation.py.
__device__ T sigmoid(T x)
{
    T e = exp(-abs(x));  // in (0, 1]: it cannot overflow
    return (x >= T(0) ? T(1) : e) / (T(1) + e);
}

// The sum of `value` over the 32 threads of a warp, in its first thread. In each round, every thread adds the value
// of the thread `offset` lanes higher, which it reads from that thread's register (a shuffle):
// after the rounds 16, 8, 4, 2, 1 the first thread holds the sum of all 32.
__device__ T warp_sum(T value)
{
    for (int offset = 16; offset > 0; offset /= 2) value += __shfl_down_sync(0xffffffff, value, offset);
    return value;
}

// The sum of `value` over all threads of the block, in its first thread: every warp sums over its threads, then the
// first warp over the warps. All threads of the block must call it; blockDim.x is a multiple of 32.
__device__ T block_sum(T value)
{
    __shared__ T of_warp[32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    value = warp_sum(value);
    __syncthreads();  // all threads have read what an earlier call left in of_warp
    if (lane == 0) of_warp[warp] = value;
    __syncthreads();
    return warp_sum(lane < warps ? of_warp[lane] : T(0));
}

// Write the sums of u and v over block (row, b) of a grid (rows, blocks) to sums (2, rows, blocks).
__device__ void write_block_sums(T u, T v, T* __restrict__ sums)
{
    u = block_sum(u);
    v = block_sum(v);
    if (threadIdx.x > 0) return;
    int own = blockIdx.x * gridDim.y + blockIdx.y;
    sums[own] = u;
    sums[gridDim.x * gridDim.y + own] = v;
}

// The array that element i belongs to, if the elements of all arrays are numbered consecutively: the last k with
// offsets[k] <= i, found by bisection. `tables.py` makes the tables.
__device__ int array_of(int i, const int* offsets, int arrays)
{
    int k = 0;
    for (int end = arrays; end - k > 1;) {
        int middle = (k + end) / 2;
        if (offsets[middle] <= i) k = middle;
        else end = middle;
    }
    return k;
}

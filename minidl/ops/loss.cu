// Binary cross-entropy and soft Dice on logits x and a target t: the formulas are derived in loss.py.
//
// Sums over all numbers are made in two stages, each of the same order in every run: the first kernel leaves
// one partial sum a block, the second, of a single block, adds these up. Nothing waits for the CPU: the losses
// and the gradient dy that comes back are arrays of one number, which stay on the GPU.

// Return the sum of `value` over the threads of the block, at most 1024, to thread 0 only.
__device__ T block_sum(T value)
{
    __shared__ T of_warp[32];
    for (int offset = 16; offset > 0; offset /= 2) value += __shfl_down_sync(0xffffffff, value, offset);
    __syncthreads();  // everybody has read what an earlier call left in of_warp
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
    __syncthreads();
    T sum = 0;
    if (threadIdx.x == 0)
        for (int warp = 0; warp < blockDim.x / 32; warp++) sum += of_warp[warp];
    return sum;
}

__device__ T sigmoid(T x)
{
    T e = exp(-abs(x));  // in (0, 1]: it cannot overflow
    return (x >= T(0) ? T(1) : e) / (T(1) + e);
}

// Thread i of the grid owns the numbers i, i + (threads of the grid), ...; block b leaves their sum in partial[b].
extern "C" __global__ void cross_entropy_sums(
    const T* __restrict__ x, const T* __restrict__ t, T* __restrict__ partial, int size)
{
    T sum = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < size; i += gridDim.x * blockDim.x)
        sum += max(x[i], T(0)) - x[i] * t[i] + log1p(exp(-abs(x[i])));  // a NaN stays one in x t
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

// Block (b, n) owns its share of the pixels of image n, each thread every so many of them, and leaves the sums
// of p t and of p + t in partial, which is (N, blocks of an image, 2). The images lie one after the other.
extern "C" __global__ void soft_dice_sums(
    const T* __restrict__ x, const T* __restrict__ t, T* __restrict__ partial, int pixels)
{
    x += (long long)blockIdx.y * pixels;
    t += (long long)blockIdx.y * pixels;
    T intersection = 0, total = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < pixels; i += gridDim.x * blockDim.x) {
        T p = sigmoid(x[i]);
        intersection += p * t[i];
        total += p + t[i];
    }
    intersection = block_sum(intersection);
    total = block_sum(total);
    if (threadIdx.x > 0) return;
    partial += 2 * (blockIdx.y * gridDim.x + blockIdx.x);
    partial[0] = intersection;
    partial[1] = total;
}

// Thread n of the only block owns the images n, n + (threads of the block), ...: their dice[n] and total[n].
extern "C" __global__ void soft_dice(
    const T* __restrict__ partial, T* __restrict__ dice, T* __restrict__ total, T* __restrict__ loss,
    int images, int blocks, T smooth)
{
    T sum = 0;
    for (int n = threadIdx.x; n < images; n += blockDim.x) {
        T intersection = 0, all = 0;
        for (int b = 0; b < blocks; b++) {
            intersection += partial[2 * (n * blocks + b)];
            all += partial[2 * (n * blocks + b) + 1];
        }
        total[n] = all + smooth;
        dice[n] = (T(2) * intersection + smooth) / total[n];
        sum += dice[n];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) *loss = T(1) - sum / T(images);
}

// Thread i owns dx[i], a pixel of image n = i / pixels.
extern "C" __global__ void soft_dice_backward(
    const T* __restrict__ dy, const T* __restrict__ x, const T* __restrict__ t, const T* __restrict__ dice,
    const T* __restrict__ total, T* __restrict__ dx, int images, int pixels)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x, n = i / pixels;
    if (n >= images) return;
    T p = sigmoid(x[i]);
    dx[i] = (dice[n] - T(2) * t[i]) / total[n] * (*dy / T(images)) * p * (T(1) - p);
}

// Batch norm of x (N, C, HW), where HW is the number of pixels of an image. The formulas are derived in fused.py.
//
// Every kernel that reads x divides it among the threads in the same way. A row is one channel of one image, HW
// consecutive numbers: row i is channel i % C of image i / C. The grid is (N C, blocks); blockIdx.x is the row, and the
// threads of all its blocks, numbered consecutively, own its pixels: thread i owns pixel i of the row and, if a row has
// more pixels than threads, also pixel i + threads, and so on. Neighbouring threads therefore read neighbouring
// addresses, and a thread computes its channel's parameters once. With `unroll 4` the compiler lets it read four pixels
// before it needs the first: a thread that waits for each pixel does not keep the memory busy. At the beginning of a
// block its threads wait for the parameters, and at its end for each other, to add up their sums. The grid therefore
// has only as many blocks as a large GPU runs at a time, if the rows are fewer, so the GPU waits only once.

// z = a x + c, a = g r, c = b - a mean: the scale and the shift of one channel.
struct Line {
    T r, a, c;
};

__device__ Line line_of(T weight, T bias, T mean, T var, T eps)
{
    T r = rsqrt(var + eps);
    return {r, weight * r, bias - weight * r * mean};
}

// Block (row, b) writes to sums (2, N C, blocks) the sums of x - shift and of its square over its pixels, where
// shift is the channel's first pixel.
extern "C" __global__ void moment_sums(const T* __restrict__ x, T* __restrict__ sums, int C, int HW)
{
    T shift = x[blockIdx.x % C * HW], sum = T(0), square = T(0);
    int threads = gridDim.y * blockDim.x;
    #pragma unroll 4
    for (int i = blockIdx.y * blockDim.x + threadIdx.x; i < HW; i += threads) {
        T d = x[blockIdx.x * HW + i] - shift;
        sum += d;
        square += d * d;
    }
    write_block_sums(sum, square, sums);
}

// Return the sum of sums[which] over all blocks of channel c, where sums is (2, N, C, blocks) and `which` is 0 or 1;
// the threads share the blocks.
__device__ T channel_sum(const T* __restrict__ sums, int which, int c, int N, int C, int blocks)
{
    T sum = T(0);
    for (int i = threadIdx.x; i < N * blocks; i += blockDim.x) {
        int n = i / blocks, b = i % blocks;
        sum += sums[((which * N + n) * C + c) * blocks + b];
    }
    return block_sum(sum);
}

// Block c sums over the blocks of its channel and writes the channel's mean and variance, mean and var (C,).
extern "C" __global__ void moments(const T* __restrict__ x, const T* __restrict__ sums, T* __restrict__ mean,
                                   T* __restrict__ var, int N, int C, int HW, int blocks)
{
    int c = blockIdx.x;
    T sum = channel_sum(sums, 0, c, N, C, blocks), square = channel_sum(sums, 1, c, N, C, blocks);
    if (threadIdx.x == 0) {
        T m = T(N) * T(HW), d = sum / m, v = square / m - d * d;
        mean[c] = x[c * HW] + d;
        var[c] = v < T(0) ? T(0) : v;  // rounding can make it negative
    }
}

// Thread i owns pixel i of row blockIdx.x of y (N, C, HW): y = z, or relu(z).
extern "C" __global__ void normalise(const T* __restrict__ x, const T* __restrict__ weight,
                                     const T* __restrict__ bias, const T* __restrict__ mean,
                                     const T* __restrict__ var, T eps, int relu, T* __restrict__ y, int C, int HW)
{
    int c = blockIdx.x % C;
    Line line = line_of(weight[c], bias[c], mean[c], var[c], eps);
    int threads = gridDim.y * blockDim.x;
    #pragma unroll 4
    for (int i = blockIdx.y * blockDim.x + threadIdx.x; i < HW; i += threads) {
        int at = blockIdx.x * HW + i;
        T z = line.a * x[at] + line.c;
        y[at] = relu && z <= T(0) ? T(0) : z;  // NaN propagates
    }
}

// Block (row, b) writes to sums (2, N C, blocks) the sums of dz n and of dz over its pixels.
extern "C" __global__ void gradient_sums(const T* __restrict__ dy, const T* __restrict__ x,
                                         const T* __restrict__ weight, const T* __restrict__ bias,
                                         const T* __restrict__ mean, const T* __restrict__ var, T eps, int relu,
                                         T* __restrict__ sums, int C, int HW)
{
    int c = blockIdx.x % C;
    Line line = line_of(weight[c], bias[c], mean[c], var[c], eps);
    T mean_c = mean[c], sum_dz_n = T(0), sum_dz = T(0);
    int threads = gridDim.y * blockDim.x;
    #pragma unroll 4
    for (int i = blockIdx.y * blockDim.x + threadIdx.x; i < HW; i += threads) {
        int at = blockIdx.x * HW + i;
        T pixel = x[at], dz = dy[at];
        if (relu && !(line.a * pixel + line.c > T(0))) dz = T(0);  // relu'(0) = 0
        sum_dz_n += dz * (pixel - mean_c) * line.r;
        sum_dz += dz;
    }
    write_block_sums(sum_dz_n, sum_dz, sums);
}

// Block c sums over the blocks of its channel and writes dg = sum(dz n) and db = sum(dz), (C,) each.
extern "C" __global__ void gradient_totals(const T* __restrict__ sums, T* __restrict__ dg, T* __restrict__ db,
                                           int N, int C, int blocks)
{
    int c = blockIdx.x;
    T sum_dz_n = channel_sum(sums, 0, c, N, C, blocks), sum_dz = channel_sum(sums, 1, c, N, C, blocks);
    if (threadIdx.x == 0) {
        dg[c] = sum_dz_n;
        db[c] = sum_dz;
    }
}

// Thread i owns pixel i of row blockIdx.x of dx (N, C, HW): dx = a (dz - share (db + n dg)), where share is 1 / m in
// training, and 0 in evaluation.
extern "C" __global__ void input_gradient(const T* __restrict__ dy, const T* __restrict__ x,
                                          const T* __restrict__ weight, const T* __restrict__ bias,
                                          const T* __restrict__ mean, const T* __restrict__ var, T eps, int relu,
                                          const T* __restrict__ dg, const T* __restrict__ db,
                                          T* __restrict__ dx, T share, int C, int HW)
{
    int c = blockIdx.x % C;
    Line line = line_of(weight[c], bias[c], mean[c], var[c], eps);
    T mean_c = mean[c], constant_part = share * db[c], n_part = share * dg[c] * line.r;
    int threads = gridDim.y * blockDim.x;
    #pragma unroll 4
    for (int i = blockIdx.y * blockDim.x + threadIdx.x; i < HW; i += threads) {
        int at = blockIdx.x * HW + i;
        T pixel = x[at], dz = dy[at];
        if (relu && !(line.a * pixel + line.c > T(0))) dz = T(0);  // relu'(0) = 0
        dx[at] = line.a * (dz - constant_part - (pixel - mean_c) * n_part);
    }
}

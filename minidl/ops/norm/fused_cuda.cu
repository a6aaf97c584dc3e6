// Batch norm of x (N, C, HW), where HW is the number of pixels of an image. The formulas are derived in fused.py.
//
// Every kernel that reads x divides it among the threads in the same way. The grid is (blocks, C); blockIdx.y is the
// channel c, and the threads of all its blocks, numbered consecutively, own its pixels: thread i owns pixel i of
// channel c in all N images and, if a channel has more pixels than threads, also pixel i + threads, and so
// on. Neighbouring threads therefore read neighbouring addresses, and a thread reads its channel's parameters once.

// z = a x + c, a = g r, c = b - a mean: the scale and the shift of one channel.
struct Line {
    T r, a, c;
};

__device__ Line line_of(T weight, T bias, T mean, T var, T eps)
{
    T r = T(1) / sqrt(var + eps);
    return {r, weight * r, bias - weight * r * mean};
}

// Write the sums of u and v over the block (b, c) to sums (2, C, blocks).
__device__ void write_block_sums(T u, T v, T* __restrict__ sums, int C)
{
    u = block_sum(u);
    v = block_sum(v);
    if (threadIdx.x > 0) return;
    sums[blockIdx.y * gridDim.x + blockIdx.x] = u;
    sums[(C + blockIdx.y) * gridDim.x + blockIdx.x] = v;
}

// Block (b, c) writes to sums (2, C, blocks) the sums of x - shift and of its square over its pixels, where
// shift is the channel's first pixel.
extern "C" __global__ void moment_sums(const T* __restrict__ x, T* __restrict__ sums, int N, int C, int HW)
{
    int c = blockIdx.y;
    T shift = x[c * HW], sum = T(0), square = T(0);
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < HW; i += gridDim.x * blockDim.x)
        for (int n = 0; n < N; ++n) {
            T d = x[(n * C + c) * HW + i] - shift;
            sum += d;
            square += d * d;
        }
    write_block_sums(sum, square, sums, C);
}

// Return the sum over the blocks of sums[which, c, :], where sums is (2, C, blocks) and `which` is 0 or 1; each
// thread reads the element of one block.
__device__ T channel_sum(const T* __restrict__ sums, int which, int blocks, int c, int C)
{
    int b = threadIdx.x;
    return block_sum(b < blocks ? sums[(which * C + c) * blocks + b] : T(0));
}

// Block c sums over the blocks of its channel and writes the channel's mean and variance, mean and var (C,).
extern "C" __global__ void moments(const T* __restrict__ x, const T* __restrict__ sums, T* __restrict__ mean,
                                   T* __restrict__ var, int blocks, int N, int C, int HW)
{
    int c = blockIdx.x;
    T sum = channel_sum(sums, 0, blocks, c, C), square = channel_sum(sums, 1, blocks, c, C);
    if (threadIdx.x == 0) {
        T m = T(N) * T(HW), d = sum / m, v = square / m - d * d;
        mean[c] = x[c * HW] + d;
        var[c] = v < T(0) ? T(0) : v;  // rounding can make it negative
    }
}

// Thread i owns pixel i of channel c in all images of y (N, C, HW): y = z, or relu(z).
extern "C" __global__ void normalise(const T* __restrict__ x, const T* __restrict__ weight,
                                     const T* __restrict__ bias, const T* __restrict__ mean,
                                     const T* __restrict__ var, T eps, int relu, T* __restrict__ y, int N, int C,
                                     int HW)
{
    int c = blockIdx.y;
    Line line = line_of(weight[c], bias[c], mean[c], var[c], eps);
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < HW; i += gridDim.x * blockDim.x)
        for (int n = 0; n < N; ++n) {
            int at = (n * C + c) * HW + i;
            T z = line.a * x[at] + line.c;
            y[at] = relu && z <= T(0) ? T(0) : z;  // NaN propagates
        }
}

// Block (b, c) writes to sums (2, C, blocks) the sums of dz n and of dz over its pixels.
extern "C" __global__ void gradient_sums(const T* __restrict__ dy, const T* __restrict__ x,
                                         const T* __restrict__ weight, const T* __restrict__ bias,
                                         const T* __restrict__ mean, const T* __restrict__ var, T eps, int relu,
                                         T* __restrict__ sums, int N, int C, int HW)
{
    int c = blockIdx.y;
    Line line = line_of(weight[c], bias[c], mean[c], var[c], eps);
    T mean_c = mean[c], sum_dz_n = T(0), sum_dz = T(0);
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < HW; i += gridDim.x * blockDim.x)
        for (int n = 0; n < N; ++n) {
            int at = (n * C + c) * HW + i;
            T dz = dy[at];
            if (relu && !(line.a * x[at] + line.c > T(0))) dz = T(0);  // relu'(0) = 0
            sum_dz_n += dz * (x[at] - mean_c) * line.r;
            sum_dz += dz;
        }
    write_block_sums(sum_dz_n, sum_dz, sums, C);
}

// Block c sums over the blocks of its channel and writes dg = sum(dz n) and db = sum(dz), (C,) each.
extern "C" __global__ void gradient_totals(const T* __restrict__ sums, T* __restrict__ dg, T* __restrict__ db,
                                           int blocks, int C)
{
    int c = blockIdx.x;
    T sum_dz_n = channel_sum(sums, 0, blocks, c, C), sum_dz = channel_sum(sums, 1, blocks, c, C);
    if (threadIdx.x == 0) {
        dg[c] = sum_dz_n;
        db[c] = sum_dz;
    }
}

// Thread i owns pixel i of channel c in all images of dx (N, C, HW): dx = a (dz - share (db + n dg)), where
// share is 1 / m in training, and 0 in evaluation.
extern "C" __global__ void input_gradient(const T* __restrict__ dy, const T* __restrict__ x,
                                          const T* __restrict__ weight, const T* __restrict__ bias,
                                          const T* __restrict__ mean, const T* __restrict__ var, T eps, int relu,
                                          const T* __restrict__ dg, const T* __restrict__ db,
                                          T* __restrict__ dx, T share, int N, int C, int HW)
{
    int c = blockIdx.y;
    Line line = line_of(weight[c], bias[c], mean[c], var[c], eps);
    T mean_c = mean[c], constant_part = share * db[c], n_part = share * dg[c] * line.r;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < HW; i += gridDim.x * blockDim.x)
        for (int n = 0; n < N; ++n) {
            int at = (n * C + c) * HW + i;
            T dz = dy[at];
            if (relu && !(line.a * x[at] + line.c > T(0))) dz = T(0);  // relu'(0) = 0
            dx[at] = line.a * (dz - constant_part - (x[at] - mean_c) * n_part);
        }
}

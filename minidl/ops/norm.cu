// Batch norm of x (N, C, HW), where HW counts the pixels of an image: the twin of norm.py, which derives it.
//
// Every kernel that walks over x shares it out alike. The grid is (blocks, C); blockIdx.y is the channel c, and
// its threads, counted through its blocks, own its pixels: thread i owns pixel i of channel c in all N images,
// and where a channel has more pixels than threads also pixel i + threads, and so on. Neighbouring threads
// then read neighbouring addresses, and a thread reads what belongs to the channel once.

// z = a x + c, a = g r, c = b - a mean: what one channel is multiplied by and moved by.
struct Line {
    T r, a, c;
};

__device__ Line line_of(T weight, T bias, T mean, T var, T eps)
{
    T r = T(1) / sqrt(var + eps);
    return {r, weight * r, bias - weight * r * mean};
}

// Two sums taken side by side, which costs less than one after the other.
struct Sums {
    T u, v;
};

// The sums over the threads of one warp, in its lane 0: the lanes pass theirs down by 16, 8, 4, 2, 1.
__device__ Sums warp_sums(Sums s)
{
    for (int offset = 16; offset > 0; offset /= 2) {
        s.u += __shfl_down_sync(0xffffffff, s.u, offset);
        s.v += __shfl_down_sync(0xffffffff, s.v, offset);
    }
    return s;
}

// The sums over all threads of the block, in its thread 0: every warp adds up its threads, then the first warp
// the warps. All threads must call it, and once: a second call could overwrite what the first still reads.
__device__ Sums block_sums(T u, T v)
{
    __shared__ Sums of_warp[32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    Sums s = warp_sums({u, v});
    if (lane == 0) of_warp[warp] = s;
    __syncthreads();
    return warp_sums(lane < warps ? of_warp[lane] : Sums{T(0), T(0)});
}

// Block (b, c) writes to sums (2, C, blocks) the sum of x - shift over its pixels, and of its square, where the
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
    Sums total = block_sums(sum, square);
    if (threadIdx.x == 0) {
        sums[c * gridDim.x + blockIdx.x] = total.u;
        sums[(C + c) * gridDim.x + blockIdx.x] = total.v;
    }
}

// What all blocks wrote to sums (2, C, blocks) for channel c, added up, one block's a thread.
__device__ Sums channel_sums(const T* __restrict__ sums, int blocks, int c, int C)
{
    int b = threadIdx.x;
    bool exists = b < blocks;
    return block_sums(exists ? sums[c * blocks + b] : T(0), exists ? sums[(C + c) * blocks + b] : T(0));
}

// Block c adds up the sums of its channel and writes its mean and variance, mean and var (C,).
extern "C" __global__ void moments(const T* __restrict__ x, const T* __restrict__ sums, T* __restrict__ mean,
                                   T* __restrict__ var, int blocks, int N, int C, int HW)
{
    int c = blockIdx.x;
    Sums total = channel_sums(sums, blocks, c, C);
    if (threadIdx.x == 0) {
        T m = T(N) * T(HW), d = total.u / m, v = total.v / m - d * d;
        mean[c] = x[c * HW] + d;
        var[c] = v < T(0) ? T(0) : v;  // below 0 by rounding alone
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
            y[at] = relu && z <= T(0) ? T(0) : z;  // a NaN stays one
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
            if (relu && !(line.a * x[at] + line.c > T(0))) dz = T(0);
            sum_dz_n += dz * (x[at] - mean_c) * line.r;
            sum_dz += dz;
        }
    Sums total = block_sums(sum_dz_n, sum_dz);
    if (threadIdx.x == 0) {
        sums[c * gridDim.x + blockIdx.x] = total.u;
        sums[(C + c) * gridDim.x + blockIdx.x] = total.v;
    }
}

// Block c adds up the sums of its channel and writes dg = sum(dz n) and db = sum(dz), (C,) both.
extern "C" __global__ void gradient_totals(const T* __restrict__ sums, T* __restrict__ dg, T* __restrict__ db,
                                           int blocks, int C)
{
    int c = blockIdx.x;
    Sums total = channel_sums(sums, blocks, c, C);
    if (threadIdx.x == 0) {
        dg[c] = total.u;
        db[c] = total.v;
    }
}

// Thread i owns pixel i of channel c in all images of dx (N, C, HW): dx = a (dz - share (db + n dg)), where the
// share is 1 / m in training, and 0 in evaluation.
extern "C" __global__ void input_gradient(const T* __restrict__ dy, const T* __restrict__ x,
                                          const T* __restrict__ weight, const T* __restrict__ bias,
                                          const T* __restrict__ mean, const T* __restrict__ var, T eps, int relu,
                                          const T* __restrict__ dg, const T* __restrict__ db,
                                          T* __restrict__ dx, T share, int N, int C, int HW)
{
    int c = blockIdx.y;
    Line line = line_of(weight[c], bias[c], mean[c], var[c], eps);
    T mean_c = mean[c], of_one = share * db[c], of_n = share * dg[c] * line.r;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < HW; i += gridDim.x * blockDim.x)
        for (int n = 0; n < N; ++n) {
            int at = (n * C + c) * HW + i;
            T dz = dy[at];
            if (relu && !(line.a * x[at] + line.c > T(0))) dz = T(0);
            dx[at] = line.a * (dz - of_one - (x[at] - mean_c) * of_n);
        }
}

// Thread i owns number i of y (size,): y = p u + q v.
extern "C" __global__ void weighted_sum(const T* __restrict__ u, const T* __restrict__ v, T* __restrict__ y, T p,
                                        T q, int size)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < size) y[i] = p * u[i] + q * v[i];
}

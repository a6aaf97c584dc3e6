// Group norm of x (N, C, HW), where HW is the number of pixels of an image. The formulas are derived in fused.py.
//
// A row is one channel of one image, HW consecutive numbers: row i is channel i % C of image i / C. A group of an
// image is `size` consecutive rows: row i is in group i / size. The kernels that read x share its rows among the blocks
// as in fused_cuda.cu: blockIdx.x is the row. The mean and the variance of the groups, and dg and db, come from there.

// The parameters of a row: n = (x - mean) r, z = a x + c, a = g r, c = b - a mean.
struct Row {
    T g, r, mean, a, c;
};

__device__ Row row_of(const T* weight, const T* bias, const T* mean, const T* var, T eps, int C, int size)
{
    int channel = blockIdx.x % C, group = blockIdx.x / size;
    T g = weight[channel], r = rsqrt(var[group] + eps);
    return {g, r, mean[group], g * r, bias[channel] - g * r * mean[group]};
}

// Thread i owns pixel i of row blockIdx.x of y (N, C, HW) and, if a row has more pixels than threads, also pixel
// i + threads, and so on: y = z, or relu(z).
extern "C" __global__ void group_normalise(const T* __restrict__ x, const T* __restrict__ weight,
                                           const T* __restrict__ bias, const T* __restrict__ mean,
                                           const T* __restrict__ var, T eps, int relu, T* __restrict__ y, int C,
                                           int size, int HW)
{
    Row row = row_of(weight, bias, mean, var, eps, C, size);
    int threads = gridDim.y * blockDim.x;
    #pragma unroll 4
    for (int i = blockIdx.y * blockDim.x + threadIdx.x; i < HW; i += threads) {
        T z = row.a * x[blockIdx.x * HW + i] + row.c;
        y[blockIdx.x * HW + i] = relu && z <= T(0) ? T(0) : z;  // NaN propagates
    }
}

// Block (row, b) writes to sums (2, N C, blocks) the sums of dz n and of dz over its pixels.
extern "C" __global__ void group_gradient_sums(const T* __restrict__ dy, const T* __restrict__ x,
                                               const T* __restrict__ weight, const T* __restrict__ bias,
                                               const T* __restrict__ mean, const T* __restrict__ var, T eps,
                                               int relu, T* __restrict__ sums, int C, int size, int HW)
{
    Row row = row_of(weight, bias, mean, var, eps, C, size);
    T sum_dz_n = T(0), sum_dz = T(0);
    int threads = gridDim.y * blockDim.x;
    #pragma unroll 4
    for (int i = blockIdx.y * blockDim.x + threadIdx.x; i < HW; i += threads) {
        int at = blockIdx.x * HW + i;
        T pixel = x[at], dz = dy[at];
        if (relu && !(row.a * pixel + row.c > T(0))) dz = T(0);  // relu'(0) = 0
        sum_dz_n += dz * (pixel - row.mean) * row.r;
        sum_dz += dz;
    }
    write_block_sums(sum_dz_n, sum_dz, sums);
}

// Block i writes means[:, i] of means (2, N G), the means of dn n and of dn over group i: its threads share the
// `size` rows of the group, each of them summed by `blocks` blocks.
extern "C" __global__ void group_gradient_means(const T* __restrict__ sums, const T* __restrict__ weight,
                                                T* __restrict__ means, int C, int size, int HW, int blocks)
{
    int groups = gridDim.x, count = size * blocks;
    T dn_n = T(0), dn = T(0), m = T(size) * T(HW);
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        int at = blockIdx.x * count + i;
        T g = weight[at / blocks % C];
        dn_n += g * sums[at];
        dn += g * sums[groups * count + at];
    }
    dn_n = block_sum(dn_n);
    dn = block_sum(dn);
    if (threadIdx.x > 0) return;
    means[blockIdx.x] = dn_n / m;
    means[groups + blockIdx.x] = dn / m;
}

// Thread i owns pixels i, i + threads, ... of row blockIdx.x of dx (N, C, HW): dx = r (dn - mean(dn) - n mean(dn n)).
extern "C" __global__ void group_input_gradient(const T* __restrict__ dy, const T* __restrict__ x,
                                                const T* __restrict__ weight, const T* __restrict__ bias,
                                                const T* __restrict__ mean, const T* __restrict__ var, T eps,
                                                int relu, const T* __restrict__ means, T* __restrict__ dx,
                                                int groups, int C, int size, int HW)
{
    Row row = row_of(weight, bias, mean, var, eps, C, size);
    T mean_dn_n = means[blockIdx.x / size], mean_dn = means[groups + blockIdx.x / size];
    int threads = gridDim.y * blockDim.x;
    #pragma unroll 4
    for (int i = blockIdx.y * blockDim.x + threadIdx.x; i < HW; i += threads) {
        int at = blockIdx.x * HW + i;
        T pixel = x[at], dz = dy[at];
        if (relu && !(row.a * pixel + row.c > T(0))) dz = T(0);  // relu'(0) = 0
        T n = (pixel - row.mean) * row.r;
        dx[at] = row.r * (row.g * dz - mean_dn - n * mean_dn_n);
    }
}

// Group norm of x (N, C, HW), where HW is the number of pixels of an image. The formulas are derived in fused.py.
//
// A row is one channel of one image, HW consecutive numbers: row i is channel i % C of image i / C. A group of an
// image is `size` consecutive rows: row i is in group i / size. The kernels that read x have one row per block or
// per column of blocks: blockIdx.x is the row. The mean and the variance of the groups come from fused_cuda.cu.

// The parameters of a row: n = (x - mean) r, z = a x + c, a = g r, c = b - a mean.
struct Row {
    T g, r, mean, a, c;
};

__device__ Row row_of(const T* weight, const T* bias, const T* mean, const T* var, T eps, int C, int size)
{
    int channel = blockIdx.x % C, group = blockIdx.x / size;
    T g = weight[channel], r = T(1) / sqrt(var[group] + eps);
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
    for (int i = blockIdx.y * blockDim.x + threadIdx.x; i < HW; i += gridDim.y * blockDim.x) {
        T z = row.a * x[blockIdx.x * HW + i] + row.c;
        y[blockIdx.x * HW + i] = relu && z <= T(0) ? T(0) : z;  // NaN propagates
    }
}

// Block i writes to sums (2, N C) the sums of dz n and of dz over row i; its threads share the pixels.
extern "C" __global__ void group_gradient_sums(const T* __restrict__ dy, const T* __restrict__ x,
                                               const T* __restrict__ weight, const T* __restrict__ bias,
                                               const T* __restrict__ mean, const T* __restrict__ var, T eps,
                                               int relu, T* __restrict__ sums, int C, int size, int HW)
{
    Row row = row_of(weight, bias, mean, var, eps, C, size);
    T sum_dz_n = T(0), sum_dz = T(0);
    for (int i = threadIdx.x; i < HW; i += blockDim.x) {
        int at = blockIdx.x * HW + i;
        T dz = dy[at];
        if (relu && !(row.a * x[at] + row.c > T(0))) dz = T(0);  // relu'(0) = 0
        sum_dz_n += dz * (x[at] - row.mean) * row.r;
        sum_dz += dz;
    }
    sum_dz_n = block_sum(sum_dz_n);
    sum_dz = block_sum(sum_dz);
    if (threadIdx.x > 0) return;
    sums[blockIdx.x] = sum_dz_n;
    sums[gridDim.x + blockIdx.x] = sum_dz;
}

// Thread i owns means[:, i] of means (2, N G), the means of dn n and of dn over group i: it sums over the group's rows.
extern "C" __global__ void group_gradient_means(const T* __restrict__ sums, const T* __restrict__ weight,
                                                T* __restrict__ means, int groups, int C, int size, int HW)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= groups) return;
    T dn_n = T(0), dn = T(0), m = T(size) * T(HW);
    for (int row = i * size; row < (i + 1) * size; ++row) {
        T g = weight[row % C];
        dn_n += g * sums[row];
        dn += g * sums[groups * size + row];
    }
    means[i] = dn_n / m;
    means[groups + i] = dn / m;
}

// Thread c owns dg[c] and db[c]: it sums over the rows of channel c, one in each image.
extern "C" __global__ void group_gradient_totals(const T* __restrict__ sums, T* __restrict__ dg,
                                                 T* __restrict__ db, int N, int C)
{
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= C) return;
    T sum_dz_n = T(0), sum_dz = T(0);
    for (int row = c; row < N * C; row += C) {
        sum_dz_n += sums[row];
        sum_dz += sums[N * C + row];
    }
    dg[c] = sum_dz_n;
    db[c] = sum_dz;
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
    for (int i = blockIdx.y * blockDim.x + threadIdx.x; i < HW; i += gridDim.y * blockDim.x) {
        int at = blockIdx.x * HW + i;
        T dz = dy[at];
        if (relu && !(row.a * x[at] + row.c > T(0))) dz = T(0);  // relu'(0) = 0
        T n = (x[at] - row.mean) * row.r;
        dx[at] = row.r * (row.g * dz - mean_dn - n * mean_dn_n);
    }
}

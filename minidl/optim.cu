// Adam, AdamW and the clipping of gradients, over all parameters of a network in one launch each: a hundred
// small arrays would otherwise cost a hundred times the microseconds that a launch takes. The formulas are
// those of optim.py.
//
// p, g, ... are tables of addresses: parameter k begins at p[k], its gradient at g[k]. The numbers of all
// parameters are counted through, and those of parameter k are offsets[k] <= i < offsets[k + 1].

// Return the parameter that number i belongs to: the last k with offsets[k] <= i, found by halving.
__device__ int parameter_of(int i, const int* offsets, int parameters)
{
    int k = 0;
    for (int end = parameters; end - k > 1;) {
        int middle = (k + end) / 2;
        if (offsets[middle] <= i) k = middle;
        else end = middle;
    }
    return k;
}

// Thread i owns number i. m and v hold all parameters' running means in a row; `updated` are new arrays, since
// a graph may still hold the old ones. a1 = 1 - b1 and a2 = 1 - b2; c1 = 1 - b1^t and c2 = 1 - b2^t.
extern "C" __global__ void adam(
    T* __restrict__ m, T* __restrict__ v, T* const* updated, const T* const* p, const T* const* g,
    const int* __restrict__ offsets, int parameters, T a1, T a2, T c1, T c2, T lr, T eps,
    T decay_in_gradient, T decay_of_weight)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= offsets[parameters]) return;
    int k = parameter_of(i, offsets, parameters), j = i - offsets[k];
    if (!g[k]) return;  // without a gradient, neither the parameter nor its memory moves
    T weight = p[k][j], gradient = g[k][j] + decay_in_gradient * weight;
    T mean = m[i] + a1 * (gradient - m[i]);
    T square = v[i] + a2 * (gradient * gradient - v[i]);
    m[i] = mean;
    v[i] = square;
    updated[k][j] = weight - lr * decay_of_weight * weight - lr * (mean / c1) / (sqrt(square / c2) + eps);
}

// Thread i of the grid owns the numbers i, i + (threads of the grid), ... of all gradients; block b leaves the
// sum of their squares in partial[b]. The block has 256 threads.
extern "C" __global__ void sums_of_squares(
    T* __restrict__ partial, const T* const* g, const int* __restrict__ offsets, int parameters)
{
    T sum = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < offsets[parameters]; i += gridDim.x * blockDim.x) {
        int k = parameter_of(i, offsets, parameters);
        T number = g[k][i - offsets[k]];
        sum += number * number;
    }
    __shared__ T of_warp[8];
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_down_sync(0xffffffff, sum, offset);
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x > 0) return;
    for (int warp = 1; warp < 8; warp++) sum += of_warp[warp];
    partial[blockIdx.x] = sum;
}

// Thread i owns number i of all gradients, and scales it as much as it takes to make their joint length
// max_norm; not for a NaN, which should be seen. The length stays on the GPU: nothing waits for it.
extern "C" __global__ void scale_to_norm(
    const T* __restrict__ norm, T* const* scaled, const T* const* g, const int* __restrict__ offsets,
    int parameters, T max_norm)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= offsets[parameters]) return;
    int k = parameter_of(i, offsets, parameters), j = i - offsets[k];
    scaled[k][j] = *norm > max_norm ? g[k][j] * (max_norm / *norm) : g[k][j];
}

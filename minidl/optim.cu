// Adam, AdamW and gradient clipping, each in one launch over all parameters of a network. The formulas are those of
// optim.py; p, g, ... are tables of addresses (tables.py): parameter k starts at p[k], its gradient at g[k].

// Thread i owns element i. m and v hold the running means of all parameters, one after the other; `updated` are new
// arrays, since a graph may still hold the old ones. a1 = 1 - b1, a2 = 1 - b2. The numbers that change from step to
// step are in memory, where a CUDA graph finds their new values: lr, c1 = 1 - b1^t, c2 = 1 - b2^t.
extern "C" __global__ void adam(
    T* __restrict__ m, T* __restrict__ v, const T* __restrict__ numbers, T* const* updated, const T* const* p,
    const T* const* g, const int* __restrict__ offsets, int parameters, T a1, T a2, T eps, T decay_in_gradient,
    T decay_of_weight)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= offsets[parameters]) return;
    T lr = numbers[0], c1 = numbers[1], c2 = numbers[2];
    int k = array_of(i, offsets, parameters), j = i - offsets[k];
    if (!g[k]) return;  // without a gradient, neither the parameter nor its running means change
    T weight = p[k][j], gradient = g[k][j] + decay_in_gradient * weight;
    T mean = m[i] + a1 * (gradient - m[i]);
    T square = v[i] + a2 * (gradient * gradient - v[i]);
    m[i] = mean;
    v[i] = square;
    updated[k][j] = weight - lr * decay_of_weight * weight - lr * (mean / c1) / (sqrt(square / c2) + eps);
}

// Thread i of the grid owns the elements i, i + (threads of the grid), ... of all gradients; block b writes the
// sum of their squares to partial[b].
extern "C" __global__ void sums_of_squares(
    T* __restrict__ partial, const T* const* g, const int* __restrict__ offsets, int parameters)
{
    T sum = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < offsets[parameters]; i += gridDim.x * blockDim.x) {
        int k = array_of(i, offsets, parameters);
        T number = g[k][i - offsets[k]];
        sum += number * number;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// Thread i owns element i of all gradients. If their joint norm exceeds max_norm, it scales the element by
// max_norm / norm; a NaN is not hidden. The norm stays on the GPU, so that the CPU need not wait for it.
extern "C" __global__ void scale_to_norm(
    const T* __restrict__ norm, T* const* scaled, const T* const* g, const int* __restrict__ offsets,
    int parameters, T max_norm)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= offsets[parameters]) return;
    int k = array_of(i, offsets, parameters), j = i - offsets[k];
    scaled[k][j] = *norm > max_norm ? g[k][j] * (max_norm / *norm) : g[k][j];
}

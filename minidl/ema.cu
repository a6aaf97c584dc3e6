// The moving average of all weights and running statistics of a network in one launch (ema.py).

// Thread i owns element i of all arrays: a <- d a + (1 - d) p. The numbers are d and 1 - d, which change from step to
// step; average[k] and p[k] are the addresses of array k.
extern "C" __global__ void moving_average(
    const T* __restrict__ numbers, T* const* average, const T* const* p, const int* __restrict__ offsets, int arrays)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= offsets[arrays]) return;
    int k = array_of(i, offsets, arrays), j = i - offsets[k];
    average[k][j] = numbers[0] * average[k][j] + numbers[1] * p[k][j];
}

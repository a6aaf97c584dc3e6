// The product of two small matrices (linear.py).

// Thread i owns element i of y (n, m), in row i / m and column i % m: y = a b, a (n, K), b (K, m).
extern "C" __global__ void small_product(
    const T* __restrict__ a, const T* __restrict__ b, T* __restrict__ y, int n, int K, int m)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n * m) return;
    int row = i / m, column = i % m;
    T sum = T(0);
    for (int k = 0; k < K; k++) sum += a[row * K + k] * b[k * m + column];
    y[i] = sum;
}

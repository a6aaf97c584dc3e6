// Max-pooling, forward and backward, as derived in pool.py; conv/definition.py explains the notation.
// x, dx (N, C, H, W) and y, dy, winner (N, C, OH, OW) are N C contiguous planes. A block works on a tile of one
// plane (blockIdx.x): the 32 threads of a warp read and write neighbouring pixels of a row (coalesced access).

// Thread (row, column) of a plane owns the output pixel there.
extern "C" __global__ void max_pool2d_forward(
    const T* __restrict__ x, T* __restrict__ y, unsigned char* __restrict__ winner,
    int H, int W, int OH, int OW, int KH, int KW, int SH, int SW, int PH, int PW)
{
    int i = blockIdx.y * blockDim.y + threadIdx.y, j = blockIdx.z * blockDim.x + threadIdx.x;
    if (i >= OH || j >= OW) return;
    x += (long long)blockIdx.x * H * W;
    T largest = 0;
    int number = -1;  // of the winner: kh * KW + kw
    for (int kh = 0; kh < KH; kh++)
        for (int kw = 0; kw < KW; kw++) {
            int h = SH * i + kh - PH, w = SW * j + kw - PW;
            if (h < 0 || h >= H || w < 0 || w >= W) continue;  // padding is never the maximum
            T candidate = x[h * W + w];
            if (number < 0 || candidate > largest || candidate != candidate) {  // not >=; NaN propagates
                largest = candidate;
                number = kh * KW + kw;
            }
        }
    long long own = ((long long)blockIdx.x * OH + i) * OW + j;
    y[own] = largest;
    winner[own] = number;
}

// Thread (row, column) of a plane owns the input pixel there, and sums dy over the windows whose maximum it is.
// The last window that covers row h starts at or above it: SH i - PH <= h; earlier windows cover h while
// kh = h + PH - SH i < KH.
extern "C" __global__ void max_pool2d_backward(
    const T* __restrict__ dy, const unsigned char* __restrict__ winner, T* __restrict__ dx,
    int H, int W, int OH, int OW, int KH, int KW, int SH, int SW, int PH, int PW)
{
    int h = blockIdx.y * blockDim.y + threadIdx.y, w = blockIdx.z * blockDim.x + threadIdx.x;
    if (h >= H || w >= W) return;
    dy += (long long)blockIdx.x * OH * OW;
    winner += (long long)blockIdx.x * OH * OW;
    T sum = 0;
    for (int i = (h + PH) / SH; i >= 0 && h + PH - SH * i < KH; i--)
        for (int j = (w + PW) / SW; j >= 0 && w + PW - SW * j < KW; j--) {
            if (i >= OH || j >= OW) continue;
            int kh = h + PH - SH * i, kw = w + PW - SW * j;
            if (winner[i * OW + j] == kh * KW + kw) sum += dy[i * OW + j];
        }
    dx[((long long)blockIdx.x * H + h) * W + w] = sum;
}

struct alignas(2 * sizeof(T)) Pair {  // aligned, so that one instruction stores both numbers
    T left, right;
};

// The backward pass for windows that tile the image: 2x2, stride 2, no padding, H and W even. Every pixel is then in
// exactly one window. Thread i owns window i of all planes, number i of dy, and writes dx at its four pixels, as one
// pair in each of two rows: neighbouring threads write neighbouring pairs. It searches for nothing and divides once,
// by OW; `max_pool2d_backward` divides twice and searches for each pixel.
extern "C" __global__ void max_pool2d_backward_2x2(
    const T* __restrict__ dy, const unsigned char* __restrict__ winner, T* __restrict__ dx, int size, int OW)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    T gradient = dy[i];
    int number = winner[i];
    Pair* top = reinterpret_cast<Pair*>(dx) + 2 * (i / OW) * OW + i % OW;  // a row of dx has OW pairs
    top[0] = {number == 0 ? gradient : T(0), number == 1 ? gradient : T(0)};
    top[OW] = {number == 2 ? gradient : T(0), number == 3 ? gradient : T(0)};
}

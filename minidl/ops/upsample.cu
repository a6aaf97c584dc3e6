// Nearest-neighbour upsampling by s, as in upsample.py.
// x, dx (N, C, H, W) and y, dy (N, C, sH, sW) are N C contiguous planes. A block works on a tile of one plane
// (blockIdx.x): the 32 threads of a warp read and write neighbouring pixels of a row (coalesced access).

// Thread (row, column) of a plane owns the output pixel there.
extern "C" __global__ void upsample_forward(const T* __restrict__ x, T* __restrict__ y, int H, int W, int s)
{
    int i = blockIdx.y * blockDim.y + threadIdx.y, j = blockIdx.z * blockDim.x + threadIdx.x;
    if (i >= s * H || j >= s * W) return;
    x += (long long)blockIdx.x * H * W;
    y += (long long)blockIdx.x * H * W * s * s;
    y[i * s * W + j] = x[i / s * W + j / s];
}

// Thread (row, column) of a plane owns the input pixel there, and sums dy over its s x s square.
extern "C" __global__ void upsample_backward(const T* __restrict__ dy, T* __restrict__ dx, int H, int W, int s)
{
    int h = blockIdx.y * blockDim.y + threadIdx.y, w = blockIdx.z * blockDim.x + threadIdx.x;
    if (h >= H || w >= W) return;
    dy += (long long)blockIdx.x * H * W * s * s;
    T sum = 0;
    for (int i = s * h; i < s * h + s; i++)
        for (int j = s * w; j < s * w + s; j++) sum += dy[i * s * W + j];
    dx[((long long)blockIdx.x * H + h) * W + w] = sum;
}

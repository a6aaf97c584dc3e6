// 3x3 convolutions of stride 1 or 2, and input gradients at stride 1. definition.py explains the notation, strips.py the
// idea.

const int COLUMNS = 32, STRIPS = 4;  // threads of a block: along a row, and strips one below the other
const int THREADS = COLUMNS * STRIPS;
const int TILE = 8;   // output channels of a block
const int STAGE = 8;  // input channels of a stage times ROWS at stride 1: 9 TILE STAGE multiply-adds for each thread
const int RESIDENT = 16 / (int)sizeof(T);  // blocks whose registers a multiprocessor has to hold at a time

// A block owns a patch of y, COLUMNS x (STRIPS ROWS) pixels of one image (x axis of the grid: the patch, z: the image)
// for TILE output channels (y axis). Thread (column, strip) of the block owns a strip of ROWS pixels, one below the
// other, in all these channels: it keeps its TILE x ROWS sums in registers.
//
// The block works in stages of CHANNELS input channels. For each stage it has in shared memory
//
//     patch    (CHANNELS, HEIGHT WIDTH)   the pixels of x under the windows of its patch, and 0 outside the image: no
//                                         sum has to ask where the image ends
//     weights  (CHANNELS, 3, 3, TILE)     TILE neighbouring numbers for each weight of the window: wide reads
//
// Memory and arithmetic work at the same time: before a thread computes, it asks for its share of the next stage, which
// arrives in registers meanwhile. Then it stores its share into the other of two buffers, because slower threads still
// read the first. One barrier for each stage is enough: whoever stores into a buffer has passed the barrier after the
// last stage that read it.
//
// To compute, a thread reads the NEEDED pixels of a column into registers, ROWS + 2 at stride 1, and they serve 3 TILE
// ROWS multiply-adds: each weight meets ROWS pixels, each pixel up to 3 TILE weights. Every thread copies the same places
// of the patch in each channel, and computes once where these are in the image.
//
// With ADJOINT, x is the gradient of a convolution's output and y that of its input. This is a convolution with the
// window rotated by half a turn (weight 8 - tap) and w read as (C, OC, 3, 3), the channels exchanged.
template <int ROWS, int STRIDE, bool ADJOINT>
__device__ void strips(const T* x, const T* w, const T* b, T* y, int C, int H, int W, int OC, int OH, int OW,
                       int PH, int PW)
{
    const int HEIGHT = (STRIPS * ROWS - 1) * STRIDE + 3, WIDTH = (COLUMNS - 1) * STRIDE + 3;
    const int NEEDED = (ROWS - 1) * STRIDE + 3, CHANNELS = STAGE / (ROWS * STRIDE * STRIDE);
    const int PLACES = (HEIGHT * WIDTH + THREADS - 1) / THREADS;  // of the patch, that each thread copies
    __shared__ T patch[2][CHANNELS][PLACES * THREADS], weights[2][CHANNELS][9 * TILE];
    int thread = threadIdx.y * COLUMNS + threadIdx.x, image = blockIdx.z, first = blockIdx.y * TILE;
    int across = (OW + COLUMNS - 1) / COLUMNS;  // patches side by side
    int top = blockIdx.x / across * (STRIPS * ROWS), left = blockIdx.x % across * COLUMNS;

    int place[PLACES];  // in an image (H, W), or -1 outside of it
    for (int k = 0; k < PLACES; ++k) {
        int i = thread + k * THREADS, h = STRIDE * top + i / WIDTH - PH, column = STRIDE * left + i % WIDTH - PW;
        place[k] = 0 <= h && h < H && 0 <= column && column < W ? h * W + column : -1;
    }
    int tap = min(thread / TILE, 8), oc = min(first + thread % TILE, OC - 1);  // of the weight that this thread copies
    int plane = H * W, window = ADJOINT ? OC * 9 : 9;                          // from one input channel to the next
    x += image * C * plane;
    w += ADJOINT ? oc * 9 + 8 - tap : oc * C * 9 + tap;

    T next[CHANNELS][PLACES] = {};  // outside the image they stay 0
    T next_weight[CHANNELS] = {};
    auto read = [&](int start) {
        for (int c = 0; c < CHANNELS && start + c < C; ++c, x += plane, w += window) {
            for (int k = 0; k < PLACES; ++k)
                if (place[k] >= 0) next[c][k] = x[place[k]];
            next_weight[c] = *w;
        }
    };
    T sum[TILE][ROWS];
    for (int j = 0; j < TILE; ++j)
        for (int r = 0; r < ROWS; ++r) sum[j][r] = first + j < OC ? b[first + j] : T(0);
    read(0);
    for (int start = 0, buffer = 0; start < C; start += CHANNELS, buffer = 1 - buffer) {
        for (int c = 0; c < CHANNELS; ++c) {
            for (int k = 0; k < PLACES; ++k) patch[buffer][c][thread + k * THREADS] = next[c][k];
            if (thread < 9 * TILE) weights[buffer][c][thread] = next_weight[c];
        }
        __syncthreads();  // this buffer is complete, and no thread still needs the other
        read(start + CHANNELS);
#pragma unroll
        for (int c = 0; c < CHANNELS && start + c < C; ++c) {
            const T* own = patch[buffer][c] + threadIdx.y * ROWS * STRIDE * WIDTH + threadIdx.x * STRIDE;
#pragma unroll
            for (int kw = 0; kw < 3; ++kw) {
                T column[NEEDED];
                for (int r = 0; r < NEEDED; ++r) column[r] = own[r * WIDTH + kw];
                for (int kh = 0; kh < 3; ++kh)
                    for (int j = 0; j < TILE; ++j)
                        for (int r = 0; r < ROWS; ++r)
                            sum[j][r] += weights[buffer][c][(kh * 3 + kw) * TILE + j] * column[r * STRIDE + kh];
            }
        }
    }
    int oh = top + threadIdx.y * ROWS, ow = left + threadIdx.x;
    y += ((image * OC + first) * OH + oh) * OW + ow;
    if (ow >= OW) return;
    for (int j = 0; j < TILE && first + j < OC; ++j, y += OH * OW)
        for (int r = 0; r < ROWS; ++r)
            if (oh + r < OH) y[r * OW] = sum[j][r];
}

#define STRIPS_KERNEL(NAME, ROWS, STRIDE, ADJOINT)                                                           \
    extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) NAME(                                    \
        const T* __restrict__ x, const T* __restrict__ w, const T* __restrict__ b, T* __restrict__ y, int C, \
        int H, int W, int OC, int OH, int OW, int PH, int PW)                                                \
    {                                                                                                        \
        strips<ROWS, STRIDE, ADJOINT>(x, w, b, y, C, H, W, OC, OH, OW, PH, PW);                              \
    }
STRIPS_KERNEL(strips_forward_2, 2, 1, false)
STRIPS_KERNEL(strips_forward_4, 4, 1, false)
STRIPS_KERNEL(strips_forward_8, 8, 1, false)
STRIPS_KERNEL(strips_adjoint_2, 2, 1, true)
STRIPS_KERNEL(strips_adjoint_4, 4, 1, true)
STRIPS_KERNEL(strips_adjoint_8, 8, 1, true)
STRIPS_KERNEL(strips_halving, 2, 2, false)

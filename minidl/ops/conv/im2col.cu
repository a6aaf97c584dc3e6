// im2col and its adjoint col2im, as in definition.py, which explains the notation, but with the columns of all
// images side by side. Both arrays have
// NumPy's memory layout, the last axis contiguous:
//
//     x    (N, C, H, W)
//     col  (C, KH, KW, N, OH, OW)
//
// T is float or double. im2col.py launches the kernels.

// Thread i owns one window of one channel, number i of (C, N, OH, OW), so i = ((c N + n) OH + oh) OW + ow. It copies
// the window's KH KW pixels, or 0 for those outside the image. Neighbouring threads own neighbouring windows, so that
// the threads of a warp read and write neighbouring addresses: their memory accesses are coalesced.
extern "C" __global__ void im2col(const T* __restrict__ x, T* __restrict__ col, int threads, int N, int H, int W,
                                  int KH, int KW, int SH, int SW, int PH, int PW, int OH, int OW)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= threads) return;
    int windows = N * OH * OW, C = threads / windows;
    int ow = i % OW, oh = i / OW % OH, n = i / (OH * OW) % N, c = i / windows;
    const T* image = x + (n * C + c) * H * W;
    T* column = col + c * KH * KW * windows + i % windows;
    for (int kh = 0; kh < KH; ++kh)
        for (int kw = 0; kw < KW; ++kw) {
            int h = SH * oh + kh - PH, w = SW * ow + kw - PW;
            bool inside = 0 <= h && h < H && 0 <= w && w < W;
            *column = inside ? image[h * W + w] : T(0);
            column += windows;
        }
}

const int CHANNELS = 4;  // that a thread of col2im owns

// Thread (row, column) owns the pixels there in CHANNELS neighbouring channels of an image, share blockIdx.x of (N,
// shares). It sums all the copies that im2col made of a pixel: one for each window that covers it. The last window that
// covers row h starts at or above it, SH oh - PH <= h; earlier windows cover h while kh = h + PH - SH oh < KH. So there
// are two divisions for a pixel. Trying each of the KH KW weights would take two for each.
//
// A thread must know whether a window exists before it reads from it. With one channel, it would wait for memory once
// for each window. The windows are the same in all channels, so it reads several copies before it waits.
extern "C" __global__ void col2im(const T* __restrict__ col, T* __restrict__ x, int N, int C, int H, int W, int KH,
                                  int KW, int SH, int SW, int PH, int PW, int OH, int OW)
{
    int h = blockIdx.y * blockDim.y + threadIdx.y, w = blockIdx.z * blockDim.x + threadIdx.x;
    if (h >= H || w >= W) return;
    int shares = (C + CHANNELS - 1) / CHANNELS, n = blockIdx.x / shares, c = blockIdx.x % shares * CHANNELS;
    int last = min(CHANNELS, C - c) - 1;
    int windows = N * OH * OW, channel = KH * KW * windows;  // from a weight's or a channel's copies to the next's
    col += c * channel + n * OH * OW;
    T sum[CHANNELS] = {};
    for (int oh = (h + PH) / SH; oh >= 0 && h + PH - SH * oh < KH; --oh)
        for (int ow = (w + PW) / SW; ow >= 0 && w + PW - SW * ow < KW; --ow) {
            if (oh >= OH || ow >= OW) continue;
            int kh = h + PH - SH * oh, kw = w + PW - SW * ow;
            const T* copy = col + (kh * KW + kw) * windows + oh * OW + ow;
            T next[CHANNELS];  // a loop that adds what it reads would wait for each read
            #pragma unroll
            for (int k = 0; k < CHANNELS; ++k) next[k] = copy[min(k, last) * channel];
            #pragma unroll
            for (int k = 0; k < CHANNELS; ++k) sum[k] += next[k];
        }
    #pragma unroll
    for (int k = 0; k < CHANNELS; ++k)
        if (k <= last) x[((n * C + c + k) * H + h) * W + w] = sum[k];
}

// Copy x (N, C, HW) to y (C, N, HW). The blocks (n C + c, ...) share channel c of image n: thread i owns pixel i there,
// pixel i + threads, and so on.
extern "C" __global__ void side_by_side(const T* __restrict__ x, T* __restrict__ y, int N, int C, int HW)
{
    int n = blockIdx.x / C, c = blockIdx.x % C, threads = gridDim.y * blockDim.x;
    x += blockIdx.x * HW;
    y += (c * N + n) * HW;
    #pragma unroll 4
    for (int i = blockIdx.y * blockDim.x + threadIdx.x; i < HW; i += threads) y[i] = x[i];
}

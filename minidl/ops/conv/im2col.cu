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

// Thread (row, column) of a plane, a channel of an image (x axis of the grid), owns the pixel there. It sums all the
// copies that im2col made of this pixel: one for each window that covers it. The last window that covers row h starts
// at or above it, SH oh - PH <= h; earlier windows cover h while kh = h + PH - SH oh < KH. So there are two divisions
// for a pixel. Trying each of the KH KW weights would take two for each.
extern "C" __global__ void col2im(const T* __restrict__ col, T* __restrict__ x, int N, int C, int H, int W, int KH,
                                  int KW, int SH, int SW, int PH, int PW, int OH, int OW)
{
    int h = blockIdx.y * blockDim.y + threadIdx.y, w = blockIdx.z * blockDim.x + threadIdx.x;
    if (h >= H || w >= W) return;
    int c = blockIdx.x % C, n = blockIdx.x / C, weight = N * OH * OW;  // from a weight's copies to the next weight's
    col += c * KH * KW * weight + n * OH * OW;
    T sum = T(0);
    for (int oh = (h + PH) / SH; oh >= 0 && h + PH - SH * oh < KH; --oh)
        for (int ow = (w + PW) / SW; ow >= 0 && w + PW - SW * ow < KW; --ow) {
            if (oh >= OH || ow >= OW) continue;
            int kh = h + PH - SH * oh, kw = w + PW - SW * ow;
            sum += col[(kh * KW + kw) * weight + oh * OW + ow];
        }
    x[(blockIdx.x * H + h) * W + w] = sum;
}

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

// Thread i owns one pixel, number i of x (N, C, H, W): it sums all the copies that im2col made of this pixel. The
// window at row oh has the pixel under its weight kh if SH oh + kh - PH = h, hence the division by SH.
extern "C" __global__ void col2im(const T* __restrict__ col, T* __restrict__ x, int threads, int N, int H, int W,
                                  int KH, int KW, int SH, int SW, int PH, int PW, int OH, int OW)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= threads) return;
    int C = threads / (N * H * W), w = i % W, h = i / W % H, c = i / (H * W) % C, n = i / (C * H * W);
    const T* copies = col + (c * KH * KW * N + n) * OH * OW;
    T sum = T(0);
    for (int kh = 0; kh < KH; ++kh)
        for (int kw = 0; kw < KW; ++kw) {
            int row = h + PH - kh, column = w + PW - kw, oh = row / SH, ow = column / SW;
            bool exists = row >= 0 && column >= 0 && row % SH == 0 && column % SW == 0 && oh < OH && ow < OW;
            if (exists) sum += copies[((kh * KW + kw) * N * OH + oh) * OW + ow];
        }
    x[i] = sum;
}

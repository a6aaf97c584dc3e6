// Convolution without `col`: its three passes as matrix products whose operand col is read from the image on the
// fly (an implicit GEMM). definition.py explains the notation, implicit_gemm.py the idea.

const int CHUNK = 64;  // weights of each output channel in shared memory at a time

// Return the index in x (H, W) of the pixel under weight (kh, kw) of the window (oh, ow), or -1 if it is outside.
//
// With ADJOINT the roles are exchanged: x is the gradient of a convolution's output and (oh, ow) a pixel of its
// input. The result is the window that has this pixel under its weight (kh, kw), or -1 if there is none.
template <bool ADJOINT>
__device__ int place_under(int H, int W, int oh, int ow, int kh, int kw, int SH, int SW, int PH, int PW)
{
    int h = ADJOINT ? oh + PH - kh : SH * oh + kh - PH;
    int w = ADJOINT ? ow + PW - kw : SW * ow + kw - PW;
    if (h < 0 || w < 0) return -1;
    if (ADJOINT) {
        if (h % SH != 0 || w % SW != 0) return -1;
        h /= SH;
        w /= SW;
    }
    return h < H && w < W ? h * W + w : -1;
}

// A block owns TILE output channels (y axis of the grid) of as many neighbouring pixels as it has threads
// (x axis) of one image (z axis). Each thread owns one pixel: it keeps the TILE sums of this pixel in registers,
// reads the pixel's column of col one number at a time, and multiplies each number by TILE weights, which the
// block has copied into shared memory for all its threads, CHUNK rows at a time.
//
// The column is read in the order (KH, KW, C), K = KH KW C numbers, so that the pixel under a weight, number `tap`
// of the window's KH KW, is computed once for all channels. The channel starts at C, one past the last, so that
// the first iteration moves to the window's first weight just as later iterations move to the next one.
// w is (OC, C, KH, KW); for ADJOINT it is (C, OC, KH, KW), the channels exchanged.
template <int TILE, bool ADJOINT>
__device__ void implicit_gemm(const T* x, const T* w, const T* b, T* y, int C, int H, int W, int OC, int OH, int OW,
                              int KH, int KW, int SH, int SW, int PH, int PW)
{
    __shared__ T weights[CHUNK][TILE];
    int pixel = blockIdx.x * blockDim.x + threadIdx.x, oh = pixel / OW, ow = pixel % OW;
    int first = blockIdx.y * TILE, area = KH * KW, K = area * C, channel = C, tap = -1, place = -1;
    x += blockIdx.z * C * H * W;
    y += (blockIdx.z * OC + first) * OH * OW;

    T sum[TILE];
    for (int j = 0; j < TILE; ++j) sum[j] = first + j < OC ? b[first + j] : T(0);
    for (int start = 0; start < K; start += CHUNK) {
        __syncthreads();  // no thread still needs the previous chunk
        for (int i = threadIdx.x; i < CHUNK * TILE; i += blockDim.x) {
            int k = start + i / TILE, c = k % C, oc = first + i % TILE;
            int from = (ADJOINT ? c * OC + oc : oc * C + c) * area + k / C;
            weights[i / TILE][i % TILE] = k < K && oc < OC ? w[from] : T(0);
        }
        __syncthreads();  // the chunk is complete
        for (int k = 0; k < CHUNK && start + k < K; ++k, ++channel) {
            if (channel == C) {  // move to the next weight of the window, in its first channel
                channel = 0;
                ++tap;
                place = place_under<ADJOINT>(H, W, oh, ow, tap / KW, tap % KW, SH, SW, PH, PW);
            }
            if (ADJOINT && place < 0) continue;  // at stride 2, half of the rows: whole warps skip their products
            T value = place < 0 ? T(0) : x[channel * H * W + place];
            for (int j = 0; j < TILE; ++j) sum[j] += weights[k][j] * value;
        }
    }
    if (pixel >= OH * OW) return;
    for (int j = 0; j < TILE; ++j)
        if (first + j < OC) y[j * OH * OW + pixel] = sum[j];
}

#define IMPLICIT_GEMM(NAME, TILE, ADJOINT)                                                                   \
    extern "C" __global__ void NAME(                                                                         \
        const T* __restrict__ x, const T* __restrict__ w, const T* __restrict__ b, T* __restrict__ y, int C, \
        int H, int W, int OC, int OH, int OW, int KH, int KW, int SH, int SW, int PH, int PW)                \
    {                                                                                                        \
        implicit_gemm<TILE, ADJOINT>(x, w, b, y, C, H, W, OC, OH, OW, KH, KW, SH, SW, PH, PW);               \
    }
IMPLICIT_GEMM(implicit_gemm_forward_8, 8, false)
IMPLICIT_GEMM(implicit_gemm_forward_16, 16, false)
IMPLICIT_GEMM(implicit_gemm_forward_32, 32, false)
IMPLICIT_GEMM(implicit_gemm_adjoint_8, 8, true)
IMPLICIT_GEMM(implicit_gemm_adjoint_16, 16, true)
IMPLICIT_GEMM(implicit_gemm_adjoint_32, 32, true)

const int SIDE = 8;  // a tile of dw has SIDE output and SIDE input channels

// dw[oc, c] under one weight (kh, kw) of the window is the sum over all pixels of dy[oc] x[c], x at the pixel under this
// weight. A block owns one (kh, kw) and SIDE input channels (x axis of the grid), SIDE output channels (y axis), and one
// piece of the N OH OW pixels (z axis), so that layers with few weights also occupy a large GPU; the pieces are summed
// afterwards. Each thread takes every blockDim-th pixel of the piece, computes its place in x once for all channels,
// loads SIDE numbers of dy and SIDE of x, and adds their SIDE x SIDE products to sums in registers. At the end each
// warp sums over its threads by shuffles, and the first SIDE x SIDE threads over the warps. Channels that do not exist
// are read as the last one, and not stored. part is (pieces, OC, C, KH, KW).
extern "C" __global__ void implicit_gemm_weight_gradient(
    const T* __restrict__ x, const T* __restrict__ dy, T* __restrict__ part, int N, int C, int H, int W, int OC,
    int OH, int OW, int KH, int KW, int SH, int SW, int PH, int PW)
{
    __shared__ T sums_of_warps[SIDE * SIDE][32];
    int area = KH * KW, tap = blockIdx.x % area, kh = tap / KW, kw = tap % KW;
    int first_c = blockIdx.x / area * SIDE, first_oc = blockIdx.y * SIDE, pixels = N * OH * OW;
    int piece = (pixels + gridDim.z - 1) / gridDim.z, end = min(pixels, (int)(blockIdx.z + 1) * piece);

    T sum[SIDE][SIDE] = {};
    for (int p = blockIdx.z * piece + threadIdx.x; p < end; p += blockDim.x) {
        int pixel = p % (OH * OW), n = p / (OH * OW);
        int place = place_under<false>(H, W, pixel / OW, pixel % OW, kh, kw, SH, SW, PH, PW);
        if (place < 0) continue;
        T d[SIDE];
        for (int j = 0; j < SIDE; ++j) d[j] = dy[(n * OC + min(first_oc + j, OC - 1)) * OH * OW + pixel];
        for (int i = 0; i < SIDE; ++i) {
            T value = x[(n * C + min(first_c + i, C - 1)) * H * W + place];
            for (int j = 0; j < SIDE; ++j) sum[i][j] += d[j] * value;
        }
    }

    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int i = 0; i < SIDE; ++i)
        for (int j = 0; j < SIDE; ++j) {
            T of_warp = warp_sum(sum[i][j]);
            if (lane == 0) sums_of_warps[i * SIDE + j][warp] = of_warp;
        }
    __syncthreads();
    int c = first_c + threadIdx.x / SIDE, oc = first_oc + threadIdx.x % SIDE;
    if (threadIdx.x >= SIDE * SIDE || c >= C || oc >= OC) return;
    T total = T(0);
    for (int other = 0; other < blockDim.x / 32; ++other) total += sums_of_warps[threadIdx.x][other];
    part[((blockIdx.z * OC + oc) * C + c) * area + tap] = total;
}

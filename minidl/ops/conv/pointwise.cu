// 1x1 convolutions of stride 1: their three passes. definition.py explains the notation, pointwise.py the idea.

const int THREADS = 128;
const int PIXELS = 2;    // of a thread
const int CHANNELS = 8;  // input channels that a thread reads at a time

// A block owns TILE output channels (y axis of the grid) of PIXELS THREADS neighbouring pixels (x axis) of one image
// (z axis). Thread i owns the pixels i and i + THREADS of these, so that neighbours read neighbours: it keeps their sums
// in TILE channels in registers. For CHANNELS input channels at a time it reads all its pixels before it multiplies one
// of them, so that many reads are on their way at once, and the block copies the weights into shared memory.
// x is (N, C, size) and y (N, OC, size), w (OC, C); for ADJOINT w is (C, OC), the channels exchanged.
template <int TILE, bool ADJOINT>
__device__ void pointwise(const T* x, const T* w, const T* b, T* y, int C, int OC, int size)
{
    __shared__ T weights[CHANNELS][TILE];
    int start = blockIdx.x * THREADS * PIXELS + threadIdx.x, first = blockIdx.y * TILE;
    x += blockIdx.z * C * size;
    y += (blockIdx.z * OC + first) * size;

    T sum[TILE][PIXELS], pixel[CHANNELS][PIXELS];
    for (int j = 0; j < TILE; ++j)
        for (int p = 0; p < PIXELS; ++p) sum[j][p] = first + j < OC ? b[first + j] : T(0);
    for (int channel = 0; channel < C; channel += CHANNELS) {
        for (int c = 0; c < CHANNELS; ++c) {  // beyond the last channel or pixel: the last one again, which is not used
            const T* plane = x + min(channel + c, C - 1) * size;
            for (int p = 0; p < PIXELS; ++p) pixel[c][p] = plane[min(start + p * THREADS, size - 1)];
        }
        __syncthreads();  // no thread still needs the previous weights
#pragma unroll 1
        for (int i = threadIdx.x; i < CHANNELS * TILE; i += THREADS) {
            int c = min(channel + i / TILE, C - 1), oc = min(first + i % TILE, OC - 1);
            weights[i / TILE][i % TILE] = w[ADJOINT ? c * OC + oc : oc * C + c];
        }
        __syncthreads();  // the weights are complete
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c)
            if (channel + c < C)
                for (int j = 0; j < TILE; ++j)
                    for (int p = 0; p < PIXELS; ++p) sum[j][p] += weights[c][j] * pixel[c][p];
    }
    for (int j = 0; j < TILE && first + j < OC; ++j)
        for (int p = 0; p < PIXELS; ++p)
            if (start + p * THREADS < size) y[j * size + start + p * THREADS] = sum[j][p];
}

#define POINTWISE(NAME, TILE, ADJOINT)                                                                        \
    extern "C" __global__ void NAME(                                                                          \
        const T* __restrict__ x, const T* __restrict__ w, const T* __restrict__ b, T* __restrict__ y, int C,  \
        int OC, int size)                                                                                     \
    {                                                                                                         \
        pointwise<TILE, ADJOINT>(x, w, b, y, C, OC, size);                                                    \
    }
POINTWISE(pointwise_forward_8, 8, false)
POINTWISE(pointwise_forward_16, 16, false)
POINTWISE(pointwise_forward_32, 32, false)
POINTWISE(pointwise_adjoint_8, 8, true)
POINTWISE(pointwise_adjoint_16, 16, true)
POINTWISE(pointwise_adjoint_32, 32, true)

const int SIDE = 8;  // a tile of dw has SIDE output and SIDE input channels

// dw[oc, c] = sum over all pixels of dy[oc] x[c]. A block owns SIDE input channels (x axis of the grid), SIDE output
// channels (y axis) and one piece of one image (z axis). Each thread owns every THREADS-th pixel of the piece: it reads
// SIDE numbers of x and SIDE of dy there, and adds their products to SIDE x SIDE sums in registers.
//
// Then each warp adds the sums of its threads. In a round, two lanes divide their numbers: each gives one half of them
// to the other and adds what it receives to the half that it keeps. So the rounds have 32, 16, 8, 4 and 2 numbers, and
// lane i ends with the numbers 2 i and 2 i + 1, summed over the warp. Sums by warp_sum would need 5 shuffles for each of
// the 64 numbers, more work than the products of a short piece. part is (gridDim.z, OC, C).
extern "C" __global__ void pointwise_weight_gradient(
    const T* __restrict__ x, const T* __restrict__ dy, T* __restrict__ part, int C, int OC, int size, int pieces)
{
    __shared__ T of_warp[THREADS / 32][SIDE * SIDE];
    int first_c = blockIdx.x * SIDE, first_oc = blockIdx.y * SIDE, image = blockIdx.z / pieces;
    int length = (size + pieces - 1) / pieces, start = blockIdx.z % pieces * length, end = min(start + length, size);
    x += image * C * size;
    dy += image * OC * size;

    T sum[SIDE * SIDE] = {}, pixel[SIDE], gradient[SIDE];
    for (int p = start + threadIdx.x; p < end; p += THREADS) {  // beyond the last channel: the last one, not stored
        for (int i = 0; i < SIDE; ++i) pixel[i] = x[min(first_c + i, C - 1) * size + p];
        for (int j = 0; j < SIDE; ++j) gradient[j] = dy[min(first_oc + j, OC - 1) * size + p];
        for (int i = 0; i < SIDE * SIDE; ++i) sum[i] += gradient[i / SIDE] * pixel[i % SIDE];
    }

    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int half = 32; half >= 2; half /= 2) {
        bool upper = lane & half / 2;
        for (int i = 0; i < half; ++i) {
            T given = upper ? sum[i] : sum[i + half], kept = upper ? sum[i + half] : sum[i];
            sum[i] = kept + __shfl_xor_sync(0xffffffff, given, half / 2);
        }
    }
    of_warp[warp][2 * lane] = sum[0];
    of_warp[warp][2 * lane + 1] = sum[1];
    __syncthreads();  // the sums of all warps are stored
    int oc = first_oc + threadIdx.x / SIDE, c = first_c + threadIdx.x % SIDE;
    if (threadIdx.x >= SIDE * SIDE || oc >= OC || c >= C) return;
    T total = T(0);
    for (int other = 0; other < THREADS / 32; ++other) total += of_warp[other][threadIdx.x];
    part[(blockIdx.z * OC + oc) * C + c] = total;
}

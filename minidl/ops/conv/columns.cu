// The weight gradient of 3x3 convolutions of stride 1 or 2. definition.py explains the notation, columns.py the idea.

const int CHANNELS = 8, TILE = 8;  // input and output channels of a block
const int COLUMNS = 16, ROWS = 8;  // of dy in shared memory at a time; ROWS / STRIDE rows
const int THREADS = CHANNELS * COLUMNS;

// dw[oc, c] = sum over all pixels of dy[oc] times the 3x3 window of x[c] there. A block owns CHANNELS x TILE of
// these windows of weights (x axis of the grid: c, y axis: oc) and takes every gridDim.z-th *segment*: `segment` rows
// of COLUMNS pixels of one image. Thread (c, column) of the block owns one input channel and one column: it walks
// down the column with the window under its pixel in registers, reads STRIDE new rows of the window for each row of dy,
// and adds the products of the window's 9 pixels with dy in TILE output channels to its 9 TILE sums.
//
// The block copies DOWN rows of dy at a time into shared memory, (DOWN COLUMNS, TILE): TILE neighbouring numbers for
// each pixel. It also copies the rows of x that are new in these rows, (CHANNELS, DOWN STRIDE WIDTH), 0 outside the
// image. The threads of a warp own 8 channels of 4 columns, so they read only 4 different pixels of dy at a time. At the
// end, the sums of the columns are added in a fixed order. part (pieces, OC, C, 3, 3) has one piece for each block of
// the grid's z axis.
template <int STRIDE>
__device__ void columns(const T* x, const T* dy, T* part, int N, int C, int H, int W, int OC, int OH, int OW, int PH,
                        int PW, int segment)
{
    const int DOWN = ROWS / STRIDE;
    const int KEPT = 3 - STRIDE;                   // rows that a window shares with the next one
    const int WIDTH = (COLUMNS - 1) * STRIDE + 3;  // columns of x under COLUMNS windows
    // At stride 1, 4 unused numbers put 8 channels into different banks. At stride 2 they would not help.
    const int PLANE = DOWN * STRIDE * WIDTH + (STRIDE == 1 ? 4 : 0);
    __shared__ T pixels[CHANNELS][PLANE], gradients[DOWN * COLUMNS][TILE], of_warp[TILE * 9][CHANNELS][THREADS / 32];
    int own = threadIdx.x % CHANNELS, column = threadIdx.x / CHANNELS, warp = threadIdx.x / 32;
    int first_c = blockIdx.x * CHANNELS, first_oc = blockIdx.y * TILE, piece = blockIdx.z;
    int across = (OW + COLUMNS - 1) / COLUMNS, down = (OH + segment - 1) / segment;

    T sum[TILE][9] = {}, window[3][3];
    for (int s = piece; s < N * down * across; s += gridDim.z) {
        int n = s / (down * across), left = s % across * COLUMNS, top = s / across % down * segment;
        int end = min(top + segment, OH), channel = n * C + min(first_c + own, C - 1);
        for (int kh = 0; kh < KEPT; ++kh)  // the rows above the first new one
            for (int kw = 0; kw < 3; ++kw) {
                int h = STRIDE * top + kh - PH, w = STRIDE * (left + column) + kw - PW;
                window[kh + STRIDE][kw] = 0 <= h && h < H && 0 <= w && w < W ? x[(channel * H + h) * W + w] : T(0);
            }
        for (; top < end; top += DOWN) {
            __syncthreads();  // no thread still needs the previous rows
            for (int i = threadIdx.x; i < DOWN * STRIDE * WIDTH; i += THREADS) {
                int h = STRIDE * top + KEPT + i / WIDTH - PH, w = STRIDE * left + i % WIDTH - PW;
                bool inside = 0 <= h && h < H && 0 <= w && w < W;
                int place = inside ? h * W + w : 0;  // always read something: a branch would take longer
                for (int c = 0; c < CHANNELS; ++c) {
                    T pixel = x[(n * C + min(first_c + c, C - 1)) * H * W + place];
                    pixels[c][i] = inside ? pixel : T(0);
                }
            }
            int i = threadIdx.x % (DOWN * COLUMNS);  // STRIDE threads share the channels of a pixel
            int oh = top + i / COLUMNS, ow = left + i % COLUMNS;
            bool inside = oh < end && ow < OW;
            int place = inside ? oh * OW + ow : 0;
            for (int k = 0; k < TILE; k += STRIDE) {
                int j = k + threadIdx.x / (DOWN * COLUMNS) % STRIDE;
                T gradient = dy[(n * OC + min(first_oc + j, OC - 1)) * OH * OW + place];
                gradients[i][j] = inside ? gradient : T(0);
            }
            __syncthreads();  // the rows are complete
#pragma unroll
            for (int r = 0; r < DOWN; ++r) {
                for (int kw = 0; kw < 3; ++kw) {
                    for (int kh = 0; kh < KEPT; ++kh) window[kh][kw] = window[kh + STRIDE][kw];
                    for (int k = 0; k < STRIDE; ++k)
                        window[KEPT + k][kw] = pixels[own][(r * STRIDE + k) * WIDTH + column * STRIDE + kw];
                }
                for (int j = 0; j < TILE; ++j)
                    for (int tap = 0; tap < 9; ++tap)
                        sum[j][tap] += gradients[r * COLUMNS + column][j] * window[tap / 3][tap % 3];
            }
        }
    }

    for (int i = 0; i < TILE * 9; ++i) {  // the 4 columns of a warp, then its warps
        T total = sum[i / 9][i % 9];
        for (int offset = 16; offset >= CHANNELS; offset /= 2) total += __shfl_down_sync(0xffffffff, total, offset);
        if (threadIdx.x % 32 < CHANNELS) of_warp[i][own][warp] = total;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < TILE * CHANNELS * 9; i += THREADS) {
        int tap = i % 9, c = i / 9 % CHANNELS, j = i / (9 * CHANNELS);
        T total = T(0);
        for (int other = 0; other < THREADS / 32; ++other) total += of_warp[j * 9 + tap][c][other];
        if (first_oc + j < OC && first_c + c < C)
            part[((piece * OC + first_oc + j) * C + first_c + c) * 9 + tap] = total;
    }
}

#define COLUMNS_KERNEL(NAME, STRIDE)                                                                                 \
    extern "C" __global__ void NAME(                                                                                 \
        const T* __restrict__ x, const T* __restrict__ dy, T* __restrict__ part, int N, int C, int H, int W, int OC, \
        int OH, int OW, int PH, int PW, int segment)                                                                 \
    {                                                                                                                \
        columns<STRIDE>(x, dy, part, N, C, H, W, OC, OH, OW, PH, PW, segment);                                       \
    }
COLUMNS_KERNEL(columns_weight_gradient_1, 1)
COLUMNS_KERNEL(columns_weight_gradient_2, 2)

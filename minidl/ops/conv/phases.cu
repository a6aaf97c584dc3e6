// The adjoint of a 3x3 convolution of stride 2. definition.py explains the notation, phases.py the idea.

const int COLUMNS = 32, STRIPS = 4;        // threads of a block: along a row, and strips one below the other
const int THREADS = COLUMNS * STRIPS;
const int ROWS = 2, TILE = 8;              // squares of a strip, and output channels of a block
const int CHANNELS = 32 / (int)sizeof(T);  // input channels in shared memory at a time
const int HEIGHT = STRIPS * ROWS + 1, WIDTH = COLUMNS + 1;    // of the pixels of x that a block needs
const int PLACES = (HEIGHT * WIDTH + THREADS - 1) / THREADS;  // of them, that each thread copies

// A *square* is 2x2 pixels of y, and depends on 2x2 pixels of x. A block owns COLUMNS x (STRIPS ROWS) squares of one
// image (x axis of the grid: the squares, z: the image) for TILE output channels (y axis). Thread (column, strip) of the
// block owns ROWS squares, one below the other, in all these channels: it keeps 4 TILE ROWS sums in registers.
//
// For CHANNELS input channels at a time, the block copies into shared memory the pixels of x that its squares need, with
// 0 outside the image, and for each weight of the window TILE neighbouring numbers. Then a thread reads 2 (ROWS + 1)
// pixels into registers, and they serve 9 TILE ROWS multiply-adds.
//
// Row s of the squares has the rows 2 s - PH and 2 s - PH + 1 of y, and needs the rows s - PH and s - PH + 1 of x. The
// columns are alike. w is (C, OC, 3, 3).
extern "C" __global__ void phases_adjoint(
    const T* __restrict__ x, const T* __restrict__ w, const T* __restrict__ b, T* __restrict__ y, int C, int H, int W,
    int OC, int OH, int OW, int PH, int PW)
{
    __shared__ T patch[CHANNELS][PLACES * THREADS], weights[CHANNELS][9][TILE];
    int thread = threadIdx.y * COLUMNS + threadIdx.x, image = blockIdx.z, first = blockIdx.y * TILE;
    int across = ((OW + PW + 1) / 2 + COLUMNS - 1) / COLUMNS;  // patches side by side
    int top = blockIdx.x / across * (STRIPS * ROWS), left = blockIdx.x % across * COLUMNS;

    int place[PLACES];  // in an image (H, W)
    bool inside[PLACES];
    for (int k = 0; k < PLACES; ++k) {
        int i = thread + k * THREADS, h = top + i / WIDTH - PH, column = left + i % WIDTH - PW;
        inside[k] = 0 <= h && h < H && 0 <= column && column < W;
        place[k] = inside[k] ? h * W + column : 0;
    }
    T sum[TILE][ROWS][2][2];
    for (int j = 0; j < TILE; ++j)
        for (int i = 0; i < 4 * ROWS; ++i) sum[j][i / 4][i / 2 % 2][i % 2] = first + j < OC ? b[first + j] : T(0);
    for (int start = 0; start < C; start += CHANNELS) {
        __syncthreads();  // no thread still needs the previous channels
        for (int c = 0; c < CHANNELS; ++c) {  // beyond the last channel: the last one again, which is not used
            int plane = (image * C + min(start + c, C - 1)) * H * W;
            for (int k = 0; k < PLACES; ++k) {
                T pixel = x[plane + place[k]];  // always read something: a branch would take longer
                patch[c][thread + k * THREADS] = inside[k] ? pixel : T(0);
            }
        }
        for (int i = thread; i < CHANNELS * TILE; i += THREADS) {  // the window of one pair of channels
            int c = i / TILE, j = i % TILE;
            const T* window = w + (min(start + c, C - 1) * OC + min(first + j, OC - 1)) * 9;
            for (int tap = 0; tap < 9; ++tap) weights[c][tap][j] = window[tap];
        }
        __syncthreads();  // patch and weights are complete
#pragma unroll 1
        for (int c = 0; c < CHANNELS && start + c < C; ++c) {
            T pixel[ROWS + 1][2];
            for (int i = 0; i < 2 * (ROWS + 1); ++i)
                pixel[i / 2][i % 2] = patch[c][(threadIdx.y * ROWS + i / 2) * WIDTH + threadIdx.x + i % 2];
#pragma unroll
            for (int tap = 0; tap < 9; ++tap) {
                int kh = tap / 3, kw = tap % 3;  // 1 serves the first row of a square, 0 and 2 the second
                for (int j = 0; j < TILE; ++j)
                    for (int r = 0; r < ROWS; ++r)
                        sum[j][r][kh != 1][kw != 1] += weights[c][tap][j] * pixel[r + (kh == 0)][kw == 0];
            }
        }
    }
    y += (image * OC + first) * OH * OW;
    for (int j = 0; j < TILE && first + j < OC; ++j, y += OH * OW)
        for (int i = 0; i < 4 * ROWS; ++i) {
            int oh = 2 * (top + (int)threadIdx.y * ROWS) - PH + i / 2, ow = 2 * (left + (int)threadIdx.x) - PW + i % 2;
            if (0 <= oh && oh < OH && 0 <= ow && ow < OW) y[oh * OW + ow] = sum[j][i / 4][i / 2 % 2][i % 2];
        }
}

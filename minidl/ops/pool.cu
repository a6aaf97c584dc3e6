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

// The rest of this file is for windows that tile the image: 2x2, stride 2, no padding, H even and W a multiple of 4.
// Every pixel is then in exactly one window. Two neighbouring windows cover four pixels in each of two rows, which one
// instruction reads or writes. Thread i owns windows 2 i and 2 i + 1 of all planes. Neither kernel tests for a border,
// and a thread divides once, by the number of fours in a row.
//
//     x, dx  | a.first  a.second | a.third  a.fourth |      y, dy, winner  | left | right |
//            | b.first  b.second | b.third  b.fourth |
struct alignas(2 * sizeof(T)) Pair {
    T left, right;
};

struct alignas(2) Numbers {
    unsigned char left, right;
};

struct alignas(16) Four {  // at most 16 bytes an instruction: doubles take two
    T first, second, third, fourth;
};

// The place of the upper four pixels of thread i in x or dx; the lower are one row, `fours`, further.
__device__ int upper(int i, int fours)
{
    return 2 * (i / fours) * fours + i % fours;
}

// Make `candidate` the largest pixel of a window if it is larger, or NaN.
__device__ void compare(T candidate, int index, T& largest, unsigned char& number)
{
    if (!(candidate > largest || candidate != candidate)) return;  // not >=
    largest = candidate;
    number = index;
}

extern "C" __global__ void max_pool2d_forward_2x2(
    const T* __restrict__ x, T* __restrict__ y, unsigned char* __restrict__ winner, int threads, int fours)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= threads) return;
    const Four* rows = reinterpret_cast<const Four*>(x) + upper(i, fours);
    Four a = rows[0], b = rows[fours];
    Pair largest = {a.first, a.third};
    Numbers number = {0, 0};
    compare(a.second, 1, largest.left, number.left);
    compare(b.first, 2, largest.left, number.left);
    compare(b.second, 3, largest.left, number.left);
    compare(a.fourth, 1, largest.right, number.right);
    compare(b.third, 2, largest.right, number.right);
    compare(b.fourth, 3, largest.right, number.right);
    reinterpret_cast<Pair*>(y)[i] = largest;
    reinterpret_cast<Numbers*>(winner)[i] = number;
}

extern "C" __global__ void max_pool2d_backward_2x2(
    const T* __restrict__ dy, const unsigned char* __restrict__ winner, T* __restrict__ dx, int threads, int fours)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= threads) return;
    Pair g = reinterpret_cast<const Pair*>(dy)[i];
    Numbers number = reinterpret_cast<const Numbers*>(winner)[i];
    Four* rows = reinterpret_cast<Four*>(dx) + upper(i, fours);
    rows[0] = {number.left == 0 ? g.left : T(0), number.left == 1 ? g.left : T(0),
               number.right == 0 ? g.right : T(0), number.right == 1 ? g.right : T(0)};
    rows[fours] = {number.left == 2 ? g.left : T(0), number.left == 3 ? g.left : T(0),
                   number.right == 2 ? g.right : T(0), number.right == 3 ? g.right : T(0)};
}

// Changes of images stored as bytes; images.py has the formulas. Images are (N, C, H, W), those to sample from
// (M, H, W, C). Neighbouring threads own neighbouring pixels of a row, so that a warp reads and writes neighbouring
// addresses (coalesced access), except where an image is turned.

using Byte = unsigned char;

// The pixel that i stands for in a row of `size` pixels, which continues as its mirror image on both sides.
__device__ int mirrored(int i, int size)
{
    i %= 2 * size;
    if (i < 0) i += 2 * size;
    return min(i, 2 * size - 1 - i);
}

// Thread i owns one pixel, number i of (N, H, W), in all C channels: it computes where the pixel comes from, and
// interpolates between the four pixels around that place.
extern "C" __global__ void affine_sample(const T* __restrict__ maps, const int* __restrict__ which,
                                         const Byte* __restrict__ images, Byte* __restrict__ y, int threads, int C,
                                         int H, int W)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= threads) return;
    int u = i % W, v = i / W % H, n = i / (H * W);
    const T* m = maps + 6 * n;
    T across = m[0] * T(u) + m[1] * T(v) + m[2], down = m[3] * T(u) + m[4] * T(v) + m[5];
    T left = floor(across), top = floor(down);
    int w0 = mirrored((int)left, W), w1 = mirrored((int)left + 1, W);
    int h0 = mirrored((int)top, H), h1 = mirrored((int)top + 1, H);
    const Byte* image = images + (long long)which[n] * H * W * C;
    for (int c = 0; c < C; ++c) {
        T p00 = T(image[(h0 * W + w0) * C + c]), p01 = T(image[(h0 * W + w1) * C + c]);
        T p10 = T(image[(h1 * W + w0) * C + c]), p11 = T(image[(h1 * W + w1) * C + c]);
        T upper = p00 + (p01 - p00) * (across - left), lower = p10 + (p11 - p10) * (across - left);
        y[((n * C + c) * H + v) * W + u] = (Byte)(upper + (lower - upper) * (down - top));
    }
}

// Thread i owns one pixel, number i of (N, pixels), in its three channels.
extern "C" __global__ void recolour(const T* __restrict__ matrices, const T* __restrict__ offsets,
                                    const Byte* __restrict__ tables, const Byte* __restrict__ x,
                                    Byte* __restrict__ y, int threads, int pixels)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= threads) return;
    int n = i / pixels, first = 2 * n * pixels + i;  // of channel 0; the others follow `pixels` later
    T red = T(x[first]), green = T(x[first + pixels]), blue = T(x[first + 2 * pixels]);
    for (int c = 0; c < 3; ++c) {
        const T* row = matrices + 9 * n + 3 * c;
        T level = row[0] * red + row[1] * green + row[2] * blue + offsets[3 * n + c];
        y[first + c * pixels] = tables[256 * n + (int)min(max(level, T(0)), T(255))];
    }
}

// Thread i owns pixel i of (N, C, H, W): it sums the pixels of its box along a row (down = 0) or a column
// (down = 1). The first and the last pixel of a line continue it on either side. The sum is at most 255.5 * 2^24 < 2^32.
extern "C" __global__ void box_blur(const T* __restrict__ boxes, const Byte* __restrict__ x, Byte* __restrict__ y,
                                    int threads, int C, int H, int W, int down)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= threads) return;
    const T* box = boxes + 3 * (i / (C * H * W));
    int place = down ? i / W % H : i % W, last = down ? H - 1 : W - 1, step = down ? W : 1, radius = (int)box[0];
    unsigned inner = (unsigned)box[1], outer = (unsigned)box[2], sum = 1u << 23;
    const Byte* line = x + i - place * step;
    for (int k = -radius - 1; k <= radius + 1; ++k)
        sum += (abs(k) > radius ? outer : inner) * line[min(max(place + k, 0), last) * step];
    y[i] = (Byte)(sum >> 24);
}

// Thread i owns one pixel, number i of (N, H, W), in the three channels of the image and in the mask.
extern "C" __global__ void round_window(const T* __restrict__ windows, const Byte* __restrict__ x,
                                        const Byte* __restrict__ mask, Byte* __restrict__ y, Byte* __restrict__ cut,
                                        int threads, int H, int W, T edge)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= threads) return;
    int u = i % W, v = i / W % H, n = i / (H * W), first = 2 * n * H * W + i;
    const T* window = windows + 5 * n;
    T down = ((T(v) + T(0.5)) / T(H) - T(0.5) - window[0]) / window[2];
    T across = ((T(u) + T(0.5)) / T(W) - T(0.5) - window[1]) / window[3];
    T inside = (T(1) - sqrt(down * down + across * across)) * min((window[2] + window[3]) / T(2), T(1));
    T light = min(max(inside / edge + T(0.5), T(0)), T(1));
    for (int c = 0; c < 3; ++c) {
        int at = first + c * H * W;
        y[at] = (Byte)(light * T(x[at]) + (T(1) - light) * window[4] + T(0.5));
    }
    cut[i] = inside > T(0) ? mask[i] : 0;
}

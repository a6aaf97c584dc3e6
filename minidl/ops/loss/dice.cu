// Soft Dice loss on logits x and a target t: the formulas are derived in dice.py. Its sums have two stages, as
// in cross_entropy.cu.

// Block (b, n) owns a share of the pixels of image n: its threads take the pixels i, i + (threads of the image), ...
// It writes the sums of p t and of p + t to partial, which is (N, blocks of an image, 2).
extern "C" __global__ void soft_dice_sums(
    const T* __restrict__ x, const T* __restrict__ t, T* __restrict__ partial, int pixels)
{
    x += (long long)blockIdx.y * pixels;
    t += (long long)blockIdx.y * pixels;
    T intersection = 0, total = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < pixels; i += gridDim.x * blockDim.x) {
        T p = sigmoid(x[i]);
        intersection += p * t[i];
        total += p + t[i];
    }
    intersection = block_sum(intersection);
    total = block_sum(total);
    if (threadIdx.x > 0) return;
    partial += 2 * (blockIdx.y * gridDim.x + blockIdx.x);
    partial[0] = intersection;
    partial[1] = total;
}

// Thread n of the only block owns the images n, n + (threads of the block), ...: their dice[n] and total[n].
extern "C" __global__ void soft_dice(
    const T* __restrict__ partial, T* __restrict__ dice, T* __restrict__ total, T* __restrict__ loss,
    int images, int blocks, T smooth)
{
    T sum = 0;
    for (int n = threadIdx.x; n < images; n += blockDim.x) {
        T intersection = 0, all = 0;
        for (int b = 0; b < blocks; b++) {
            intersection += partial[2 * (n * blocks + b)];
            all += partial[2 * (n * blocks + b) + 1];
        }
        total[n] = all + smooth;
        dice[n] = (T(2) * intersection + smooth) / total[n];
        sum += dice[n];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) *loss = T(1) - sum / T(images);
}

// Thread i owns dx[i], a pixel of image n = i / pixels.
extern "C" __global__ void soft_dice_backward(
    const T* __restrict__ dy, const T* __restrict__ x, const T* __restrict__ t, const T* __restrict__ dice,
    const T* __restrict__ total, T* __restrict__ dx, int images, int pixels)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x, n = i / pixels;
    if (n >= images) return;
    T p = sigmoid(x[i]);
    dx[i] = (dice[n] - T(2) * t[i]) / total[n] * (*dy / T(images)) * p * (T(1) - p);
}

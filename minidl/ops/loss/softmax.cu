// Softmax cross-entropy on logits x (N, K) and a target t (N, K): the formulas are derived in softmax.py.
//
// A batch has few images and an image few classes, so the sum over all of them has one stage: a single block. log p
// is stored for the backward pass.

// Thread i of the only block owns the images i, i + (threads of the block), ...: their rows of log_p, and their
// share of the loss and of the total of t.
extern "C" __global__ void softmax_cross_entropy(
    const T* __restrict__ x, const T* __restrict__ t, T* __restrict__ log_p, T* __restrict__ total,
    T* __restrict__ loss, T gamma, int N, int K)
{
    T sum = 0, weight = 0;
    for (int n = threadIdx.x; n < N; n += blockDim.x) {
        T largest = x[n * K], exponentials = 0;
        for (int k = 1; k < K; k++) largest = max(largest, x[n * K + k]);
        for (int k = 0; k < K; k++) exponentials += exp(x[n * K + k] - largest);
        for (int k = 0; k < K; k++) {
            T l = x[n * K + k] - largest - log(exponentials);
            log_p[n * K + k] = l;
            sum -= t[n * K + k] * pow(-expm1(l), gamma) * l;
            weight += t[n * K + k];
        }
    }
    sum = block_sum(sum);
    weight = block_sum(weight);
    if (threadIdx.x > 0) return;
    *total = weight == T(0) ? T(1) : weight;  // without any class, the loss is 0 / 1
    *loss = sum / *total;
}

// Thread n owns dx[n, :], the gradient of image n. It stores a_k there first, because a_k must be summed over k.
extern "C" __global__ void softmax_cross_entropy_backward(
    const T* __restrict__ dy, const T* __restrict__ log_p, const T* __restrict__ t, const T* __restrict__ total,
    T* __restrict__ dx, T gamma, int N, int K)
{
    int n = blockIdx.x * blockDim.x + threadIdx.x;
    if (n >= N) return;
    T sum = 0;
    for (int k = 0; k < K; k++) {
        T l = log_p[n * K + k], p = exp(l), q = -expm1(l);
        T a = -t[n * K + k] * pow(q, gamma) * (T(1) - gamma * p * l / max(q, T(1e-30)));
        dx[n * K + k] = a;
        sum += a;
    }
    for (int k = 0; k < K; k++) dx[n * K + k] = (dx[n * K + k] - exp(log_p[n * K + k]) * sum) * (*dy / *total);
}

"""Typical mistakes in kernels, each as the replacement of some text of a `.cu` file.

The keys are the file, the function in it, and the case that detects the mistakes, as named in
`test_broken_kernels.py`. A mistake has a name, the correct text, which occurs once in the function, and the
wrong text.
"""

BROKEN = {
    ("common.cuh", "sigmoid", "SoftDiceLoss"): {
        "the absolute value forgotten": ("exp(-abs(x))", "exp(-x)"),
        "the float version of a function": ("exp(", "expf("),
    },
    ("common.cuh", "warp_sum", "BinaryCrossEntropyWithLogits, many numbers"): {
        "only half a warp summed": ("int offset = 16", "int offset = 8"),
        "only one round": ("offset /= 2", "offset = 0"),
    },
    ("common.cuh", "block_sum", "BinaryCrossEntropyWithLogits, many numbers"): {
        "no barrier": ("of_warp[warp] = value;\n    __syncthreads();", "of_warp[warp] = value;"),
        "only one warp": ("lane < warps ?", "lane < 1 ?"),
        "every lane stores its own sum": ("if (lane == 0) of_warp", "of_warp"),
        "too little shared memory": ("of_warp[32]", "of_warp[1]"),
        "nonexistent warps summed": ("lane < warps ? of_warp[lane] : T(0)", "of_warp[lane]"),
        "float instead of T": ("__shared__ T of_warp", "__shared__ float of_warp"),
    },
    ("common.cuh", "block_sum", "SoftDiceLoss, large images"): {
        "no barrier between two calls": (
            "    __syncthreads();  // all threads have read what an earlier call left in of_warp\n",
            "",
        ),
    },
    ("common.cuh", "array_of", "Adam"): {
        "the first element assigned to the previous array": ("offsets[middle] <= i", "offsets[middle] < i"),
        "the last array excluded": ("int end = arrays", "int end = arrays - 1"),
    },
    ("ops/conv/im2col.cu", "im2col", "Conv2d, by im2col"): {
        "one row beyond the bottom edge": ("h < H", "h <= H"),
        "the padding not filled": (
            "*column = inside ? image[h * W + w] : T(0);",
            "if (inside) *column = image[h * W + w];",
        ),
        "the last thread excluded": ("i >= threads", "i >= threads - 1"),
        "no bounds check": ("if (i >= threads) return;", ""),
        "images and channels exchanged": ("n = plane % N, c = plane / N", "n = plane % C, c = plane / C"),
    },
    ("ops/conv/im2col.cu", "im2col", "Conv2d, many channels, by im2col"): {
        "one column beyond the left edge": ("0 <= w", "-1 <= w"),
    },
    ("ops/conv/im2col.cu", "side_by_side", "Conv2d, many channels, by im2col"): {
        "images and channels exchanged": (
            "n = blockIdx.x / C, c = blockIdx.x % C",
            "n = blockIdx.x % N, c = blockIdx.x / N",
        ),
        "the order not changed": ("(c * N + n) * HW", "blockIdx.x * HW"),
        "only one pixel per thread": ("i += threads", "i += HW"),
        "only one block of each image": ("blockIdx.y * blockDim.x + threadIdx.x", "threadIdx.x"),
    },
    ("ops/conv/im2col.cu", "col2im", "Conv2d, by im2col"): {
        "= instead of +=": ("sum[k] += next[k]", "sum[k] = next[k]"),
        "only the last window": ("h + PH - SH * oh < KH; --oh", "h + PH - SH * oh < SH; --oh"),
        "one window too many": ("if (oh >= OH || ow >= OW) continue;", ""),
        "the padding forgotten": ("(h + PH) / SH", "h / SH"),
        "images and channels exchanged": (
            "n = blockIdx.x / shares, c = blockIdx.x % shares",
            "n = blockIdx.x % shares, c = blockIdx.x / shares",
        ),
        "only one row of tiles": ("blockIdx.y * blockDim.y + threadIdx.y", "threadIdx.y"),
        "no bounds check": ("if (h >= H || w >= W) return;", ""),
        "float instead of T": ("T sum[CHANNELS]", "float sum[CHANNELS]"),
    },
    ("ops/conv/im2col.cu", "col2im", "Conv2d, many channels, by im2col"): {
        "a channel that does not exist read": ("min(k, last) * channel", "k * channel"),
        "a channel that does not exist written": ("if (k <= last) x", "x"),
    },
    ("ops/conv/im2col.cu", "col2im", "ConvTranspose2d, by im2col"): {
        "the stride ignored": ("(w + PW) / SW", "w + PW"),
    },
    ("ops/conv/implicit_gemm.cu", "place_under", "Conv2d"): {
        "the padding added, not subtracted": ("SH * oh + kh - PH", "SH * oh + kh + PH"),
        "one row too many": ("return h < H", "return h <= H"),
        "the left padding wraps around": ("if (h < 0 || w < 0)", "if (h < 0)"),
        "rows between strides included": ("h % SH != 0 || ", ""),
    },
    ("ops/conv/implicit_gemm.cu", "implicit_gemm", "Conv2d, many channels"): {
        "no barrier before a chunk": ("__syncthreads();  // no thread still needs the previous chunk", ""),
        "no barrier after a chunk": ("__syncthreads();  // the chunk is complete", ""),
    },
    ("ops/conv/implicit_gemm.cu", "implicit_gemm", "Conv2d, stride 1"): {
        "= instead of +=": ("sum[j] += weights[k][j] * value", "sum[j] = weights[k][j] * value"),
    },
    ("ops/conv/implicit_gemm.cu", "implicit_gemm", "Conv2d"): {
        "the bias forgotten": ("b[first + j] : T(0)", "T(0) : T(0)"),
        "the channel not incremented": ("++k, ++channel", "++k"),
        "the last channel not stored": ("if (first + j < OC) y[", "if (first + j < OC - 1) y["),
        "pixels outside the image stored": ("if (pixel >= OH * OW) return;", ""),
        "float instead of T": ("T sum[TILE]", "float sum[TILE]"),
    },
    ("ops/conv/implicit_gemm.cu", "implicit_gemm", "ConvTranspose2d"): {
        "the channels not exchanged": ("ADJOINT ? c * OC + oc : oc * C + c", "oc * C + c"),
    },
    ("ops/conv/implicit_gemm.cu", "implicit_gemm_weight_gradient", "Conv2d, many channels"): {
        "= instead of +=": ("sum[i][j] += d[j] * value", "sum[i][j] = d[j] * value"),
        "no barrier": ("    __syncthreads();\n", ""),
        "the warps not summed": ("T of_warp = warp_sum(sum[i][j]);", "T of_warp = sum[i][j];"),
        "only one warp": ("other < blockDim.x / 32", "other < 1"),
        "the pieces overlap": ("p = blockIdx.z * piece + threadIdx.x", "p = threadIdx.x"),
        "the last piece's end missing": (
            "end = min(pixels, (int)(blockIdx.z + 1) * piece)",
            "end = (int)(blockIdx.z + 1) * piece",
        ),
        "pixels outside the image counted": ("if (place < 0) continue;", "if (place < 0) place = 0;"),
        "rows and columns of the window exchanged": (
            "kh = tap / KW, kw = tap % KW",
            "kh = tap % KW, kw = tap / KW",
        ),
        "a channel of x that does not exist": ("min(first_c + i, C - 1)", "(first_c + i)"),
        "a channel of dy that does not exist": ("min(first_oc + j, OC - 1)", "(first_oc + j)"),
        "channels that do not exist stored": (" || c >= C || oc >= OC", ""),
    },
    ("ops/conv/strips.cu", "strips", "Conv2d, 3x3"): {
        "no barrier before the next channels": (
            "__syncthreads();  // no thread still needs the previous channels",
            "",
        ),
        "no barrier after the copies": ("__syncthreads();  // patch and weights are complete", ""),
        "= instead of +=": ("sum[j][r] += weights", "sum[j][r] = weights"),
        "the bias forgotten": ("b[first + j] : T(0)", "T(0) : T(0)"),
        "the border wraps around": ("0 <= column && ", ""),
        "the border not zero": ("inside[k] ? pixel : T(0)", "pixel"),
        "the window not rotated": ("ADJOINT ? 8 - tap : tap", "tap"),
        "the channels not exchanged": ("ADJOINT ? k * OC + oc : oc * C + k", "oc * C + k"),
        "rows beyond the image stored": ("if (oh + r < OH) y", "y"),
        "float instead of T": ("T sum[TILE]", "float sum[TILE]"),
    },
    ("ops/conv/columns.cu", "columns_weight_gradient", "Conv2d, 3x3"): {
        "no barrier before the next rows": (
            "__syncthreads();  // no thread still needs the previous rows",
            "",
        ),
        "no barrier after the copies": ("__syncthreads();  // the rows are complete", ""),
        "no barrier before the last sum": ("    }\n    __syncthreads();\n    for", "    }\n    for"),
        "= instead of +=": ("sum[j][tap] += gradients", "sum[j][tap] = gradients"),
        "the first rows of a segment forgotten": (
            "w < W ? x[(channel * H + h) * W + w] : T(0)",
            "w < W ? T(0) : T(0)",
        ),
        "the segments overlap": ("oh < end && ow < OW", "oh < OH && ow < OW"),
        "only one warp": ("other < THREADS / 32", "other < 1"),
        "channels that do not exist stored": (" && first_c + c < C)", ")"),
        "float instead of T": ("T sum[TILE][9]", "float sum[TILE][9]"),
    },
    ("ops/conv/parts.cu", "add_parts", "Conv2d, 3x3"): {
        "only the first parts": ("p += rows", "p += P"),
        "parts added twice": ("p += rows", "p += rows - 1"),
        "= instead of +=": ("sum += parts", "sum = parts"),
        "only one row": ("other < rows", "other < 1"),
        "no barrier": ("    __syncthreads();  // the sums of all rows are stored\n", ""),
        "no bounds check": ("i < size ? P : 0", "P"),
        "the last number not stored": ("i >= size", "i >= size - 1"),
        "float instead of T": ("T sum", "float sum"),
    },
    ("ops/activation.cu", "relu_forward", "ReLU"): {
        "no bounds check": ("if (i < size) y", "y"),
        "the last thread excluded": ("i < size", "i < size - 1"),
    },
    ("ops/activation.cu", "relu_forward", "ReLU, two blocks"): {
        "only one block": ("blockIdx.x * blockDim.x + threadIdx.x", "threadIdx.x"),
    },
    ("ops/activation.cu", "relu_forward", "ReLU, NaN"): {
        "NaN hidden": ("x[i] <= T(0) ? T(0) : x[i]", "x[i] > T(0) ? x[i] : T(0)"),
    },
    ("ops/activation.cu", "relu_backward", "ReLU"): {
        "no bounds check": ("if (i < size) dx", "dx"),
        "dy forgotten": ("dy[i] * T(y[i] > T(0))", "T(y[i] > T(0))"),
        "a slope of 1 at 0": ("y[i] > T(0)", "y[i] >= T(0)"),
    },
    ("ops/activation.cu", "sigmoid_forward", "Sigmoid"): {
        "no bounds check": ("if (i < size) y", "y"),
        "the input returned": ("sigmoid(x[i])", "x[i]"),
    },
    ("ops/activation.cu", "sigmoid_backward", "Sigmoid"): {
        "no bounds check": ("if (i < size) dx", "dx"),
        "a factor forgotten": ("dy[i] * y[i] * ", "dy[i] * "),
        "float instead of T": ("y[i] * (T(1) - y[i])", "float(y[i] * (T(1) - y[i]))"),
    },
    ("ops/pool.cu", "max_pool2d_forward", "MaxPool2d"): {
        "one row beyond the bottom edge": ("h >= H", "h > H"),
        "the maximum initialised to 0": ("number < 0 || candidate > largest", "candidate > largest"),
        "the strides exchanged": ("SH * i", "SW * i"),
        "every block uses the first plane": ("x += (long long)blockIdx.x * H * W;", ""),
        "the winner not stored": ("winner[own] = number;", ""),
        "no bounds check": ("if (i >= OH || j >= OW) return;", ""),
    },
    ("ops/pool.cu", "max_pool2d_forward", "MaxPool2d, several tiles"): {
        "only one row of tiles": ("blockIdx.y * blockDim.y + threadIdx.y", "threadIdx.y"),
    },
    ("ops/pool.cu", "max_pool2d_forward", "MaxPool2d, equal pixels"): {
        "the last maximum, not the first": ("candidate > largest", "candidate >= largest"),
    },
    ("ops/pool.cu", "max_pool2d_forward", "MaxPool2d, NaN"): {
        "NaN hidden": (" || candidate != candidate", ""),
    },
    ("ops/pool.cu", "max_pool2d_backward", "MaxPool2d"): {
        "= instead of +=": ("sum += dy", "sum = dy"),
        "only the last window": ("h + PH - SH * i < KH; i--", "h + PH - SH * i < SH; i--"),
        "the padding forgotten": ("(h + PH) / SH", "h / SH"),
        "zero gradients not stored": ("    dx[", "    if (sum != T(0)) dx["),
        "float instead of T": ("T sum = 0", "float sum = 0"),
        "no bounds check": ("if (h >= H || w >= W) return;", ""),
    },
    ("ops/pool.cu", "max_pool2d_backward", "MaxPool2d, several tiles"): {
        "only one column of tiles": ("blockIdx.z * blockDim.x + threadIdx.x", "threadIdx.x"),
    },
    ("ops/pool.cu", "max_pool2d_backward", "MaxPool2d, equal pixels"): {
        "one window too many": ("if (i >= OH || j >= OW) continue;", ""),
    },
    ("ops/pool.cu", "upper", "MaxPool2d, 2x2"): {
        "rows of windows not two rows apart": ("2 * (i / fours) * fours", "i / fours * fours"),
        "every window in the first column": (" + i % fours", ""),
    },
    ("ops/pool.cu", "compare", "MaxPool2d, 2x2"): {
        "the last maximum, not the first": ("candidate > largest", "candidate >= largest"),
        "the winner not stored": ("number = index;", ""),
        "the smallest pixel": ("candidate > largest", "candidate < largest"),
    },
    ("ops/pool.cu", "compare", "MaxPool2d, NaN"): {
        "NaN hidden": (" || candidate != candidate", ""),
    },
    ("ops/pool.cu", "max_pool2d_forward_2x2", "MaxPool2d, 2x2"): {
        "no bounds check": ("if (i >= threads) return;", ""),
        "only one block": ("blockIdx.x * blockDim.x + threadIdx.x", "threadIdx.x"),
        "the lower row not read": ("b = rows[fours]", "b = rows[0]"),
        "a pixel not compared": ("compare(b.third, 2, largest.right, number.right);", ""),
        "the other window's pixel": ("compare(a.second, 1", "compare(a.third, 1"),
        "rows and columns of the window exchanged": ("compare(b.first, 2", "compare(b.first, 1"),
    },
    ("ops/pool.cu", "max_pool2d_backward_2x2", "MaxPool2d, 2x2"): {
        "no bounds check": ("if (i >= threads) return;", ""),
        "only one block": ("blockIdx.x * blockDim.x + threadIdx.x", "threadIdx.x"),
        "rows and columns of the window exchanged": ("number.left == 1", "number.left == 2"),
        "the second row not written": ("rows[fours] =", "Four unused ="),
        "every pixel of the window receives the gradient": ("number.right == 3 ? g.right : T(0)", "g.right"),
        "the gradient of the other window": ("number.right == 0 ? g.right", "number.right == 0 ? g.left"),
    },
    ("ops/upsample.cu", "upsample_forward", "UpsampleNearest"): {
        "the remainder instead of the quotient": ("j / s", "j % s"),
        "the row length of the small image": ("y[i * s * W + j]", "y[i * W + j]"),
        "every block uses the first plane": ("x += (long long)blockIdx.x * H * W;", ""),
        "only one row of tiles": ("blockIdx.y * blockDim.y + threadIdx.y", "threadIdx.y"),
        "no bounds check": ("if (i >= s * H || j >= s * W) return;", ""),
    },
    ("ops/upsample.cu", "upsample_backward", "UpsampleNearest"): {
        "= instead of +=": ("sum += dy", "sum = dy"),
        "one row too many": ("i < s * h + s", "i <= s * h + s"),
        "only one pixel of the square": ("j < s * w + s", "j <= s * w"),
        "the plane size of the small image": ("blockIdx.x * H * W * s * s", "blockIdx.x * H * W"),
        "float instead of T": ("T sum = 0", "float sum = 0"),
        "no bounds check": ("if (h >= H || w >= W) return;", ""),
    },
    ("ops/loss/cross_entropy.cu", "cross_entropy_sums", "BinaryCrossEntropyWithLogits, many numbers"): {
        "= instead of +=": ("sum += max", "sum = max"),
        "a term forgotten": ("max(x[i], T(0)) - ", "-"),
        "numbers counted twice": ("i += gridDim.x * blockDim.x", "i += blockDim.x"),
        "only one number per thread": ("i += gridDim.x * blockDim.x", "i += size"),
        "only one partial sum stored": ("partial[blockIdx.x] = sum", "partial[0] = sum"),
        "the float version of a function": ("log1p(", "log1pf("),
    },
    ("ops/loss/cross_entropy.cu", "cross_entropy", "BinaryCrossEntropyWithLogits, many numbers"): {
        "only one partial sum per thread": ("i += blockDim.x", "i += blocks"),
        "one partial sum too many": ("i < blocks", "i <= blocks"),
        "every thread stores its own sum": ("if (threadIdx.x == 0) *loss", "*loss"),
        "the sum, not the mean": ("sum / T(size)", "sum"),
    },
    ("ops/loss/cross_entropy.cu", "cross_entropy_backward", "BinaryCrossEntropyWithLogits"): {
        "dy forgotten": ("*dy / T(size)", "T(1) / T(size)"),
        "the mean forgotten": ("*dy / T(size)", "*dy"),
        "the target forgotten": ("(sigmoid(x[i]) - t[i])", "sigmoid(x[i])"),
        "no bounds check": ("if (i < size) dx", "dx"),
    },
    ("ops/loss/dice.cu", "soft_dice_sums", "SoftDiceLoss, large images"): {
        "= instead of +=": ("intersection += p", "intersection = p"),
        "the target not counted": ("total += p + t[i]", "total += p"),
        "every image uses the first target": ("t += (long long)blockIdx.y * pixels;", ""),
        "the images' sums mixed": ("blockIdx.y * gridDim.x + blockIdx.x", "blockIdx.y + blockIdx.x"),
        "numbers counted twice": ("i += gridDim.x * blockDim.x", "i += blockDim.x"),
        "threads return before a barrier": (
            "total = block_sum(total);\n    if (threadIdx.x > 0) return;",
            "if (threadIdx.x > 0) return;\n    total = block_sum(total);",
        ),
    },
    ("ops/loss/dice.cu", "soft_dice", "SoftDiceLoss, large images"): {
        "only the first block": ("b < blocks", "b < 1"),
        "smooth missing in the numerator": ("T(2) * intersection + smooth", "T(2) * intersection"),
        "smooth missing in the denominator": ("total[n] = all + smooth", "total[n] = all"),
        "the sum, not the mean": ("sum / T(images)", "sum"),
    },
    ("ops/loss/dice.cu", "soft_dice", "SoftDiceLoss, many images"): {
        "only one image per thread": ("n += blockDim.x", "n += images"),
        "= instead of +=": ("sum += dice[n]", "sum = dice[n]"),
    },
    ("ops/loss/dice.cu", "soft_dice_backward", "SoftDiceLoss"): {
        "the sigmoid's derivative forgotten": (" * p * (T(1) - p)", ""),
        "the number of images forgotten": ("*dy / T(images)", "*dy"),
        "the block index instead of the image": ("n = i / pixels", "n = blockIdx.x"),
        "no bounds check": ("if (n >= images) return;", ""),
    },
    ("ops/loss/softmax.cu", "softmax_cross_entropy", "SoftmaxCrossEntropy, many images"): {
        "only one image per thread": ("n += blockDim.x", "n += N"),
        "images counted twice": ("n += blockDim.x", "n += blockDim.x / 2"),
        "log p stored with its axes exchanged": ("log_p[n * K + k] = l;", "log_p[k * N + n] = l;"),
        "= instead of +=": ("exponentials += exp", "exponentials = exp"),
        "the last class forgotten": (
            "for (int k = 0; k < K; k++) exponentials",
            "for (int k = 0; k < K - 1; k++) exponentials",
        ),
        "the largest logit not subtracted": ("= x[n * K + k] - largest", "= x[n * K + k]"),
        "the target forgotten": ("sum -= t[n * K + k] * ", "sum -= "),
        "gamma ignored": ("pow(-expm1(l), gamma)", "T(1)"),
        "the probability, not its complement": ("pow(-expm1(l), gamma)", "pow(exp(l), gamma)"),
        "log p not stored": ("log_p[n * K + k] = l;", ""),
        "the number of images, not their weight": ("weight += t[n * K + k]", "weight += T(1) / K"),
        "the threads' weights not summed": ("weight = block_sum(weight);", ""),
        "threads return before a barrier": (
            "weight = block_sum(weight);\n    if (threadIdx.x > 0) return;",
            "if (threadIdx.x > 0) return;\n    weight = block_sum(weight);",
        ),
        "every thread stores its own sum": ("if (threadIdx.x > 0) return;", ""),
        "the sum, not the mean": ("*loss = sum / *total", "*loss = sum"),
        "the float version of a function": ("log(exponentials)", "logf(exponentials)"),
    },
    ("ops/loss/softmax.cu", "softmax_cross_entropy", "SoftmaxCrossEntropy, no class"): {
        "a division by zero": ("weight == T(0) ? T(1) : weight", "weight"),
    },
    ("ops/loss/softmax.cu", "softmax_cross_entropy", "SoftmaxCrossEntropy, large logits"): {
        "an exponential that overflows": ("largest = max(largest, x[n * K + k])", "largest = T(0)"),
    },
    ("ops/loss/softmax.cu", "softmax_cross_entropy_backward", "SoftmaxCrossEntropy, many images"): {
        "only one block": ("blockIdx.x * blockDim.x + threadIdx.x", "threadIdx.x"),
        "no bounds check": ("if (n >= N) return;", ""),
        "dy forgotten": ("*dy / *total", "T(1) / *total"),
        "the total forgotten": ("(*dy / *total)", "*dy"),
        "the other logits forgotten": (" - exp(log_p[n * K + k]) * sum", ""),
        "= instead of +=": ("sum += a", "sum = a"),
        "the number of images as the length of a row": ("T l = log_p[n * K + k]", "T l = log_p[n * N + k]"),
        "gamma ignored": (" * pow(q, gamma) * (T(1) - gamma * p * l / max(q, T(1e-30)))", ""),
        "the slope of the focal factor forgotten": (" * (T(1) - gamma * p * l / max(q, T(1e-30)))", ""),
        "the sign of that slope": ("T(1) - gamma * p", "T(1) + gamma * p"),
        "the last class forgotten": (
            "k < K; k++) dx[n * K + k] = (dx[",
            "k < K - 1; k++) dx[n * K + k] = (dx[",
        ),
        "float instead of T": ("T sum = 0", "float sum = 0"),
    },
    ("ops/loss/softmax.cu", "softmax_cross_entropy_backward", "SoftmaxCrossEntropy, large logits"): {
        "0 / 0 where the image is certain": ("max(q, T(1e-30))", "q"),
    },
    ("ops/norm/fused_cuda.cu", "line_of", "BatchNorm"): {
        "eps forgotten": ("var + eps", "var"),
        "the mean not scaled": ("weight * r * mean", "weight * mean"),
        "the float version of a function": ("sqrt(", "sqrtf("),
    },
    ("ops/norm/fused_cuda.cu", "moment_sums", "BatchNorm, large images"): {
        "= instead of +=": ("sum += d;", "sum = d;"),
        "only the first image": ("x[blockIdx.x * HW + i]", "x[blockIdx.x % C * HW + i]"),
        "a shift for each image": ("x[blockIdx.x % C * HW]", "x[blockIdx.x * HW]"),
        "pixels counted twice": ("threads = gridDim.y * blockDim.x", "threads = blockDim.x"),
    },
    ("common.cuh", "write_block_sums", "BatchNorm, large images"): {
        "only one block's sums stored": ("blockIdx.x * gridDim.y + blockIdx.y", "blockIdx.x * gridDim.y"),
        "the first sum stored twice": ("+ own] = v", "+ own] = u"),
        "every thread stores its own sums": ("    if (threadIdx.x > 0) return;\n", ""),
        "the threads of the block not summed": ("v = block_sum(v);", ""),
    },
    ("ops/norm/fused_cuda.cu", "channel_sum", "BatchNorm, large images"): {
        "only one image": ("i < N * blocks", "i < blocks"),
        "only one block of each image": ("b = i % blocks", "b = 0"),
        "the sum of another channel": ("* C + c) * blocks", "* C) * blocks"),
        "= instead of +=": ("sum += sums", "sum = sums"),
    },
    ("ops/norm/fused_cuda.cu", "moments", "BatchNorm"): {
        "the shift not undone": ("mean[c] = x[c * HW] + d", "mean[c] = d"),
        "the mean's square forgotten": (" - d * d", ""),
        "the unbiased variance": ("v = square / m", "v = square / (m - T(1))"),
        "every thread stores its own sums": ("if (threadIdx.x == 0) {", "{"),
    },
    ("ops/norm/fused_cuda.cu", "normalise", "BatchNorm, ReLU"): {
        "the ReLU forgotten": ("relu && z <= T(0) ? T(0) : z", "z"),
        "every image written to the first": ("at = blockIdx.x * HW", "at = blockIdx.x % C * HW"),
    },
    ("ops/norm/fused_cuda.cu", "normalise", "BatchNorm, large images"): {
        "only one pixel per thread": ("i += threads", "i += HW"),
        "only one block of each row": ("blockIdx.y * blockDim.x + threadIdx.x", "threadIdx.x"),
    },
    ("ops/norm/fused_cuda.cu", "gradient_sums", "BatchNorm, ReLU"): {
        "the ReLU's derivative forgotten": ("if (relu && !(line.a * pixel + line.c > T(0))) dz = T(0);", ""),
        "= instead of +=": ("sum_dz += dz", "sum_dz = dz"),
    },
    ("ops/norm/fused_cuda.cu", "gradient_sums", "BatchNorm"): {
        "the mean forgotten": ("(pixel - mean_c)", "pixel"),
    },
    ("ops/norm/fused_cuda.cu", "gradient_totals", "BatchNorm"): {
        "the wrong gradient stored": ("dg[c] = sum_dz_n", "dg[c] = sum_dz"),
        "a gradient not stored": ("db[c] = sum_dz;", ""),
    },
    ("ops/norm/fused_cuda.cu", "input_gradient", "BatchNorm"): {
        "the gradient through the mean forgotten": ("dz - constant_part - ", "dz - "),
        "the gradient through the variance forgotten": (" - (pixel - mean_c) * n_part", ""),
        "a factor forgotten": ("share * dg[c] * line.r", "share * dg[c]"),
    },
    ("ops/norm/fused_cuda.cu", "input_gradient", "BatchNorm, ReLU"): {
        "the ReLU's derivative forgotten": ("if (relu && !(line.a * pixel + line.c > T(0))) dz = T(0);", ""),
    },
    ("ops/norm/fused_cuda.cu", "input_gradient", "BatchNormInference"): {
        "statistics differentiated in evaluation": (
            "constant_part = share * db[c]",
            "constant_part = db[c] / T(HW)",
        ),
    },
    ("ops/norm/group_cuda.cu", "row_of", "GroupNorm"): {
        "eps forgotten": ("var[group] + eps", "var[group]"),
        "the mean not scaled": ("g * r * mean[group]", "g * mean[group]"),
        "the row as the channel": ("blockIdx.x % C", "blockIdx.x"),
        "the statistics of another group": ("blockIdx.x / size", "blockIdx.x % size"),
        "the float version of a function": ("sqrt(", "sqrtf("),
    },
    ("ops/norm/group_cuda.cu", "group_normalise", "GroupNorm, ReLU"): {
        "the ReLU forgotten": ("relu && z <= T(0) ? T(0) : z", "z"),
        "every row written to the first": ("y[blockIdx.x * HW + i]", "y[i]"),
    },
    ("ops/norm/group_cuda.cu", "group_normalise", "GroupNorm, large images"): {
        "only one pixel per thread": ("i += threads", "i += HW"),
        "only one block of each row": ("blockIdx.y * blockDim.x + threadIdx.x", "threadIdx.x"),
    },
    ("ops/norm/group_cuda.cu", "group_gradient_sums", "GroupNorm"): {
        "the mean forgotten": ("(pixel - row.mean)", "pixel"),
        "a factor forgotten": (" * row.r;", ";"),
        "the sums exchanged": ("write_block_sums(sum_dz_n, sum_dz,", "write_block_sums(sum_dz, sum_dz_n,"),
    },
    ("ops/norm/group_cuda.cu", "group_gradient_sums", "GroupNorm, ReLU"): {
        "the ReLU's derivative forgotten": ("if (relu && !(row.a * pixel + row.c > T(0))) dz = T(0);", ""),
    },
    ("ops/norm/group_cuda.cu", "group_gradient_sums", "GroupNorm, large images"): {
        "= instead of +=": ("sum_dz += dz", "sum_dz = dz"),
        "only one pixel per thread": ("i += threads", "i += HW"),
        "pixels counted twice": ("threads = gridDim.y * blockDim.x", "threads = blockDim.x"),
    },
    ("ops/norm/group_cuda.cu", "group_gradient_means", "GroupNorm, large images"): {
        "only one block of each row": ("i < count", "i < size"),
    },
    ("ops/norm/group_cuda.cu", "group_gradient_means", "GroupNorm"): {
        "only the first row of a group": ("i < count", "i < blocks"),
        "the weight forgotten": ("dn += g * ", "dn += "),
        "the weight of another channel": ("weight[at / blocks % C]", "weight[i / blocks]"),
        "the sum, not the mean": ("dn_n / m", "dn_n"),
        "the rows' values not counted": ("T(size) * T(HW)", "T(size)"),
        "every thread stores its own sums": ("    if (threadIdx.x > 0) return;\n", ""),
    },
    ("ops/norm/group_cuda.cu", "group_input_gradient", "GroupNorm"): {
        "the gradient through the mean forgotten": (" - mean_dn - ", " - "),
        "the gradient through the variance forgotten": (" - n * mean_dn_n", ""),
        "the weight forgotten": ("row.g * dz", "dz"),
        "a mean of another group": ("groups + blockIdx.x / size", "groups + blockIdx.x % size"),
    },
    ("ops/norm/group_cuda.cu", "group_input_gradient", "GroupNorm, ReLU"): {
        "the ReLU's derivative forgotten": ("if (relu && !(row.a * pixel + row.c > T(0))) dz = T(0);", ""),
    },
    ("ops/norm/group_cuda.cu", "group_input_gradient", "GroupNorm, large images"): {
        "only one pixel per thread": ("i += threads", "i += HW"),
    },
    ("images.cu", "mirrored", "affine_sample"): {
        "negative places not mirrored": ("if (i < 0) i += 2 * size;", ""),
        "the border pixel not repeated": ("2 * size - 1 - i", "2 * size - 2 - i"),
    },
    ("images.cu", "affine_sample", "affine_sample"): {
        "no bounds check": ("if (i >= threads) return;", ""),
        "truncated instead of rounded down": ("left = floor(across)", "left = T((int)across)"),
        "rows and columns exchanged": ("m[0] * T(u) + m[1] * T(v)", "m[0] * T(v) + m[1] * T(u)"),
        "only one row": ("upper + (lower - upper) * (down - top)", "upper"),
        "the image not looked up": ("(long long)which[n] * H", "(long long)n * H"),
    },
    ("images.cu", "recolour", "recolour"): {
        "no bounds check": ("if (i >= threads) return;", ""),
        "negative levels not clipped": ("max(level, T(0))", "level"),
        "levels above 255 not clipped": ("min(max(level, T(0)), T(255))", "max(level, T(0))"),
        "the offset forgotten": (" + offsets[3 * n + c]", ""),
        "the matrix of the first image": ("matrices + 9 * n", "matrices"),
        "the matrix transposed": ("row[0] * red + row[1] * green", "row[1] * red + row[0] * green"),
    },
    ("images.cu", "box_blur", "gaussian_blur"): {
        "no bounds check": ("if (i >= threads) return;", ""),
        "the last pixel not repeated": ("min(max(place + k, 0), last)", "max(place + k, 0)"),
        "the first pixel not repeated": ("min(max(place + k, 0), last)", "min(place + k, last)"),
        "not rounded": ("sum = 1u << 23", "sum = 0"),
        "the outer pixels forgotten": ("abs(k) > radius ? outer : inner", "inner"),
        "the box of another image": ("i / (C * H * W)", "i / (H * W) % C"),
    },
    ("images.cu", "round_window", "round_window"): {
        "no bounds check": ("if (i >= threads) return;", ""),
        "the edge of a pixel instead of its centre": ("(T(v) + T(0.5)) / T(H)", "T(v) / T(H)"),
        "infinity not replaced": ("min((window[2] + window[3]) / T(2), T(1))", "(window[2] + window[3])"),
        "not rounded": ("* window[4] + T(0.5)", "* window[4]"),
        "the mask not cut off": ("inside > T(0) ? mask[i] : 0", "mask[i]"),
        "a hard edge": ("inside / edge + T(0.5)", "inside * T(1e9)"),
    },
    ("ops/linear.cu", "small_product", "MatMul, two matrices"): {
        "= instead of +=": ("sum += a", "sum = a"),
        "one of the factors transposed": ("b[k * m + column]", "b[column * K + k]"),
        "row and column exchanged": ("row = i / m, column = i % m", "row = i % m, column = i / m"),
        "float instead of T": ("T sum = T(0)", "float sum = 0"),
        "no bounds check": ("if (i >= n * m) return;", ""),
    },
    ("average.cu", "weighted_sum", "weighted_sum"): {
        "only one block": ("blockIdx.x * blockDim.x + threadIdx.x", "threadIdx.x"),
        "a weight forgotten": ("q * v[i]", "v[i]"),
        "no bounds check": ("if (i < size) y", "y"),
    },
    ("ema.cu", "moving_average", "EMA"): {
        "the two weights exchanged": ("numbers[0] * average[k][j]", "numbers[1] * average[k][j]"),
        "a weight forgotten": ("numbers[1] * p[k][j]", "p[k][j]"),
        "the global index used within an array": ("p[k][j]", "p[k][i]"),
        "no bounds check": ("if (i >= offsets[arrays]) return;", ""),
    },
    ("graph.cu", "copy_all", "GraphedStep"): {
        "only one block": ("blockIdx.x * blockDim.x + threadIdx.x", "threadIdx.x"),
        "only the first array": ("from[k][j]", "from[0][j]"),
        "copied in the wrong direction": ("to[k][j] = from[k][j]", "((T**)from)[k][j] = to[k][j]"),
        "no bounds check": ("if (i >= offsets[arrays]) return;", ""),
    },
    ("optim.cu", "adam", "Adam"): {
        "a missing gradient not checked": ("if (!g[k]) return;", ""),
        "the global index used within a parameter": ("T weight = p[k][j]", "T weight = p[k][i]"),
        "only the running mean of one parameter": ("m[i] = mean", "m[j] = mean"),
        "the running square not stored": ("v[i] = square;", ""),
        "the bias correction forgotten": ("mean / c1", "mean"),
        "the two bias corrections exchanged": (
            "c1 = numbers[1], c2 = numbers[2]",
            "c1 = numbers[2], c2 = numbers[1]",
        ),
        "eps inside the square root": ("sqrt(square / c2) + eps", "sqrt(square / c2 + eps)"),
        "the weight decay forgotten": (" + decay_in_gradient * weight", ""),
        "the float version of a function": ("sqrt(", "sqrtf("),
        "no bounds check": ("if (i >= offsets[parameters]) return;", ""),
    },
    ("optim.cu", "adam", "AdamW"): {
        "the decoupled weight decay forgotten": (" - lr * decay_of_weight * weight", ""),
    },
    ("optim.cu", "sums_of_squares", "clip_grad_norm"): {
        "= instead of +=": ("sum += number", "sum = number"),
        "not squared": ("number * number", "abs(number)"),
        "numbers counted twice": ("i += gridDim.x * blockDim.x", "i += blockDim.x"),
        "the block's threads not summed": ("block_sum(sum)", "sum"),
    },
    ("optim.cu", "scale_to_norm", "clip_grad_norm"): {
        "gradients within the limit not stored": (
            "scaled[k][j] = *norm > max_norm ? g[k][j] * (max_norm / *norm) : g[k][j];",
            "if (*norm > max_norm) scaled[k][j] = g[k][j] * (max_norm / *norm);",
        ),
        "gradients within the limit scaled up": (
            "*norm > max_norm ? g[k][j] * (max_norm / *norm) : g[k][j]",
            "g[k][j] * (max_norm / *norm)",
        ),
        "not divided by the norm": ("(max_norm / *norm)", "max_norm"),
        "no bounds check": ("if (i >= offsets[parameters]) return;", ""),
    },
}

"""What people get wrong in kernels: lines of each `.cu` file, and what a mistake would have written there.

Mistakes stand by the file, the function in it, and the case that notices them, as named in
`test_broken_kernels.py`. Each has a name, the text as it is, which the function has once, and as it is not.
"""

BROKEN = {
    ("common.cuh", "sigmoid", "SoftDiceLoss"): {
        "the absolute value forgotten": ("exp(-abs(x))", "exp(-x)"),
        "a function for float": ("exp(", "expf("),
    },
    ("common.cuh", "warp_sum", "BinaryCrossEntropyWithLogits, many numbers"): {
        "half a warp summed": ("int offset = 16", "int offset = 8"),
        "one round only": ("offset /= 2", "offset = 0"),
    },
    ("common.cuh", "block_sum", "BinaryCrossEntropyWithLogits, many numbers"): {
        "no barrier": ("of_warp[warp] = value;\n    __syncthreads();", "of_warp[warp] = value;"),
        "one warp only": ("lane < warps ?", "lane < 1 ?"),
        "every lane writes its warp's sum": ("if (lane == 0) of_warp", "of_warp"),
        "too little shared memory": ("of_warp[32]", "of_warp[1]"),
        "warps summed that do not exist": ("lane < warps ? of_warp[lane] : T(0)", "of_warp[lane]"),
        "float for T": ("__shared__ T of_warp", "__shared__ float of_warp"),
    },
    ("common.cuh", "block_sum", "SoftDiceLoss, large images"): {
        "no barrier between two calls": (
            "    __syncthreads();  // all threads have read what an earlier call left in of_warp\n",
            "",
        ),
    },
    ("ops/conv/im2col.cu", "im2col", "Conv2d, by im2col"): {
        "one pixel too far below": ("h < H", "h <= H"),
        "the border not filled": (
            "*column = inside ? image[h * W + w] : T(0);",
            "if (inside) *column = image[h * W + w];",
        ),
        "the last thread missing": ("i >= threads", "i >= threads - 1"),
        "no check of the last block": ("if (i >= threads) return;", ""),
    },
    ("ops/conv/im2col.cu", "im2col", "Conv2d, many channels, by im2col"): {
        "one pixel too far on the left": ("0 <= w", "-1 <= w"),
    },
    ("ops/conv/im2col.cu", "col2im", "Conv2d, by im2col"): {
        "= for +=": ("sum += copies", "sum = copies"),
        "one window too many": ("oh < OH", "oh <= OH"),
        "float for T": ("T sum = T(0)", "float sum = 0"),
    },
    ("ops/conv/im2col.cu", "col2im", "ConvTranspose2d, by im2col"): {
        "the stride forgotten": ("row % SH == 0 && column % SW == 0", "true"),
    },
    ("ops/conv/implicit_gemm.cu", "place_under", "Conv2d"): {
        "the padding added": ("SH * oh + kh - PH", "SH * oh + kh + PH"),
        "one row too many": ("return h < H", "return h <= H"),
        "the border wraps around": ("if (h < 0 || w < 0)", "if (h < 0)"),
        "rows between strides counted": ("h % SH != 0 || ", ""),
    },
    ("ops/conv/implicit_gemm.cu", "implicit_gemm", "Conv2d, many channels"): {
        "no barrier before a chunk": ("__syncthreads();  // no thread still needs the previous chunk", ""),
        "no barrier behind a chunk": ("__syncthreads();  // the chunk is complete", ""),
    },
    ("ops/conv/implicit_gemm.cu", "implicit_gemm", "Conv2d, stride 1"): {
        "= for +=": ("sum[j] += weights[k][j] * value", "sum[j] = weights[k][j] * value"),
    },
    ("ops/conv/implicit_gemm.cu", "implicit_gemm", "Conv2d"): {
        "the bias forgotten": ("b[first + j] : T(0)", "T(0) : T(0)"),
        "the channels not counted": ("++k, ++channel", "++k"),
        "the last channel not written": ("if (first + j < OC) y[", "if (first + j < OC - 1) y["),
        "pixels beyond the image written": ("if (pixel >= OH * OW) return;", ""),
        "float for T": ("T sum[TILE]", "float sum[TILE]"),
    },
    ("ops/conv/implicit_gemm.cu", "implicit_gemm", "ConvTranspose2d"): {
        "the channels not exchanged": ("ADJOINT ? c * OC + oc : oc * C + c", "oc * C + c"),
    },
    ("ops/conv/implicit_gemm.cu", "implicit_gemm_weight_gradient", "Conv2d, many channels"): {
        "= for +=": ("sum[i][j] += d[j] * value", "sum[i][j] = d[j] * value"),
        "no barrier": ("    __syncthreads();\n", ""),
        "the warps not summed": ("T of_warp = warp_sum(sum[i][j]);", "T of_warp = sum[i][j];"),
        "one warp only": ("other < blockDim.x / 32", "other < 1"),
        "the pieces overlap": ("p = blockIdx.z * piece + threadIdx.x", "p = threadIdx.x"),
        "the last piece's end missing": (
            "end = min(pixels, (int)(blockIdx.z + 1) * piece)",
            "end = (int)(blockIdx.z + 1) * piece",
        ),
    },
    ("ops/activation.cu", "relu_forward", "ReLU"): {
        "no check of the last block": ("if (i < size) y", "y"),
        "the last thread missing": ("i < size", "i < size - 1"),
    },
    ("ops/activation.cu", "relu_forward", "ReLU, two blocks"): {
        "one block only": ("blockIdx.x * blockDim.x + threadIdx.x", "threadIdx.x"),
    },
    ("ops/activation.cu", "relu_forward", "ReLU, not a number"): {
        "a NaN hidden": ("x[i] <= T(0) ? T(0) : x[i]", "x[i] > T(0) ? x[i] : T(0)"),
    },
    ("ops/activation.cu", "relu_backward", "ReLU"): {
        "no check of the last block": ("if (i < size) dx", "dx"),
        "dy forgotten": ("dy[i] * T(y[i] > T(0))", "T(y[i] > T(0))"),
        "a slope of 1 at 0": ("y[i] > T(0)", "y[i] >= T(0)"),
    },
    ("ops/activation.cu", "sigmoid_forward", "Sigmoid"): {
        "no check of the last block": ("if (i < size) y", "y"),
        "the input returned": ("sigmoid(x[i])", "x[i]"),
    },
    ("ops/activation.cu", "sigmoid_backward", "Sigmoid"): {
        "no check of the last block": ("if (i < size) dx", "dx"),
        "a factor forgotten": ("dy[i] * y[i] * ", "dy[i] * "),
        "float for T": ("y[i] * (T(1) - y[i])", "float(y[i] * (T(1) - y[i]))"),
    },
    ("ops/pool.cu", "max_pool2d_forward", "MaxPool2d"): {
        "one pixel too far below": ("h >= H", "h > H"),
        "the border wins": ("number < 0 || candidate > largest", "candidate > largest"),
        "the strides exchanged": ("SH * i", "SW * i"),
        "every plane the first one": ("x += (long long)blockIdx.x * H * W;", ""),
        "the winner not written": ("winner[own] = number;", ""),
        "no check of the last block": ("if (i >= OH || j >= OW) return;", ""),
    },
    ("ops/pool.cu", "max_pool2d_forward", "MaxPool2d, several tiles"): {
        "one row of tiles only": ("blockIdx.y * blockDim.y + threadIdx.y", "threadIdx.y"),
    },
    ("ops/pool.cu", "max_pool2d_forward", "MaxPool2d, equal pixels"): {
        "the last winner, not the first": ("candidate > largest", "candidate >= largest"),
    },
    ("ops/pool.cu", "max_pool2d_forward", "MaxPool2d, not a number"): {
        "a NaN hidden": (" || candidate != candidate", ""),
    },
    ("ops/pool.cu", "max_pool2d_backward", "MaxPool2d"): {
        "= for +=": ("sum += dy", "sum = dy"),
        "the last window only": ("h + PH - SH * i < KH; i--", "h + PH - SH * i < SH; i--"),
        "the padding forgotten": ("(h + PH) / SH", "h / SH"),
        "losers not written": ("    dx[", "    if (sum != T(0)) dx["),
        "float for T": ("T sum = 0", "float sum = 0"),
        "no check of the last block": ("if (h >= H || w >= W) return;", ""),
    },
    ("ops/pool.cu", "max_pool2d_backward", "MaxPool2d, several tiles"): {
        "one column of tiles only": ("blockIdx.z * blockDim.x + threadIdx.x", "threadIdx.x"),
    },
    ("ops/pool.cu", "max_pool2d_backward", "MaxPool2d, equal pixels"): {
        "one window too many": ("if (i >= OH || j >= OW) continue;", ""),
    },
    ("ops/upsample.cu", "upsample_forward", "UpsampleNearest"): {
        "the remainder for the quotient": ("j / s", "j % s"),
        "the rows of the small image": ("y[i * s * W + j]", "y[i * W + j]"),
        "every plane the first one": ("x += (long long)blockIdx.x * H * W;", ""),
        "one row of tiles only": ("blockIdx.y * blockDim.y + threadIdx.y", "threadIdx.y"),
        "no check of the last block": ("if (i >= s * H || j >= s * W) return;", ""),
    },
    ("ops/upsample.cu", "upsample_backward", "UpsampleNearest"): {
        "= for +=": ("sum += dy", "sum = dy"),
        "one row too many": ("i < s * h + s", "i <= s * h + s"),
        "one pixel of the square only": ("j < s * w + s", "j <= s * w"),
        "the planes of the small image": ("blockIdx.x * H * W * s * s", "blockIdx.x * H * W"),
        "float for T": ("T sum = 0", "float sum = 0"),
        "no check of the last block": ("if (h >= H || w >= W) return;", ""),
    },
    ("ops/loss/cross_entropy.cu", "cross_entropy_sums", "BinaryCrossEntropyWithLogits, many numbers"): {
        "= for +=": ("sum += max", "sum = max"),
        "a term forgotten": ("max(x[i], T(0)) - ", "-"),
        "numbers counted twice": ("i += gridDim.x * blockDim.x", "i += blockDim.x"),
        "one number a thread only": ("i += gridDim.x * blockDim.x", "i += size"),
        "one partial sum only written": ("partial[blockIdx.x] = sum", "partial[0] = sum"),
        "a function for float": ("log1p(", "log1pf("),
    },
    ("ops/loss/cross_entropy.cu", "cross_entropy", "BinaryCrossEntropyWithLogits, many numbers"): {
        "one partial sum a thread only": ("i += blockDim.x", "i += blocks"),
        "one partial sum too many": ("i < blocks", "i <= blocks"),
        "the partial sums of all threads written": ("if (threadIdx.x == 0) *loss", "*loss"),
        "the sum, not the mean": ("sum / T(size)", "sum"),
    },
    ("ops/loss/cross_entropy.cu", "cross_entropy_backward", "BinaryCrossEntropyWithLogits"): {
        "dy forgotten": ("*dy / T(size)", "T(1) / T(size)"),
        "the mean forgotten": ("*dy / T(size)", "*dy"),
        "the target forgotten": ("(sigmoid(x[i]) - t[i])", "sigmoid(x[i])"),
        "no check of the last block": ("if (i < size) dx", "dx"),
    },
    ("ops/loss/dice.cu", "soft_dice_sums", "SoftDiceLoss, large images"): {
        "= for +=": ("intersection += p", "intersection = p"),
        "the target not counted": ("total += p + t[i]", "total += p"),
        "every target the first one": ("t += (long long)blockIdx.y * pixels;", ""),
        "the images' sums mixed": ("blockIdx.y * gridDim.x + blockIdx.x", "blockIdx.y + blockIdx.x"),
        "numbers counted twice": ("i += gridDim.x * blockDim.x", "i += blockDim.x"),
        "threads gone before a barrier": (
            "total = block_sum(total);\n    if (threadIdx.x > 0) return;",
            "if (threadIdx.x > 0) return;\n    total = block_sum(total);",
        ),
    },
    ("ops/loss/dice.cu", "soft_dice", "SoftDiceLoss, large images"): {
        "the first block only": ("b < blocks", "b < 1"),
        "smooth forgotten above": ("T(2) * intersection + smooth", "T(2) * intersection"),
        "smooth forgotten below": ("total[n] = all + smooth", "total[n] = all"),
        "the sum, not the mean": ("sum / T(images)", "sum"),
    },
    ("ops/loss/dice.cu", "soft_dice", "SoftDiceLoss, many images"): {
        "one image a thread only": ("n += blockDim.x", "n += images"),
        "= for +=": ("sum += dice[n]", "sum = dice[n]"),
    },
    ("ops/loss/dice.cu", "soft_dice_backward", "SoftDiceLoss"): {
        "the sigmoid's slope forgotten": (" * p * (T(1) - p)", ""),
        "the number of images forgotten": ("*dy / T(images)", "*dy"),
        "the block for the image": ("n = i / pixels", "n = blockIdx.x"),
        "no check of the last block": ("if (n >= images) return;", ""),
    },
    ("ops/norm/fused_cuda.cu", "line_of", "BatchNorm"): {
        "eps forgotten": ("var + eps", "var"),
        "the mean not scaled": ("weight * r * mean", "weight * mean"),
        "a function for float": ("sqrt(", "sqrtf("),
    },
    ("ops/norm/fused_cuda.cu", "moment_sums", "BatchNorm, large images"): {
        "= for +=": ("sum += d;", "sum = d;"),
        "the channels mixed": ("(n * C + c) * HW", "(n + c) * HW"),
        "pixels counted twice": ("i += gridDim.x * blockDim.x", "i += blockDim.x"),
    },
    ("ops/norm/fused_cuda.cu", "write_block_sums", "BatchNorm, large images"): {
        "one block's sums only written": (
            "sums[blockIdx.y * gridDim.x + blockIdx.x]",
            "sums[blockIdx.y * gridDim.x]",
        ),
        "one sum for the other": ("blockIdx.x] = v", "blockIdx.x] = u"),
        "every thread writes": ("    if (threadIdx.x > 0) return;\n", ""),
    },
    ("ops/norm/fused_cuda.cu", "channel_sum", "BatchNorm, large images"): {
        "one block only": ("b < blocks", "b < 1"),
        "blocks summed that do not exist": ("b < blocks", "true"),
        "the sum of another channel": ("(which * C + c) * blocks", "(which * C) * blocks"),
    },
    ("ops/norm/fused_cuda.cu", "moments", "BatchNorm"): {
        "the shift not undone": ("mean[c] = x[c * HW] + d", "mean[c] = d"),
        "the mean's square forgotten": (" - d * d", ""),
        "the variance of a sample": ("v = square / m", "v = square / (m - T(1))"),
        "the sums of all threads written": ("if (threadIdx.x == 0) {", "{"),
    },
    ("ops/norm/fused_cuda.cu", "normalise", "BatchNorm, ReLU"): {
        "the ReLU forgotten": ("relu && z <= T(0) ? T(0) : z", "z"),
        "the first image only": ("n < N", "n < 1"),
    },
    ("ops/norm/fused_cuda.cu", "normalise", "BatchNorm, large images"): {
        "one pixel a thread only": ("i += gridDim.x * blockDim.x", "i += HW"),
    },
    ("ops/norm/fused_cuda.cu", "gradient_sums", "BatchNorm, ReLU"): {
        "the ReLU's slope forgotten": ("if (relu && !(line.a * x[at] + line.c > T(0))) dz = T(0);", ""),
        "= for +=": ("sum_dz += dz", "sum_dz = dz"),
    },
    ("ops/norm/fused_cuda.cu", "gradient_sums", "BatchNorm"): {
        "the mean forgotten": ("(x[at] - mean_c)", "x[at]"),
    },
    ("ops/norm/fused_cuda.cu", "gradient_totals", "BatchNorm"): {
        "one gradient for the other": ("dg[c] = sum_dz_n", "dg[c] = sum_dz"),
        "a gradient not written": ("db[c] = sum_dz;", ""),
    },
    ("ops/norm/fused_cuda.cu", "input_gradient", "BatchNorm"): {
        "the way through the mean forgotten": ("dz - of_one - ", "dz - "),
        "the way through the variance forgotten": (" - (x[at] - mean_c) * of_n", ""),
        "a factor forgotten": ("share * dg[c] * line.r", "share * dg[c]"),
    },
    ("ops/norm/fused_cuda.cu", "input_gradient", "BatchNorm, ReLU"): {
        "the ReLU's slope forgotten": ("if (relu && !(line.a * x[at] + line.c > T(0))) dz = T(0);", ""),
    },
    ("ops/norm/fused_cuda.cu", "input_gradient", "BatchNormInference"): {
        "statistics that move in evaluation": ("of_one = share * db[c]", "of_one = db[c] / T(N * HW)"),
    },
    ("average.cu", "weighted_sum", "weighted_sum"): {
        "one block only": ("blockIdx.x * blockDim.x + threadIdx.x", "threadIdx.x"),
        "a weight forgotten": ("q * v[i]", "v[i]"),
        "no check of the last block": ("if (i < size) y", "y"),
    },
    ("optim.cu", "parameter_of", "Adam"): {
        "a first number given to the parameter before": ("offsets[middle] <= i", "offsets[middle] < i"),
        "the last parameter missing": ("int end = parameters", "int end = parameters - 1"),
    },
    ("optim.cu", "adam", "Adam"): {
        "a missing gradient not noticed": ("if (!g[k]) return;", ""),
        "numbers counted through all parameters": ("T weight = p[k][j]", "T weight = p[k][i]"),
        "the memory of one parameter only": ("m[i] = mean", "m[j] = mean"),
        "the memory not written": ("v[i] = square;", ""),
        "the correction forgotten": ("mean / c1", "mean"),
        "eps below the root": ("sqrt(square / c2) + eps", "sqrt(square / c2 + eps)"),
        "the decay forgotten": (" + decay_in_gradient * weight", ""),
        "a function for float": ("sqrt(", "sqrtf("),
        "no check of the last block": ("if (i >= offsets[parameters]) return;", ""),
    },
    ("optim.cu", "adam", "AdamW"): {
        "the decay of the weight forgotten": (" - lr * decay_of_weight * weight", ""),
    },
    ("optim.cu", "sums_of_squares", "clip_grad_norm"): {
        "= for +=": ("sum += number", "sum = number"),
        "not squared": ("number * number", "abs(number)"),
        "numbers counted twice": ("i += gridDim.x * blockDim.x", "i += blockDim.x"),
        "the threads' sums not added": ("block_sum(sum)", "sum"),
    },
    ("optim.cu", "scale_to_norm", "clip_grad_norm"): {
        "short gradients not written": (
            "scaled[k][j] = *norm > max_norm ? g[k][j] * (max_norm / *norm) : g[k][j];",
            "if (*norm > max_norm) scaled[k][j] = g[k][j] * (max_norm / *norm);",
        ),
        "short gradients made longer": (
            "*norm > max_norm ? g[k][j] * (max_norm / *norm) : g[k][j]",
            "g[k][j] * (max_norm / *norm)",
        ),
        "not divided by the length": ("(max_norm / *norm)", "max_norm"),
        "no check of the last block": ("if (i >= offsets[parameters]) return;", ""),
    },
}

"""Plausible wrong answers to the exercises: a piece of a solution, and what somebody might write instead.

The right answers at the end differ from the solutions in the same way.
"""

# (chapter, exercise): one (piece of the solution, its replacement) for each wrong answer
WRONG = {
    (1, 1): [
        (".sum(axis=0)", ".mean(axis=0)"),
        ("(-dy * a", "(dy * a"),
        (".sum(axis=0)", ""),
    ],
    (1, 2): [
        ("            if consumers[x] == 0:", "            if x not in order and x not in ready:"),
        (
            ("            if x not in consumers:\n                unvisited.append(x)"),
            "            unvisited.append(x)",
        ),
        (
            "    order, ready = [], [last]",
            (
                "    paths = [last]\n"
                "    while paths:\n"
                "        paths.extend(inputs[paths.pop()])\n"
                "    order, ready = [], [last]"
            ),
        ),
    ],
    (1, 3): [
        (
            ("                unvisited.append(x)\n            consumers[x] += 1"),
            ("                unvisited.append(x)\n                consumers[x] += 1"),
        ),
        ("gradients.get(x, 0.0) + dx", "dx"),
    ],
    (2, 1): [
        ("rng.normal(size=f(x).shape)", "np.ones(f(x).shape)"),
        ("1e-6 * max", "1e-1 * max"),
    ],
    (2, 2): [
        (("    x[:-1] += y\n    x[1:] += 3 * y"), ("    x[:-1] += 3 * y\n    x[1:] += y")),
        ("    x[1:] += 3 * y", "    x[1:] = 3 * y"),
    ],
    (2, 3): [
        ("1 / 3 if central else 1 / 2", "1 / 2"),
        ("1 / 3 if central else 1 / 2", "1 / 2 if central else 1 / 3"),
    ],
    (3, 1): [
        ("padded[:, :, kh : kh + H, kw : kw + W]", "padded[:, :, 2 - kh : 2 - kh + H, 2 - kw : 2 - kw + W]"),
        ("dw[:, :, kh, kw] =", "dw[:, :, kw, kh] ="),
    ],
    (3, 2): [
        ("w[:, :, 2 - kh, 2 - kw]", "w[:, :, kh, kw]"),
        ("w[:, :, 2 - kh, 2 - kw]", "w[:, :, 2 - kh, kw]"),
    ],
    (3, 3): [
        (
            ("        field += (kernel - 1) * distance\n        distance *= stride"),
            ("        distance *= stride\n        field += (kernel - 1) * distance"),
        ),
        ("        distance *= stride", "        distance += stride - 1"),
    ],
    (4, 1): [
        ("    return r * (dy - y * (dy * y).mean(axis=1, keepdims=True))", "    return r * dy"),
        ("(dy - y *", "(dy - dy.mean(axis=1, keepdims=True) - y *"),
    ],
    (4, 2): [
        ("x[:, 0::2] >= x[:, 1::2]", "x[:, 0::2] > x[:, 1::2]"),
        ("np.where(first, 0.0, dy)", "np.where(x[:, 1::2] >= x[:, 0::2], dy, 0.0)"),
    ],
    (4, 3): [
        (
            (
                "        mean = (1 - momentum) * mean + momentum * x.mean(axis=(0, 2, 3))\n"
                "        var = (1 - momentum) * var + momentum * x.var(axis=(0, 2, 3), ddof=1)"
            ),
            (
                "        mean = momentum * mean + (1 - momentum) * x.mean(axis=(0, 2, 3))\n"
                "        var = momentum * var + (1 - momentum) * x.var(axis=(0, 2, 3), ddof=1)"
            ),
        ),
        (", ddof=1)", ")"),
    ],
    (5, 1): [
        ("dw += (inside * a).sum()", "dw = (inside * a).sum()"),
        ("dx += dy", "dx = dy"),
        ("(inside * a).sum()", "(inside * x).sum()"),
    ],
    (5, 2): [
        (
            (
                "    norms = [BatchNorm2d(channels) for _ in range(steps + 1)]\n"
                "    for norm in norms[1:]:\n"
                "        norm.weight, norm.bias = norms[0].weight, norms[0].bias\n"
                "    return norms"
            ),
            "    return [BatchNorm2d(channels)] * (steps + 1)",
        ),
        (("    for norm in norms[1:]:\n        norm.weight, norm.bias = norms[0].weight, norms[0].bias"), ""),
        ("range(steps + 1)", "range(steps)"),
    ],
    (5, 3): [
        ("dy + jacobian.T @ dy", "jacobian.T @ dy"),
        ("reversed(jacobians)", "jacobians"),
        ("jacobian.T @", "jacobian @"),
    ],
    (6, 1): [
        ("return u, s", "return s, u"),
        ("return u, s", "return 2 * s, 2 * u"),
    ],
    (6, 2): [
        ("/ len(p)", ""),
        ("-(2.0 * t - dice)", "(2.0 * t - dice)"),
        ("-(2.0 * t - dice)", "-2.0 * t"),
    ],
    (6, 3): [
        (
            "    return (np.maximum(x, 0.0) - x * t + np.log1p(np.exp(-np.abs(x)))).mean()",
            (
                "    p = 1.0 / (1.0 + np.exp(-x))\n"
                "    return (-t * np.log(p) - (1.0 - t) * np.log(1.0 - p)).mean()"
            ),
        ),
        ("np.exp(-np.abs(x))", "np.exp(-x)"),
        (
            "    return (np.maximum(x, 0.0) - x * t + np.log1p(np.exp(-np.abs(x)))).mean()",
            (
                "    p = np.clip(1.0 / (1.0 + np.exp(-x)), 1e-12, 1.0 - 1e-12)\n"
                "    return (-t * np.log(p) - (1.0 - t) * np.log(1.0 - p)).mean()"
            ),
        ),
    ],
    (7, 1): [
        ("    mean, square = m / (1 - b1**t), v / (1 - b2**t)", "    mean, square = m, v"),
        ("v / (1 - b2**t)", "v / (1 - b1**t)"),
        ("b1**t), v", "b1), v"),
    ],
    (7, 2): [
        ("(step + 1) / (warmup + 1)", "step / max(warmup, 1)"),
        ("(step - warmup) / (total - warmup)", "step / total"),
    ],
    (7, 3): [
        (
            (
                "    horizontally, vertically = rng.random(2) < 0.5\n"
                "    if horizontally:\n"
                "        image, mask = image[:, ::-1], mask[:, ::-1]\n"
                "    if vertically:\n"
                "        image, mask = image[::-1], mask[::-1]\n"
                "    return image, mask"
            ),
            (
                "    changed = []\n"
                "    for array in (image, mask):\n"
                "        horizontally, vertically = rng.random(2) < 0.5\n"
                "        if horizontally:\n"
                "            array = array[:, ::-1]\n"
                "        if vertically:\n"
                "            array = array[::-1]\n"
                "        changed.append(array)\n"
                "    return changed[0], changed[1]"
            ),
        ),
        ("horizontally, vertically = rng.random(2) < 0.5", "horizontally = vertically = rng.random() < 0.5"),
        ("return image, mask", "return image[:, :, ::-1], mask"),
        ("return image, mask", "return image, mask[::-1, ::-1]"),
        (
            "return image, mask",
            "return (np.full_like(a, horizontally + 2 * vertically) for a in (image, mask))",
        ),
    ],
    (8, 1): [
        ("if total else 1.0", "if total else 0.0"),
        (" if total else 1.0", ""),
        ("2 * (prediction & truth)", "(prediction & truth)"),
    ],
    (8, 2): [
        (
            "    means = a[chosen].mean(axis=1) - b[chosen].mean(axis=1)",
            (
                "    others = rng.integers(0, len(b), size)\n"
                "    means = a[chosen].mean(axis=1) - b[others].mean(axis=1)"
            ),
        ),
        ("(0.025, 0.975)", "(0.25, 0.75)"),
    ],
    (8, 3): [
        ("(nothing, small)", "(small, small)"),
        ("4 * [", "1 * ["),
    ],
    (9, 1): [
        (" + 0.5 * (difference == 0)", ""),
        ("0.5 * (difference == 0)", "(difference == 0)"),
        (
            "scores[malignant][:, None] - scores[~malignant]",
            "scores[~malignant][:, None] - scores[malignant]",
        ),
    ],
    (9, 2): [
        ("z = logits / t", "z = logits * t"),
        ("        z = z - z.max(axis=1, keepdims=True)", ""),
        ("return -log_p", "return log_p"),
    ],
    (9, 3): [
        ("p / weights", "p * weights"),
        ("q / q.sum(axis=1, keepdims=True)", "q"),
    ],
    (10, 1): [
        ("((c * KH + kh) * KW + kw)", "((c * KW + kw) * KH + kh)"),
        ("* N * OH * OW + window", "* OH * OW + window"),
    ],
    (10, 2): [
        (
            (
                "            if (i < size) y[i] = x[i] > T(0) ? x[i] : slope * x[i];\n"
                "        }\n"
                "\n"
                '        extern "C" __global__ void leaky_relu_backward(\n'
                "            const T* dy, const T* x, T* dx, T slope, int size)\n"
                "        {\n"
                "            int i = blockIdx.x * blockDim.x + threadIdx.x;\n"
                "            if (i < size) dx[i] = x[i] > T(0) ? dy[i] : slope * dy[i];"
            ),
            (
                "            // y[i] = ...\n"
                "        }\n"
                "\n"
                '        extern "C" __global__ void leaky_relu_backward(\n'
                "            const T* dy, const T* x, T* dx, T slope, int size)\n"
                "        {\n"
                "            // dx[i] = ..."
            ),
        ),
        ("if (i < size) y[i]", "y[i]"),
        ("y[i] = x[i] > T(0) ? x[i] : slope * x[i]", "y[i] = fmax(x[i], T(0)) + slope * fmin(x[i], T(0))"),
        ("dx[i] = x[i] > T(0)", "dx[i] = dy[i] > T(0)"),
    ],
    (10, 3): [
        ("offset = 16; offset > 0; offset /= 2", "offset = 1; offset < 16; offset *= 2"),
        ("sum += __shfl", "sum = __shfl"),
        ("T sum = 0;", "float sum = 0;"),
        ("i += 32", "i += size"),
    ],
    (11, 1): [
        ("* 4 /", "* 2 /"),
        ("* 4 /", "* 8 /"),
        ("math.ceil", "int"),
    ],
    (11, 2): [
        ("part / left if left > 0 else math.inf", "part / left if left else math.inf"),
        ("part / left if left > 0 else math.inf", "target * whole / part"),
    ],
    (11, 3): [
        ("        end = max(end, (k + 1) * launch) + seconds", "        end += max(launch, seconds)"),
        ("    return end", "    return max(sum(kernels), len(kernels) * launch)"),
        ("(k + 1) * launch", "k * launch"),
    ],
    (12, 1): [
        (
            "sum(n / sum(counts) * g for n, g in zip(counts, gradients, strict=True))",
            "sum(gradients) / len(gradients)",
        ),
        ("n / sum(counts) * g", "n * g"),
    ],
    (12, 2): [
        ("(variances + (means - mean) ** 2)", "variances"),
        ("(counts / counts.sum())[:, None]", "1 / len(counts)"),
        (
            "(share * (variances + (means - mean) ** 2)).sum(axis=0)",
            "(share * (variances + means**2)).sum(axis=0) - mean.astype(np.float32) ** 2",
        ),
    ],
    (12, 3): [
        (
            ("    for _ in parts:\n        order = list(range(len(parts)))"),
            (
                "    for rank in range(len(parts)):\n"
                "        order = [rank, *(other for other in range(len(parts)) if other != rank)]"
            ),
        ),
        (
            ("    for _ in parts:\n        order = list(range(len(parts)))"),
            (
                "    for rank in range(len(parts)):\n"
                "        order = [(rank + i) % len(parts) for i in range(len(parts))]"
            ),
        ),
    ],
}

# (chapter, exercise): a piece of the solution, and the same written so that it changes the function's inputs
IN_PLACE = {
    (5, 3): ("dy = dy + jacobian.T @ dy", "dy += jacobian.T @ dy"),
    (7, 1): (
        (
            "    m = b1 * m + (1 - b1) * g\n"
            "    v = b2 * v + (1 - b2) * g * g\n"
            "    # M and v start at zero, so they are too small by 1 - b^t.\n"
            "    mean, square = m / (1 - b1**t), v / (1 - b2**t)\n"
            "    return p - lr * mean / (np.sqrt(square) + eps), m, v"
        ),
        (
            "    m *= b1\n"
            "    m += (1 - b1) * g\n"
            "    v *= b2\n"
            "    v += (1 - b2) * g * g\n"
            "    p -= lr * m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)\n"
            "    return p, m, v"
        ),
    ),
}

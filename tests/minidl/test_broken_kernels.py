"""Mutation tests: typical mistakes are introduced into each kernel, and every mistake is detected.

`broken_kernels.py` lists the mistakes. For each mistake, an operation runs on the broken kernels, with its
threads in three orders. Its results must differ from NumPy's, or it must raise an error; with the correct
kernels they must agree. `python tests/minidl/test_broken_kernels.py` prints how each mistake is detected.
"""

import contextlib
import functools
import importlib
import os
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from broken_kernels import BROKEN

from minidl import Parameter, average, backend, cuda_on_cpu, ema, graph, nn, ops, optim
from minidl.backend import to_device, to_numpy
from minidl.cuda_on_cpu import compiler
from minidl.gradcheck import by
from minidl.gradcheck_cases import function_cases
from minidl.ops.conv import columns, im2col, implicit_gemm, parts, pointwise, strips
from minidl.ops.loss import cross_entropy, dice, softmax
from minidl.ops.norm import fused_cuda, group_cuda
from minidl.tensor import Tensor
from tests.minidl import image_cases

MINIDL = Path(cuda_on_cpu.__file__).parents[1]
FUNCTION = re.compile(r'^(?:extern "C" __global__|__device__) [^(]*\b(\w+)\(', re.MULTILINE)
ORDERS = ("forward", "reverse", "shuffled")
ROWS = [(*place, mistake) for place, mistakes in BROKEN.items() for mistake in mistakes]

# With these settings a few hundred numbers fill several pieces, each with more numbers than threads, and
# several warps. Most of the time is spent in g++, so it compiles with less optimisation.
SETTINGS = {
    (compiler, "COMMON"): [flag.replace("-O2", "-Og") for flag in compiler.COMMON],
    (implicit_gemm, "PIECE_PIXELS"): 200,
    (im2col, "THREADS"): 32,
    (im2col, "PIXELS"): 2,
    (strips, "BLOCKS"): 4,  # for several rows of patches, so that the strips have 2 pixels or 4
    (columns, "SEGMENT"): 12,
    (columns, "BLOCKS"): 12,
    (pointwise, "BLOCKS"): 60,
    (pointwise, "PIECE_PIXELS"): 150,
    (parts, "ROWS"): 4,
    (cross_entropy, "BLOCK"): 64,
    (cross_entropy, "BLOCKS"): 70,
    (dice, "BLOCK"): 64,
    (dice, "IMAGE_BLOCKS"): 2,
    (softmax, "BLOCK"): 64,
    (fused_cuda, "THREADS"): 64,
    (fused_cuda, "PIXELS"): 2,
    (group_cuda, "THREADS"): 64,
    (optim, "BLOCKS"): 2,
}


def further_cases(rng, device):
    """Operations on shapes that fill more than one block, tile or chunk, and on special numbers."""
    image, kernel = rng.normal(size=(3, 9, 13, 11)), rng.normal(size=(10, 9, 3, 3))
    tall = rng.normal(size=(4, 9, 3, 2))
    wide, rotated, bias = rng.normal(size=(2, 5, 15, 35)), rng.normal(size=(9, 5, 3, 3)), rng.normal(size=9)
    small_rows, doubling = rng.normal(size=(2, 9, 13, 32)), rng.normal(size=(9, 10, 3, 3))
    pixels, mixing = rng.normal(size=(2, 10, 19, 17)), rng.normal(size=(9, 10, 1, 1))
    masks = [
        rng.integers(0, 2, shape).astype(float) for shape in ((7, 1, 40, 17), (3, 1, 20, 13), (70, 1, 2, 3))
    ]
    many, large, small = (Tensor(to_device(mask, device)) for mask in masks)
    classes = Tensor(to_device(rng.random((150, 3)), device))
    no_class = Tensor(to_device(np.zeros((4, 3)), device))

    def pooled(x):
        return ops.max_pool2d(x, (2, 3), stride=(1, 2))

    return {
        "Conv2d, many channels": (
            by("implicit GEMM", lambda x, w: ops.conv2d(x, w, padding=1)),
            [image, kernel],
        ),
        "Conv2d, 3x3": (lambda x, w, b: ops.conv2d(x, w, b, padding=(0, 1)), [wide, rotated, bias]),
        "ConvTranspose2d, doubled": (
            lambda x, w, b: ops.conv_transpose2d(x, w, b, stride=2, padding=(1, 0)),
            [small_rows, doubling, rng.normal(size=10)],
        ),
        "Conv2d, 1x1, larger": (ops.conv2d, [pixels, mixing, rng.normal(size=9)]),
        "Conv2d, many channels, by im2col": (
            by("im2col", lambda x, w: ops.conv2d(x, w, padding=1)),
            [image, kernel],
        ),
        "Conv2d, by im2col": (by("im2col", lambda x, w: ops.conv2d(x, w, padding=(1, 0))), [image[:2], tall]),
        "ConvTranspose2d, by im2col": (
            by("im2col", lambda x, w: ops.conv_transpose2d(x, w, stride=2)),
            [image[:2, :, :7, :6], kernel[:9, :4]],
        ),
        "ReLU, two blocks": (ops.relu, [rng.normal(size=300)]),
        "ReLU, NaN": (ops.relu, [np.array([1.0, np.nan])]),
        "MaxPool2d, several tiles": (pooled, [rng.normal(size=(1, 2, 12, 70))]),
        "MaxPool2d, equal pixels": (pooled, [rng.integers(0, 3, (1, 2, 7, 6)).astype(float)]),
        "MaxPool2d, 2x2": (ops.max_pool2d, [rng.integers(0, 3, (4, 3, 14, 32)).astype(float)]),
        "BatchNorm, large images": (
            lambda x, weight, bias: ops.batch_norm(x, weight, bias)[0],
            [rng.normal(size=(22, 2, 18, 16)), rng.normal(size=2), rng.normal(size=2)],
        ),
        "BinaryCrossEntropyWithLogits, many numbers": (
            lambda x: ops.binary_cross_entropy_with_logits(x, many),
            [rng.normal(size=many.shape)],
        ),
        "SoftDiceLoss, large images": (
            lambda x: ops.soft_dice_loss(x, large),
            [rng.normal(size=large.shape)],
        ),
        "SoftDiceLoss, many images": (lambda x: ops.soft_dice_loss(x, small), [rng.normal(size=small.shape)]),
        "SoftmaxCrossEntropy, many images": (
            lambda x: ops.softmax_cross_entropy(x, classes, gamma=1.5),
            [2.0 * rng.normal(size=classes.shape)],
        ),
        "SoftmaxCrossEntropy, no class": (
            lambda x: ops.softmax_cross_entropy(x, no_class),
            [rng.normal(size=no_class.shape)],
        ),
        "SoftmaxCrossEntropy, large logits": (
            lambda x: ops.softmax_cross_entropy(x, no_class + 1.0, gamma=2.0),
            [1000.0 * rng.normal(size=no_class.shape)],
        ),
        "GroupNorm, large images": (
            lambda x, weight, bias: ops.group_norm(x, 3, weight, bias),
            [rng.normal(size=(2, 6, 18, 16)), rng.normal(size=6), rng.normal(size=6)],
        ),
    }


def value_and_gradients(case, device):
    """Return the result of an operation and its gradients."""
    rng = np.random.default_rng(0)
    f, arrays = {**function_cases(rng, device), **further_cases(rng, device)}[case]
    inputs = [Tensor(to_device(a, device), requires_grad=True) for a in arrays]
    y = f(*inputs)
    cotangent = np.random.default_rng(1).normal(size=y.shape)
    y.backward(to_device(cotangent, device))
    return [y.data, *(x.grad for x in inputs)]


def parameters_with_gradients(rng, device):
    """Return parameters whose total size is not a multiple of the block size."""
    parameters = [
        Parameter(to_device(rng.normal(size=shape), device)) for shape in ((3,), (7, 5), (), (1000,))
    ]
    for p in parameters:
        p.grad = to_device(rng.normal(size=p.shape), device)
    return parameters


def trained(optimizer, device):
    """Return the parameters after three steps; in each step a different parameter has no gradient."""
    rng = np.random.default_rng(0)
    parameters = parameters_with_gradients(rng, device)
    optimizer = optimizer(parameters, lr=0.1, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.2)
    for without in range(3):
        for p in parameters:
            p.grad = to_device(rng.normal(size=p.shape), device)
        parameters[without].grad = None
        optimizer.step()
    return [p.data for p in parameters]


def clipped(device):
    """Return gradients after clipping, once with a norm above the limit and once below it."""
    found = []
    for max_norm in (1.0, 1000.0):
        parameters = parameters_with_gradients(np.random.default_rng(0), device)
        norm = optim.clip_grad_norm(parameters, max_norm)
        found += [norm, *(p.grad for p in parameters)]
    return found


def pooled_with_a_nan(device):
    """Return maxima of windows, some with a NaN; which of its pixels receives the gradient is unspecified."""
    image = np.arange(16.0).reshape(1, 1, 4, 4)
    image[0, 0, 2, 1] = np.nan
    x = Tensor(to_device(image, device))
    return [ops.max_pool2d(x).data, ops.max_pool2d(x, stride=1).data]


def averaged(device):
    """Return one step of a running average."""
    u, v = (to_device(a, device) for a in np.random.default_rng(0).normal(size=(2, 300)))
    return [average.weighted_sum(0.9, u, 0.1, v)]


def moving_average(device):
    """Return a moving average of arrays that fill two blocks, after two steps."""
    rng = np.random.default_rng(0)
    module = nn.Module()
    module.weights = [nn.Linear(20, 15, rng=rng).to(np.float64).to(device) for _ in range(2)]
    average = ema.EMA(module)
    for p in module.parameters():
        p.data = to_device(rng.normal(size=p.shape), device)
    for _ in range(2):
        average.update()
    return list(average.average.values())


def replaced_by_a_graph(device):
    """Return parameters that fill two blocks after four steps, each of which replaces them by new arrays."""
    parameters = [Parameter(to_device(a, device)) for a in (np.arange(300.0), np.arange(2.0), np.arange(7.0))]

    def work(x):
        for k, p in enumerate(parameters):
            p.data = p.data * 2.0 + k * x
        return (x * 1.0,)

    step = work if device == "cpu" else graph.GraphedStep(work, parameters, device)
    for i in range(4):
        step(to_device(np.ones(()) + i, device))
    return [p.data for p in parameters]


CASES = {
    "affine_sample": image_cases.sampled,
    "recolour": image_cases.recoloured,
    "gaussian_blur": image_cases.blurred,
    "round_window": image_cases.windowed,
    "EMA": moving_average,
    "GraphedStep": replaced_by_a_graph,
    "Adam": functools.partial(trained, optim.Adam),
    "AdamW": functools.partial(trained, optim.AdamW),
    "clip_grad_norm": clipped,
    "MaxPool2d, NaN": pooled_with_a_nan,
    "weighted_sum": averaged,
}


def results(case, device):
    """Return the results of a case on a device, as NumPy arrays."""
    run = CASES.get(case) or functools.partial(value_and_gradients, case)
    return [to_numpy(np.float64(a) if isinstance(a, float) else a) for a in run(device)]


def difference(case):
    """Return how the kernels differ from NumPy in one of the thread orders, or None if they agree."""
    expected = results(case, "cpu")
    for order in ORDERS:
        try:
            with cuda_on_cpu.thread_order(order):
                found = results(case, "cuda-on-cpu")
        except cuda_on_cpu.KernelError as error:
            return str(error).splitlines()[0]
        for a, e in zip((f.astype(float) for f in found), expected, strict=True):
            if not np.array_equal(np.isnan(a), np.isnan(e)):
                return "NaN" if np.isnan(a).any() else "a number instead of NaN"
            if np.nanmax(np.abs(a - e)) > 1e-11 * np.nanmax(np.abs(e)):
                return "wrong value"
    return None


@contextlib.contextmanager
def source_replaced(file, broken):
    """Replace a file of kernels, such as "ops/pool.cu" or "common.cuh", by another file."""
    with pytest.MonkeyPatch.context() as patch:
        if file == "common.cuh":
            patch.setattr(backend.kernels, "COMMON", broken)
        else:
            module = importlib.import_module("minidl." + file.removesuffix(".cu").replace("/", "."))
            patch.setattr(module.kernels, "source", broken)
        yield


def break_function(text, function, right, wrong):
    """Return the text of a file with a mistake in one function."""
    body = re.search(rf"\b{function}\([^)]*\)\s*{{.*?\n}}", text, re.DOTALL)[0]
    assert body.count(right) == 1, (
        f"{function} has {right!r} {body.count(right)} times: update broken_kernels.py"
    )
    return text.replace(body, body.replace(right, wrong))


@contextlib.contextmanager
def settings():
    """Make small arrays use the code paths of large ones, and g++ compile faster."""
    with pytest.MonkeyPatch.context() as patch:
        for (module, name), value in SETTINGS.items():
            patch.setattr(module, name, value)
        yield


def difference_when_broken(row, folder):
    """Return how a mistake is detected, or None; `folder` receives the broken file."""
    file, function, case, mistake = row
    source = MINIDL / file
    broken = folder / source.name
    text = source.read_text(encoding="utf-8")
    broken.write_text(break_function(text, function, *BROKEN[row[:3]][mistake]), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch, source_replaced(file, broken):
        patch.setenv("XDG_CACHE_HOME", str(folder.parent))  # a temporary cache: this is compiled only once
        # g++ must accept the file: a mistake that does not compile would prove nothing
        cuda_on_cpu.load(broken, "float64", None if file == "common.cuh" else backend.COMMON)
        return difference(case)


@pytest.fixture(autouse=True)
def emulator():
    """Skip if the emulator does not work here; in continuous integration (CI) a missing g++ is a failure."""
    if reason := cuda_on_cpu.problem():
        assert not os.environ.get("CI"), reason
        pytest.skip(reason)


@pytest.fixture(autouse=True)
def small_sizes():
    with settings():
        yield


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[1]}: {row[3]}")
def test_a_mistake_is_detected(row, tmp_path):
    assert difference_when_broken(row, tmp_path)


@pytest.mark.parametrize("case", sorted({case for _, _, case in BROKEN}))
def test_the_correct_kernels_agree_with_numpy(case):
    assert difference(case) is None


@pytest.mark.parametrize("case", sorted({case for _, _, case in BROKEN}))
def test_the_correct_kernels_give_the_same_bits_in_every_thread_order(case):
    """No result depends on which thread is faster: there are no atomic additions, and sums have one order."""
    runs = []
    for order in ORDERS:
        with cuda_on_cpu.thread_order(order):
            runs.append(results(case, "cuda-on-cpu"))
    for run in runs[1:]:
        for a, b in zip(runs[0], run, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("source", sorted(MINIDL.rglob("*.cu*")), ids=lambda source: source.name)
def test_every_function_has_a_mistake(source):
    functions = set(FUNCTION.findall(source.read_text(encoding="utf-8")))
    file = source.relative_to(MINIDL).as_posix()
    broken = {function for f, function, _ in BROKEN if f == file}
    assert functions <= broken, (
        f"{file}: nothing breaks {sorted(functions - broken)}; add typical mistakes to BROKEN in "
        f'tests/minidl/broken_kernels.py, under ("{file}", FUNCTION, CASE), and the case that detects them, '
        "if function_cases has none, to further_cases in this file"
    )
    assert broken <= functions, (
        f"{file} has no {sorted(broken - functions)}; remove or rename these rows of "
        "tests/minidl/broken_kernels.py"
    )


def table():
    """Yield the lines of a Markdown table of all mistakes, and how each is detected."""
    yield "| kernel file | mistake | detected by |"
    yield "|---|---|---|"
    with tempfile.TemporaryDirectory() as folder, settings():
        for i, row in enumerate(ROWS):
            here = Path(folder) / str(i)
            here.mkdir()
            file, function, _, mistake = row
            detection = difference_when_broken(row, here) or "**nothing**"
            yield f"| `{file}` | `{function}`: {mistake} | {detection} |"


if __name__ == "__main__":
    for line in table():
        print(line, flush=True)

"""Every faster implementation of an operation agrees with its definition, forward and backward.

The cases are those of the gradient checks, and larger cases that fill several blocks, pieces or bands.
"""

import subprocess
import sys
from functools import cache

import numpy as np
import pytest

from minidl import Parameter, Tensor, ops
from minidl.average import add_weighted, weighted_sum
from minidl.backend import DEVICES, contiguous, problem_of, to_device, to_numpy
from minidl.ema import EMA, average_all
from minidl.gradcheck import by, implementation_of
from minidl.gradcheck_cases import function_cases
from minidl.images import box_blur, darken, recolour_all, sample_bilinear
from minidl.implementation import choose, implementation, implementations, name_of
from minidl.nn import Module
from minidl.operations import every_function, outside_the_graph, table
from minidl.ops.activation import ReLU, ReLUKernels
from minidl.ops.conv import Conv2d, ConvTranspose2d, convolution
from minidl.ops.elementwise import Add
from minidl.ops.norm.group import GroupNorm
from minidl.optim import SGD, Adam, AdamW, clip_grad_norm, scale_gradients, update_all
from r2unet.network.model import R2UNet
from tests.minidl import image_cases


def larger_cases(rng, device):
    """Operations on arrays of several blocks, pieces and bands, by the name of the Function."""
    image, g, b = 2.0 + rng.normal(size=(3, 5, 40, 61)), rng.normal(size=5), rng.normal(size=5)
    large = rng.normal(size=(2, 3, 60, 80))  # more pixels than a band of rows
    kernel, back = rng.normal(size=(33, 3, 3, 3)), rng.normal(size=(3, 33, 3, 3))  # more channels than a tile
    strided = {"stride": 2, "padding": 1}
    target = Tensor(to_device(rng.integers(0, 2, (3, 1, 40, 61)).astype(float), device))
    many = Tensor(to_device(rng.integers(0, 2, (300, 900)).astype(float), device))  # images; 270,000 pixels
    logits = 3.0 * rng.normal(size=target.shape)
    rows = rng.random((700, 9)) * (rng.random((700, 1)) > 0.2)  # some images have no class
    classes = Tensor(to_device(rows, device))
    class_logits = 3.0 * rng.normal(size=classes.shape)
    statistics = tuple(to_device(v, device) for v in (rng.normal(size=5), rng.uniform(0.5, 2.0, 5)))
    bce, dice = ops.binary_cross_entropy_with_logits, ops.soft_dice_loss
    return {
        "ReLU, larger": (ops.relu, [image]),
        "Sigmoid, larger": (ops.sigmoid, [image]),
        "MaxPool2d, larger": (lambda x: ops.max_pool2d(x, 3, 2, 1), [image]),
        "MaxPool2d, larger, 2x2": (ops.max_pool2d, [image[:, :, :40, :60]]),
        "UpsampleNearest, larger": (ops.upsample_nearest, [image]),
        "Conv2d, larger": (lambda x, w: ops.conv2d(x, w, padding=1), [large, kernel]),
        "Conv2d, larger, 1x1": (ops.conv2d, [large, kernel[:, :, :1, :1], kernel[:, 0, 0, 0]]),
        "Conv2d, larger, stride 2": (lambda x, w: ops.conv2d(x, w, **strided), [large, kernel]),
        "ConvTranspose2d, larger": (lambda x, w: ops.conv_transpose2d(x, w, padding=1), [large, back]),
        "ConvTranspose2d, larger, 1x1": (ops.conv_transpose2d, [large, back[:, :, :1, :1]]),
        "ConvTranspose2d, larger, stride 2": (
            lambda x, w: ops.conv_transpose2d(x, w, output_padding=1, **strided),
            [large, back],
        ),
        "BatchNorm, larger": (lambda *t: ops.batch_norm(*t, relu=True)[0], [image, g, b]),
        "BatchNormInference, larger": (lambda *t: ops.batch_norm(*t, statistics)[0], [image, g, b]),
        "GroupNorm, larger": (
            lambda *t: ops.group_norm(t[0], 3, *t[1:]),
            [2.0 + rng.normal(size=(2, 6, 40, 61)), rng.normal(size=6), rng.normal(size=6)],
        ),
        "BinaryCrossEntropyWithLogits, larger": (lambda x: bce(x, target), [logits]),
        "BinaryCrossEntropyWithLogits, many": (lambda x: bce(x, many), [rng.normal(size=many.shape)]),
        "SoftDiceLoss, larger": (lambda x: dice(x, target), [logits]),
        "SoftDiceLoss, many": (lambda x: dice(x, many), [rng.normal(size=many.shape)]),
        "SoftmaxCrossEntropy, larger": (lambda x: ops.softmax_cross_entropy(x, classes), [class_logits]),
        "SoftmaxCrossEntropy, larger, focal": (
            lambda x: ops.softmax_cross_entropy(x, classes, gamma=2.0),
            [class_logits],
        ),
    }


@cache
def all_cases(device):
    """Return all cases, with the same random numbers for every device."""
    rng = np.random.default_rng(0)
    return {**function_cases(rng, device), **larger_cases(rng, device)}


# Each case with each implementation that can compute it.
PAIRS = [
    (device, case, name)
    for kind in sorted(every_function(), key=lambda kind: kind.__name__)
    for device in DEVICES
    for name in implementations(kind, device)
    for case in all_cases("cpu")
    if case.partition(",")[0] == kind.__name__
]


def value_and_gradients(f, arrays, device):
    """Return y and dL/dx for every input, as NumPy arrays, for a random cotangent."""
    inputs = [Tensor(to_device(a, device), requires_grad=True) for a in arrays]
    y = f(*inputs)
    cotangent = np.random.default_rng(1).normal(size=y.shape)
    y.backward(to_device(cotangent, device))
    return [y.numpy(), *(to_numpy(x.grad) for x in inputs)]


@pytest.mark.parametrize("device, case, name", PAIRS, ids=map(" / ".join, PAIRS))
def test_an_implementation_agrees_with_the_definition(device, case, name):
    if problem := problem_of(device):
        pytest.skip(problem)
    f, arrays = all_cases(device)[case]
    fast = by(name, f)
    if implementation_of(fast, arrays, device) != name:
        pytest.skip(f"{name} cannot compute this case; its definition does")
    definition = value_and_gradients(by("definition", all_cases("cpu")[case][0]), arrays, "cpu")
    for found, expected in zip(value_and_gradients(fast, arrays, device), definition, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("case", all_cases("cpu"))
def test_the_definition_gives_the_same_result_on_every_device(case, device):
    f, arrays = all_cases(device)[case]
    expected = value_and_gradients(by("definition", all_cases("cpu")[case][0]), arrays, "cpu")
    for a, b in zip(value_and_gradients(by("definition", f), arrays, device), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * max(1.0, np.abs(b).max()))


@pytest.mark.parametrize(
    "kind, device, name",
    sorted({(case.partition(",")[0], device, name) for device, case, name in PAIRS}),
    ids=str,
)
def test_every_implementation_computes_at_least_one_case(kind, device, name):
    if problem := problem_of(device):
        pytest.skip(problem)
    cases = {case: f for case, f in all_cases(device).items() if case.partition(",")[0] == kind}
    assert any(implementation_of(by(name, f), arrays, device) == name for f, arrays in cases.values())


def gradients_and_parameters(device):
    """Return parameters of several blocks of threads with random gradients."""
    rng = np.random.default_rng(0)
    shapes = (3,), (70, 50), (2, 3, 3, 3)
    parameters = [Parameter(to_device(rng.normal(size=shape), device)) for shape in shapes]
    for p in parameters:
        p.grad = to_device(rng.normal(size=p.shape), device)
    return parameters


def two_steps(device):
    """Return the parameters after two steps of AdamW."""
    parameters = gradients_and_parameters(device)
    optimizer = AdamW(parameters, lr=0.1)
    for _ in range(2):
        optimizer.step()
    return [p.data for p in parameters]


def clipped(device):
    """Return the norm of the gradients before they were clipped, and the gradients after it."""
    parameters = gradients_and_parameters(device)
    norm = clip_grad_norm(parameters, 1.0)
    return [np.asarray(float(norm)), *(p.grad for p in parameters)]


def averaged(device):
    """Return a weighted sum of two arrays."""
    u, v = np.random.default_rng(0).normal(size=(2, 700))
    return [weighted_sum(0.9, to_device(u, device), 0.2, to_device(v, device))]


def moving_average(device):
    """Return the moving average of parameters of several blocks of threads, after two steps."""
    module = Module()
    module.weights = gradients_and_parameters(device)
    module.first, module.second, module.third = module.weights
    ema = EMA(module, 0.9)
    for p in module.weights:
        p.data = p.data + p.grad
    for _ in range(2):
        ema.update()
    return list(ema.average.values())


# What runs each plain function, an operation that is not differentiated.
PLAIN = {
    add_weighted: averaged,
    update_all: two_steps,
    scale_gradients: clipped,
    sample_bilinear: image_cases.sampled,
    recolour_all: image_cases.recoloured,
    box_blur: image_cases.blurred,
    darken: image_cases.windowed,
    average_all: moving_average,
}


def test_every_plain_function_is_compared():
    assert PLAIN.keys() == set(outside_the_graph())


@pytest.mark.parametrize("function", PLAIN, ids=lambda function: function.__name__)
def test_an_implementation_of_a_plain_function_agrees_with_its_definition(function, device):
    run = PLAIN[function]
    with implementation("definition"):
        expected = run("cpu")
    for name in ("definition", *implementations(function, device)):
        with implementation(name):
            found = run(device)
        for a, b in zip(found, expected, strict=True):
            # A GPU computes a b + c with one rounding, and so may round to the next of 256 levels.
            levels = 1 if device == "cuda" and b.dtype == np.uint8 else 0
            np.testing.assert_allclose(to_numpy(a).astype(float), b, rtol=1e-12, atol=1e-15 + levels)


def operations(y):
    """Yield (operation, implementation) of every Function in the graph of a tensor."""
    pending, seen = [y.creator], set()
    while pending:
        function = pending.pop()
        if function is None or function in seen:
            continue
        seen.add(function)
        yield function.operation(), function.implementation
        pending += [x.creator for x in function.inputs]


def test_a_network_can_run_on_definitions_only(device, put):
    network = R2UNet(widths=(2, 3), steps=1, rng=np.random.default_rng(0)).to(np.float64).to(device)
    image = Tensor(put(np.random.default_rng(1).normal(size=(2, 3, 8, 8))))
    with implementation("definition"):
        slow = network(image)
    assert {name for _, name in operations(slow)} == {"definition"}
    fast = network(image)
    kernels = {"strips", "phases", "pointwise", "kernels"}
    expected = {"rows", "fused", "running maximum"} if device == "cpu" else kernels
    assert {name for _, name in operations(fast)} == {"definition", *expected}
    np.testing.assert_allclose(fast.numpy(), slow.numpy(), rtol=1e-9, atol=1e-11)


class TestTheChoice:
    def test_is_the_first_implementation_that_can_compute_the_arguments(self):
        assert choose(ReLU, "cuda") is ReLUKernels and choose(ReLU, "cpu") is ReLU
        narrow, wide, one = (64, 128, 3, 3), (129, 64, 3, 3), (1, 1)
        assert name_of(choose(Conv2d, "cpu", narrow, one, one)) == "rows"
        assert name_of(choose(Conv2d, "cpu", narrow, (2, 2), one)) == "definition"
        assert name_of(choose(Conv2d, "cpu", narrow, one, (3, 3))) == "definition"
        assert name_of(choose(Conv2d, "cuda", narrow, one, one)) == "strips"
        for name, arguments in {
            "phases": (narrow, (2, 2), one),
            "pointwise": ((96, 256, 1, 1), one, (0, 0)),
            "implicit GEMM": ((64, 128, 5, 5), one, (2, 2)),
        }.items():
            assert name_of(choose(Conv2d, "cuda", *arguments)) == name
            assert name_of(choose(ConvTranspose2d, "cuda", *arguments)) == name
        assert name_of(choose(Conv2d, "cuda", wide, one, one)) == "im2col"
        assert name_of(choose(ConvTranspose2d, "cuda", wide, (2, 2), one)) == "im2col"
        assert name_of(choose(Conv2d, "cuda", (96, 257, 1, 1), one, (0, 0))) == "im2col"

    def test_of_group_norm_is_by_kernels_for_any_number_of_groups(self):
        assert name_of(choose(GroupNorm, "cuda", (16384, 8, 2, 2), 4)) == "kernels"
        assert name_of(choose(GroupNorm, "cpu", (16384, 8, 2, 2), 4)) == "fused"

    def test_can_be_set_for_all_operations_or_for_some(self):
        arguments = (4, 4, 3, 3), (1, 1), (1, 1)
        with implementation("definition"):
            assert choose(ReLU, "cuda") is ReLU
            assert choose(scale_gradients, "cuda") is scale_gradients
            with implementation("rows", of=(Conv2d,)):
                assert name_of(choose(Conv2d, "cpu", *arguments)) == "rows"
                assert name_of(choose(ConvTranspose2d, "cpu", *arguments)) == "definition"
        assert choose(ReLU, "cuda") is ReLUKernels
        assert name_of(choose(scale_gradients, "cuda")) == "kernels"

    def test_inside_another_choice_replaces_it(self):
        arguments = (4, 4, 3, 3), (1, 1), (1, 1)
        with implementation("rows", of=(Conv2d,)):
            with implementation("definition"):
                assert choose(Conv2d, "cpu", *arguments) is Conv2d
            assert name_of(choose(Conv2d, "cpu", *arguments)) == "rows"
        with implementation("definition"), implementation("auto", of=(Conv2d,)):
            assert name_of(choose(Conv2d, "cpu", *arguments)) == "rows"
            assert name_of(choose(ConvTranspose2d, "cpu", *arguments)) == "definition"
        with implementation("definition"), implementation("auto"):
            assert choose(ReLU, "cuda") is ReLUKernels

    def test_of_the_step_of_adam_is_only_for_adam_s_formula(self):
        class Shrinking(Adam):
            def update(self, p, g, memory):
                p.data = 0.5 * p.data

        parameters = [Parameter(np.ones(2))]
        for optimizer in (Adam(parameters), AdamW(parameters)):
            assert name_of(choose(update_all, "cuda", optimizer)) == "kernels"
        for optimizer in (SGD(parameters, lr=0.1), Shrinking(parameters)):
            assert choose(update_all, "cuda", optimizer) is update_all

    def test_follows_the_convolution_method(self):
        wide = (129, 64, 3, 3), (1, 1), (1, 1)
        names = {
            (method, device): None for method in ("auto", "im2col", "direct") for device in ("cpu", "cuda")
        }
        for method, device in names:
            with convolution(method):
                names[method, device] = name_of(choose(Conv2d, device, *wide))
        assert names == {
            ("auto", "cpu"): "rows",
            ("auto", "cuda"): "im2col",
            ("im2col", "cpu"): "definition",  # the definition is im2col
            ("im2col", "cuda"): "im2col",
            ("direct", "cpu"): "rows",
            ("direct", "cuda"): "strips",
        }

    def test_by_the_method_auto_leaves_the_choice_of_an_outer_block(self):
        arguments = (4, 4, 3, 3), (1, 1), (1, 1)
        with implementation("definition"), convolution("auto"):
            assert choose(Conv2d, "cpu", *arguments) is Conv2d
        with convolution("im2col"), convolution("direct"):
            assert name_of(choose(Conv2d, "cpu", *arguments)) == "rows"

    def test_of_an_operation_without_implementations_is_an_error(self):
        for unknown in (Add, object, ReLUKernels):
            with (
                pytest.raises(ValueError, match="has only its definition"),
                implementation("rows", of=(unknown,)),
            ):
                pass

    def test_rejects_an_unknown_name_and_lists_the_known_ones(self):
        with (
            pytest.raises(ValueError, match="'fastest'; choose from auto, definition, "),
            implementation("fastest"),
        ):
            pass

    def test_ends_with_the_block_even_after_an_exception(self):
        with pytest.raises(RuntimeError), implementation("definition"):
            raise RuntimeError
        assert choose(ReLU, "cuda") is ReLUKernels


def test_an_implementation_has_the_name_of_its_operation():
    x = Tensor(np.ones((1, 1, 4, 4)), requires_grad=True)
    y = ops.conv2d(x, Tensor(np.ones((1, 1, 3, 3))))
    assert (y.creator.operation(), y.creator.implementation) == ("Conv2d", "rows")
    assert "from Conv2d" in repr(y)


def test_the_table_lists_every_operation_with_its_implementations():
    lines = table().splitlines()
    assert (
        "| Conv2d | minidl/ops/conv/definition.py | rows | strips, phases, pointwise, implicit GEMM, im2col |"
        in lines
    )
    assert "| ReLU | minidl/ops/activation.py | definition | kernels |" in lines
    assert "| update_all | minidl/optim.py | definition | kernels |" in lines
    assert {kind.__name__ for kind in every_function()} <= {line.split(" | ")[0][2:] for line in lines}


def test_the_table_knows_the_operations_of_every_module():
    """The gradient checks would lack the operations of a module that the table does not import."""
    program = """
import importlib, pkgutil, minidl
from minidl.operations import every_function
before = set(every_function())
for module in pkgutil.walk_packages(minidl.__path__, "minidl."):
    importlib.import_module(module.name)
print(set(every_function()) - before)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_arrays_that_are_not_contiguous_give_the_same_results(device, put, rng):
    x = rng.normal(size=(6, 7, 3, 2)).transpose(3, 2, 0, 1)
    for f in (ops.relu, ops.sigmoid, ops.max_pool2d, ops.upsample_nearest):
        expected = f(Tensor(put(np.ascontiguousarray(x)))).numpy()
        np.testing.assert_array_equal(f(Tensor(put(x))).numpy(), expected)
    assert contiguous(put(x)).flags.c_contiguous

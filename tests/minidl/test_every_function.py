"""Properties of every Function: inputs are never modified, and float32 stays float32."""

import numpy as np
import pytest

from minidl import ops
from minidl.gradcheck_cases import function_cases
from minidl.implementation import implementation
from minidl.operations import every_function
from minidl.tensor import Tensor


def cases(dtype):
    """Return the cases of the gradient checker, with all arrays in one dtype."""
    rng = np.random.default_rng(0)
    table = function_cases(rng)
    mask = (rng.random((2, 1, 5, 4)) > 0.5).astype(dtype)
    classes = rng.random((5, 4)).astype(dtype)
    statistics = rng.normal(size=3).astype(dtype), rng.uniform(0.5, 2.0, 3).astype(dtype)
    for array in (mask, classes, *statistics):
        array.setflags(write=False)
    settings = {
        "BatchNormInference": lambda x, g, b: ops.batch_norm(x, g, b, statistics)[0],
        "BatchNormInference, ReLU": lambda x, g, b: ops.batch_norm(x, g, b, statistics, relu=True)[0],
        "BinaryCrossEntropyWithLogits": lambda x: ops.binary_cross_entropy_with_logits(x, Tensor(mask)),
        "SoftDiceLoss": lambda x: ops.soft_dice_loss(x, Tensor(mask)),
        "FocalLoss": lambda x: ops.focal_loss(x, Tensor(mask), gamma=1.5),
        "SoftmaxCrossEntropy": lambda x: ops.softmax_cross_entropy(x, Tensor(classes)),
        "SoftmaxCrossEntropy, focal": lambda x: ops.softmax_cross_entropy(x, Tensor(classes), gamma=1.5),
        "TverskyLoss": lambda x: ops.tversky_loss(x, Tensor(mask), 0.2, 0.9),
    }
    return {
        name: (settings.get(name, f), [a.astype(dtype) for a in inputs])
        for name, (f, inputs) in table.items()
    }


NAMES = sorted(cases(np.float64))


@pytest.fixture(autouse=True, params=["auto", "definition"])
def how(request):
    """Run every test by the default implementations and by the definitions."""
    with implementation(request.param):
        yield request.param


def run(f, arrays):
    """Return the value and the gradients for a fixed random cotangent; every array is read-only."""
    inputs = [Tensor(a, requires_grad=True) for a in arrays]
    y = f(*inputs)
    cotangent = np.random.default_rng(1).normal(size=y.shape).astype(y.dtype)
    for array in (*arrays, cotangent):
        array.setflags(write=False)
    y.backward(cotangent)
    return y, [x.grad for x in inputs]


def test_there_is_a_case_for_every_function():
    functions = {kind.__name__ for kind in every_function()}
    tested = {name.partition(",")[0] for name in NAMES}
    assert functions <= tested, (
        f"no case: {sorted(functions - tested)}; add one to function_cases in minidl/gradcheck_cases.py"
    )
    assert tested <= functions, (
        f"no such Function: {sorted(tested - functions)}; remove its case from minidl/gradcheck_cases.py, or "
        "import the module that defines it in minidl/operations.py"
    )


@pytest.mark.parametrize("name", NAMES)
def test_forward_and_backward_do_not_modify_their_inputs(name):
    f, arrays = cases(np.float64)[name]
    before = [a.copy() for a in arrays]
    for array in arrays:
        array.setflags(write=False)
    run(f, arrays)
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("name", NAMES)
def test_backward_does_not_modify_the_value(name):
    f, arrays = cases(np.float64)[name]
    y, _ = run(f, arrays)
    np.testing.assert_array_equal(y.data, f(*(Tensor(a) for a in arrays)).data)


@pytest.mark.parametrize("name", NAMES)
def test_float32_inputs_give_a_float32_value_and_float32_gradients(name):
    f, arrays = cases(np.float32)[name]
    y, gradients = run(f, arrays)
    assert y.dtype == np.float32
    assert [dx.dtype for dx in gradients] == [np.float32] * len(arrays)


@pytest.mark.parametrize("name", NAMES)
def test_float32_and_float64_agree_to_float32_precision(name):
    single, double = (run(*cases(dtype)[name]) for dtype in (np.float32, np.float64))
    np.testing.assert_allclose(single[0].data, double[0].data, rtol=1e-4, atol=1e-5)
    for dx, expected in zip(single[1], double[1], strict=True):
        np.testing.assert_allclose(dx, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_two_runs_are_bit_identical(name):
    first, second = (run(*cases(np.float32)[name]) for _ in range(2))
    np.testing.assert_array_equal(first[0].data, second[0].data)
    for a, b in zip(first[1], second[1], strict=True):
        np.testing.assert_array_equal(a, b)

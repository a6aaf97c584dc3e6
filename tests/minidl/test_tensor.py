"""A Tensor keeps its dtype, implements Python's operators, and reports what it cannot do."""

import numpy as np
import pytest

from minidl import ops
from minidl.nn import Linear
from minidl.tensor import Function, Parameter, Tensor, as_tensor

BOTH_DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])

OPERATORS = {
    "tensor + 3": (lambda x: x + 3, lambda a: a + 3),
    "3 + tensor": (lambda x: 3 + x, lambda a: 3 + a),
    "tensor - 3": (lambda x: x - 3, lambda a: a - 3),
    "3 - tensor": (lambda x: 3 - x, lambda a: 3 - a),
    "tensor * 3": (lambda x: x * 3, lambda a: a * 3),
    "3 * tensor": (lambda x: 3 * x, lambda a: 3 * a),
    "tensor / 3": (lambda x: x / 3, lambda a: a / 3),
    "3 / tensor": (lambda x: 3 / x, lambda a: 3 / a),
    "tensor ** 3": (lambda x: x**3, lambda a: a**3),
    "-tensor": (lambda x: -x, lambda a: -a),
    "tensor[1]": (lambda x: x[1], lambda a: a[1]),
    "tensor @ list": (lambda x: x @ [[1.0], [2.0], [3.0]], lambda a: a @ [[1.0], [2.0], [3.0]]),
    "list @ tensor": (lambda x: [[1.0, 2.0]] @ x, lambda a: [[1.0, 2.0]] @ a),
    "exp": (lambda x: x.exp(), np.exp),
    "log": (lambda x: x.log(), np.log),
    "sigmoid": (lambda x: x.sigmoid(), lambda a: 1 / (1 + np.exp(-a))),
    "relu": (lambda x: (x - 3.0).relu(), lambda a: np.maximum(a - 3.0, 0)),
    "sum": (lambda x: x.sum(1, keepdims=True), lambda a: a.sum(1, keepdims=True)),
    "mean": (lambda x: x.mean((0, 1)), lambda a: a.mean()),
    "max": (lambda x: x.max(1), lambda a: a.max(1)),
    "reshape": (lambda x: x.reshape(3, -1), lambda a: a.reshape(3, 2)),
    "transpose": (lambda x: x.transpose(), lambda a: a.T),
    "transpose(1, 0)": (lambda x: x.transpose(1, 0), lambda a: a.T),
}


@BOTH_DTYPES
@pytest.mark.parametrize("name", OPERATORS)
def test_operators_and_methods_agree_with_numpy_and_keep_the_dtype(name, dtype, put):
    f, expected = OPERATORS[name]
    array = np.array([[1.0, 2.0, 4.0], [3.0, 7.0, 5.0]], dtype)
    y = f(Tensor(put(array)))
    assert y.dtype == dtype
    assert y.shape == expected(array).shape
    np.testing.assert_allclose(y.numpy(), expected(array).astype(dtype), rtol=1e-6)


@pytest.mark.parametrize("scalar", [2, 0.1, True, np.sqrt(2.0), np.float32(0.1), np.int64(3), np.array(0.1)])
@BOTH_DTYPES
def test_a_number_on_either_side_takes_the_dtype_of_the_tensor(scalar, dtype, put):
    x = Tensor(put(np.ones(3, dtype)))
    for y in (x + scalar, scalar + x, x - scalar, scalar - x, x * scalar, scalar * x, x / scalar, scalar / x):
        assert isinstance(y, Tensor)
        assert y.dtype == dtype
    np.testing.assert_array_equal((scalar * x).numpy(), np.full(3, scalar, dtype))


def test_a_number_for_a_float64_tensor_is_not_rounded_to_float32():
    assert (Tensor(np.float64(1.0)) * 0.1).item() == 0.1


def test_an_array_without_axes_on_the_device_counts_as_a_number(put):
    x = Tensor(put(np.ones(3, np.float32)))
    y = x * put(np.array([1.5, 2.5])).sum()  # NumPy: a scalar; CuPy: an array without axes
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y.numpy(), np.full(3, 4.0))


def test_an_array_on_the_left_of_an_operator_yields_one_tensor_not_an_array_of_tensors(put):
    array = put(np.array([1.0, 2.0, 3.0]))
    x = Tensor(put(np.array([4.0, 5.0, 6.0])), requires_grad=True)
    y = array * x
    assert isinstance(y, Tensor)
    np.testing.assert_array_equal(y.numpy(), [4.0, 10.0, 18.0])
    y.sum().backward()
    np.testing.assert_array_equal(Tensor(x.grad).numpy(), [1.0, 2.0, 3.0])
    np.testing.assert_array_equal((array - x).numpy(), [-3.0, -3.0, -3.0])
    np.testing.assert_array_equal((array / x).numpy(), [0.25, 0.4, 0.5])


def test_python_numbers_and_lists_become_float32_and_floating_arrays_keep_their_dtype():
    for data in (2, 2.5, [1, 2], [[1.0], [2.0]], np.int64(2)):
        assert Tensor(data).dtype == np.float32
    assert Tensor(np.float64(2)).dtype == np.float64
    array = np.zeros((2, 3))
    assert Tensor(array).data is array


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float16, bool, complex])
def test_other_dtypes_are_rejected_with_the_remedy(dtype):
    message = rf"float32 or float64, got {np.dtype(dtype)}; convert it with \.astype"
    with pytest.raises(TypeError, match=message):
        Tensor(np.ones(3, dtype))
    with pytest.raises(TypeError, match=message):
        Tensor(np.ones(3)) * np.ones(3, dtype)


@pytest.mark.parametrize("value", [None, Tensor([1.0])])
def test_what_is_no_array_is_rejected(value):
    for kind in (Tensor, Parameter):
        with pytest.raises(TypeError, match="Tensor: expected an array, a list or a number, got "):
            kind(value)


def test_the_error_for_an_array_instead_of_a_tensor_names_the_operation_and_the_remedy():
    for f in (ops.relu, ops.max_pool2d):
        with pytest.raises(TypeError, match=r": expected a Tensor, got ndarray; use Tensor\(...\)"):
            f(np.ones((1, 1, 2, 2)))


def test_none_is_rejected_instead_of_becoming_nan():
    with pytest.raises(TypeError, match="None"):
        Tensor(np.ones(3)) + None


def test_the_error_for_different_dtypes_names_the_operation_and_the_shapes(put):
    a, b = Tensor(put(np.ones((2, 3), np.float32))), Tensor(put(np.ones(3)))
    with pytest.raises(TypeError, match=r"Add got .* dtypes: float32 \(2, 3\) and float64 \(3,\).*\.to\("):
        a + b
    with pytest.raises(TypeError, match="Multiply got .* dtypes"):
        a * put(np.ones(3))


def test_the_error_for_different_devices_names_the_operation_and_the_shapes():
    class OnCuda(Tensor):
        device = "cuda"

    with pytest.raises(TypeError, match=r"MatMul got .* devices: cpu \(2, 3\) and cuda \(3, 4\).*\.to\("):
        Tensor(np.ones((2, 3))) @ OnCuda(np.ones((3, 4)))


@pytest.mark.parametrize(
    "f, message",
    [
        (lambda x: x + Tensor([1.0, 2.0]), r"Add of \(2, 3\) and \(2,\): "),
        (lambda x: x @ Tensor(np.ones((4, 1), np.float32)), r"matmul: cannot multiply \(2, 3\) by \(4, 1\)"),
        (lambda x: x.reshape(4, 2), r"Reshape of \(2, 3\): .*\(4,\s*2\)"),
        (lambda x: x.transpose(0, 2), r"Transpose of \(2, 3\): "),
        (lambda x: x.sum(2), r"Sum of \(2, 3\): axis 2"),
    ],
)
def test_the_error_for_incompatible_shapes_names_the_operation_and_the_shapes(f, message):
    with pytest.raises(ValueError, match=message):
        f(Tensor(np.ones((2, 3), np.float32)))


def test_a_function_that_changes_the_dtype_is_rejected():
    class Promotes(Function):
        def forward(self, x):
            return x.astype(np.float64)

    with pytest.raises(TypeError, match="Promotes turned float32 into float64"):
        Promotes()(Tensor([1.0]))


def test_a_function_without_forward_or_backward_reports_which_is_missing():
    class Half(Function):
        def forward(self, x):
            return 2.0 * x

    with pytest.raises(NotImplementedError, match="Function does not define forward"):
        Function()(Tensor([1.0]))
    with pytest.raises(NotImplementedError, match="Half does not define backward"):
        Half()(Tensor(1.0, requires_grad=True)).backward()


def test_to_converts_the_dtype_into_a_new_leaf():
    x = Tensor(np.array([0.1, 0.2]), requires_grad=True)
    for target in (np.float32, "float32", np.dtype("float32")):
        y = x.to(target)
        assert y.dtype == np.float32
        assert y.requires_grad and y.creator is None
        assert (x * 2.0).detach().to(target).dtype == np.float32
    with pytest.raises(RuntimeError, match="detach"):
        (x * 2.0).to(np.float32)
    assert x.to("cpu").data is x.data
    with pytest.raises(TypeError, match="float32 or float64"):
        x.to(np.int32)


def test_to_moves_between_devices(put, device):
    x = Tensor(np.array([1.0, 2.0])).to(device)
    assert x.device == device
    assert x.to("cpu").device == "cpu"
    assert isinstance(x.numpy(), np.ndarray)
    np.testing.assert_array_equal(x.numpy(), [1.0, 2.0])


def test_detach_returns_the_same_value_as_a_new_leaf():
    x = Tensor([1.0, 2.0], requires_grad=True)
    y = x * 3.0
    detached = y.detach()
    assert detached.data is y.data
    assert not detached.requires_grad and detached.creator is None
    (y * detached).sum().backward()
    np.testing.assert_array_equal(x.grad, [9.0, 18.0])  # d(3x * c)/dx, with c = 3x held fixed


def test_shape_size_length_item_and_repr():
    x = Tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    assert (x.shape, x.ndim, x.size, len(x), x.device) == ((2, 3), 2, 6, 2, "cpu")
    assert x[1, 2].item() == 5.0
    assert repr(x.sum()) == "Tensor(15.0, shape (), float64, from Sum)"
    assert repr(Tensor([1.0])) == "Tensor([1.], shape (1,), float32)"


def test_a_parameter_is_a_leaf_that_requires_a_gradient():
    p = Parameter([1.0, 2.0])
    assert isinstance(p, Tensor) and p.requires_grad and p.grad is None
    assert repr(p).startswith("Parameter(")


def test_a_parameter_cannot_be_replaced_by_an_operator_that_looks_like_a_change():
    p = Parameter(np.ones(2))
    for change in ("p += 1.0", "p -= 1.0", "p *= 2.0", "p /= 2.0"):
        with pytest.raises(TypeError, match="a Parameter cannot be changed by .* write p.data = "):
            exec(change, {"p": p})
    np.testing.assert_array_equal(p.data, [1.0, 1.0])


@pytest.mark.parametrize("dtype", [np.int32, bool, complex, np.float16, None])
def test_to_accepts_floating_dtypes_of_tensors_only(dtype):
    layer = Linear(2, 3, rng=np.random.default_rng(0))
    before = layer.weight.data
    for thing in (layer, Tensor(np.ones(2))):
        with pytest.raises(TypeError, match="a Tensor holds float32 or float64, got"):
            thing.to(dtype)
    assert layer.weight.data is before


def test_a_shape_may_be_a_tuple():
    assert Tensor(np.ones((2, 3))).reshape((3, 2)).shape == (3, 2)


def test_as_tensor_returns_a_tensor_unchanged():
    x = Tensor([1.0])
    assert as_tensor(x, like=Tensor(np.float64(0.0))) is x

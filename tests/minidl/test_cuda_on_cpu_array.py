"""The emulator's Array is as strict as CuPy's: code that fails on a GPU fails here."""

import gc

import numpy as np
import pytest

from minidl.cuda_on_cpu.array import Array, address, asarray, bytes_at, xp


@pytest.fixture
def x() -> Array:
    return asarray(np.arange(6, dtype=np.float32).reshape(2, 3))


class TestMoving:
    def test_moving_to_the_device_and_back_copies_each_time(self):
        host = np.zeros(3)
        x = asarray(host)
        back = x.get()
        x += 1
        assert (type(x), type(back)) == (Array, np.ndarray)
        assert (host.tolist(), x.tolist(), back.tolist()) == ([0, 0, 0], [1, 1, 1], [0, 0, 0])

    def test_an_array_on_the_device_is_returned_unchanged(self, x):
        assert asarray(x) is x
        assert xp.asarray(x) is x
        assert xp.array(x) is not x

    def test_single_numbers_convert_to_python_numbers(self, x):
        assert (x.sum().item(), float(x.sum()), int(x.argmax()), bool((x > 4).any())) == (15.0, 15.0, 5, True)


RESULTS = {
    "sum": lambda x: x.sum(),
    "mean over an axis": lambda x: x.mean(0),
    "mean": lambda x: x.mean(),
    "max": lambda x: x.max(),
    "any": lambda x: (x > 0).any(),
    "argmax": lambda x: x.argmax(),
    "argmax over an axis": lambda x: x.argmax(axis=1),
    "arithmetic": lambda x: 2.0 * x + 1,
    "with a NumPy number": lambda x: x * np.float32(2),
    "comparison": lambda x: x >= 0,
    "power": lambda x: x**2,
    "product": lambda x: x @ x.T,
    "dot": lambda x: x[0].dot(x[0]),
    "one element": lambda x: x[0, 0],
    "a mask": lambda x: x[x > 2],
    "a NumPy mask": lambda x: x[np.ones((2, 3), bool)],
    "reshape": lambda x: x.reshape(3, 2),
    "transpose": lambda x: x.T,
    "repeat": lambda x: x.repeat(2, axis=0),
    "astype": lambda x: x.astype(np.float64),
    "copy": lambda x: x.copy(),
    "iteration": lambda x: next(iter(x[0])),
    "xp.exp": lambda x: xp.exp(x),
    "xp.maximum": lambda x: xp.maximum(x, 0.0),
    "xp.where": lambda x: xp.where(x > 0, 1.0, x),
    "xp.concatenate": lambda x: xp.concatenate([x, x], 1),
    "xp.stack": lambda x: xp.stack([x, x]),
    "xp.split": lambda x: xp.split(x, 3, 1)[2],
    "xp.expand_dims": lambda x: xp.expand_dims(x, 0),
    "xp.broadcast_to": lambda x: xp.broadcast_to(x, (4, 2, 3)),
    "xp.vdot": lambda x: xp.vdot(x, x),
    "xp.zeros": lambda x: xp.zeros((2, 3), np.float32),
    "xp.zeros_like": lambda x: xp.zeros_like(x),
    "xp.full": lambda x: xp.full((2, 3), 7.0),
    "xp.arange": lambda x: xp.arange(5),
    "xp.array": lambda x: xp.array([x[0, 0], x[0, 1]]),
    "np.exp": lambda x: np.exp(x),
    "np.concatenate": lambda x: np.concatenate([x, x]),
}


@pytest.mark.parametrize("operation", RESULTS.values(), ids=RESULTS)
def test_results_are_on_the_device_and_equal_numpy_s(operation, x, monkeypatch):
    result = operation(x)
    assert type(result) is Array
    monkeypatch.setitem(operation.__globals__, "xp", np)
    expected = np.asarray(operation(x.get()))
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result.get(), expected)


HOST = np.ones((2, 3), np.float32)
MIXED = {
    "x + host": lambda x: x + HOST,
    "host * x": lambda x: HOST * x,
    "host @ x": lambda x: HOST @ x.T,
    "x += host": lambda x: x.__iadd__(HOST),
    "host += x": lambda x: HOST.copy().__iadd__(x),
    "x[...] = host": lambda x: x.__setitem__(..., HOST),
    "xp.maximum": lambda x: xp.maximum(x, HOST),
    "xp.exp": lambda x: xp.exp(HOST),
    "xp.where": lambda x: xp.where(x > 0, x, HOST),
    "xp.concatenate": lambda x: xp.concatenate([x, HOST]),
    "xp.add.at": lambda x: xp.add.at(x, 0, HOST[0]),
    "xp.empty_like": lambda x: xp.empty_like(HOST),
    "np.concatenate": lambda x: np.concatenate([x, HOST]),
    "out": lambda x: np.add(x, x, out=HOST.copy()),
}


@pytest.mark.parametrize("operation", MIXED.values(), ids=MIXED)
def test_an_array_on_the_host_is_rejected(operation, x):
    with pytest.raises(
        TypeError, match=r"a NumPy array float32 \(.*3,?\) mixed with arrays on the device; move it"
    ):
        operation(x)
    assert x.tolist() == [[0, 1, 2], [3, 4, 5]]


class TestLibrary:
    def test_empty_arrays_are_filled_with_nan_or_the_largest_integer(self):
        assert np.isnan(xp.empty((2, 3), np.float32)).all()
        assert np.isnan(xp.empty_like(xp.zeros(3))).all()
        assert (xp.empty(3, np.int32) == 2**31 - 1).all()
        assert (xp.empty(3, np.uint8) == 255).all()

    def test_functions_that_modify_an_array(self, x):
        xp.add.at(x, (np.array([0, 0]), np.array([1, 1])), 10.0)
        assert x[0].tolist() == [0, 21, 2]
        xp.put_along_axis(x, xp.zeros((2, 1), int), 7.0, axis=1)
        assert x[:, 0].tolist() == [7, 7]
        y = xp.zeros((2, 3), np.float32)
        assert xp.exp(xp.zeros_like(y), out=y) is y
        assert (y == 1).all()
        xp.matmul(y[:, :2], y, out=x[:])
        assert (x == 2).all()

    def test_constants_and_types(self):
        assert (xp.inf, xp.float32, xp.ndarray) == (np.inf, np.float32, Array)
        assert xp.min_scalar_type(300) == np.uint16

    def test_modules_in_which_cupy_differs_are_absent(self):
        with pytest.raises(AttributeError, match="numpy.random has no counterpart in the emulator"):
            _ = xp.random


class TestAddresses:
    def test_an_address_is_known_as_long_as_its_array_exists(self):
        x = xp.zeros(10, np.float32)
        start = address(x)
        assert start == x.ctypes.data
        assert (bytes_at(start), bytes_at(address(x[2:5]))) == (40, 12)
        del x
        gc.collect()
        assert bytes_at(start) is None

    def test_an_address_stays_known_if_only_the_view_is_deleted(self):
        x = xp.zeros((4, 5))
        assert bytes_at(address(x[1:].reshape(-1))) == 120

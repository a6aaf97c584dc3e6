"""Backpropagation visits every function once, after all its consumers, and frees everything it used."""

import gc
import weakref

import numpy as np
import pytest

from minidl.backend import to_numpy
from minidl.tensor import Function, Tensor, no_grad


class CountedSum(Function):
    """a + b; each backward call is recorded in a list."""

    def __init__(self, calls):
        self.calls = calls

    def forward(self, a, b):
        return a + b

    def backward(self, dy):
        self.calls.append("backward")
        return dy, dy


class Returns(Function):
    """x, with a backward that returns a given gradient."""

    def __init__(self, gradient):
        self.gradient = gradient

    def forward(self, *arrays):
        return arrays[0].copy()

    def backward(self, dy):
        return self.gradient


@pytest.fixture
def no_collector():
    """Disable the garbage collector, so that a reference cycle shows as an object that is not freed."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def leaf(*numbers):
    return Tensor(np.array(numbers), requires_grad=True)


def test_a_value_used_twice_receives_the_sum_of_both_gradients(put):
    x = Tensor(put(np.array([1.0, 2.0, 3.0])), requires_grad=True)
    (x * x + 3.0 * x).sum().backward()
    np.testing.assert_array_equal(to_numpy(x.grad), [5.0, 7.0, 9.0])  # 2x + 3


def test_a_diamond_with_branches_of_different_lengths():
    x = leaf(2.0)
    h = x * x
    longer = ((h + 1.0) * 2.0) * h
    (longer + h).backward()  # L = 2 h (h + 1) + h, dL/dh = 4h + 3, dh/dx = 2x
    np.testing.assert_array_equal(x.grad, [(4.0 * 4.0 + 3.0) * 4.0])


def test_every_function_in_a_diamond_is_visited_once():
    x, calls = leaf(1.0), []
    h = CountedSum(calls)(x, x)
    y = CountedSum(calls)(CountedSum(calls)(h, x), h)
    CountedSum(calls)(y, h).backward()
    assert len(calls) == 4
    np.testing.assert_array_equal(x.grad, [7.0])


def test_forty_nested_sums_take_forty_backward_calls_not_two_to_the_forty():
    x, calls = leaf(1.0), []
    y = x
    for _ in range(40):
        y = CountedSum(calls)(y, y)
    y.backward()
    assert len(calls) == 40
    assert x.grad == 2.0**40


def test_a_chain_of_ten_thousand_functions_does_not_overflow_the_stack():
    x = leaf(1.0)
    y = x
    for _ in range(10_000):
        y = y + 1.0
    y.backward()
    assert x.grad == 1.0


def test_a_graph_of_ten_thousand_functions_can_be_dropped_without_a_backward_pass():
    x = leaf(1.0)
    y = x
    for _ in range(10_000):
        y = y + 1.0
    del y
    assert x.grad is None


def test_gradients_of_two_backward_calls_accumulate_in_the_leaf():
    x = leaf(1.0, 2.0)
    (x * x).sum().backward()
    (x * 10.0).sum().backward()
    np.testing.assert_array_equal(x.grad, [12.0, 14.0])


def test_accumulation_creates_a_new_array():
    x = leaf(1.0, 2.0)
    (x * x).sum().backward()
    first = x.grad
    (x * x).sum().backward()
    np.testing.assert_array_equal(first, [2.0, 4.0])
    np.testing.assert_array_equal(x.grad, [4.0, 8.0])


def test_the_gradient_of_a_single_number_is_an_array_without_axes():
    x = Tensor(3.0, requires_grad=True)
    for expected in (6.0, 12.0):
        (x * x).backward()
        assert isinstance(x.grad, np.ndarray)
        assert (x.grad.shape, x.grad.dtype, x.grad.item()) == ((), np.float32, expected)


def test_only_leaves_that_require_a_gradient_receive_one():
    x, constant = leaf(1.0, 2.0), Tensor(np.array([3.0, 4.0]))
    y = x * constant
    y.sum().backward()
    assert y.requires_grad and not (constant * 2.0).requires_grad
    assert constant.grad is None and y.grad is None
    np.testing.assert_array_equal(x.grad, [3.0, 4.0])


def test_needs_tells_a_function_which_inputs_require_a_gradient():
    y = leaf(1.0) * Tensor(np.array([2.0]))
    assert y.creator.needs == (True, False)
    assert y.creator.backward(np.ones(1))[1] is None


def test_a_tensor_frozen_between_two_uses_passes_on_the_gradient_of_the_first():
    x, w = leaf(3.0), leaf(5.0)
    h = x * 2.0
    before = h * 1.0
    h.requires_grad = False
    (before + h * w).backward()
    np.testing.assert_array_equal(x.grad, [2.0])
    np.testing.assert_array_equal(w.grad, [6.0])


def test_the_gradient_of_a_tensor_that_is_not_a_single_number_can_be_passed(put):
    x = Tensor(put(np.array([1.0, 2.0], np.float32)), requires_grad=True)
    (x * 3.0).backward(put(np.array([10.0, 100.0])))
    assert x.grad.dtype == np.float32
    np.testing.assert_array_equal(to_numpy(x.grad), [30.0, 300.0])


def test_backward_rejects_a_missing_graph_and_a_missing_or_misshapen_gradient():
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match="not computed from any that requires a gradient"):
        Tensor([1.0]).backward()
    with pytest.raises(RuntimeError, match=r"gradient of this tensor of shape \(2,\), or sum it"):
        (x * 2.0).backward()
    with pytest.raises(ValueError, match=r"the gradient has shape \(3,\), the tensor \(2,\)"):
        (x * 2.0).backward(np.ones(3))
    assert x.grad is None


def test_a_second_backward_through_the_same_graph_raises_an_error():
    x = leaf(1.0, 2.0)
    loss = (x * x).sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="backward: an earlier backward pass has freed this graph"):
        loss.backward()
    np.testing.assert_array_equal(x.grad, [2.0, 4.0])


def test_a_second_backward_through_a_shared_part_fails_before_any_gradient_changes():
    x, w = leaf(1.0), leaf(5.0)
    shared = x * x
    (shared * 2.0).backward()
    with pytest.raises(RuntimeError, match="an earlier backward pass has freed this graph"):
        (shared * w).backward()
    assert w.grad is None
    np.testing.assert_array_equal(x.grad, [4.0])


@pytest.mark.parametrize(
    "gradient, message",
    [
        (
            np.ones((3, 1)),
            r"Returns.backward returned float64 \(3, 1\) on cpu for input 0, which is float64 \(",
        ),
        (np.ones(3, np.float32), r"Returns.backward returned float32 \(3,\) .* is float64 \(3,\) on cpu"),
        (np.float64(1.0), r"Returns.backward returned float64 \(\) on cpu for input 0"),
        (None, "Returns.backward returned no gradient for input 0"),
        ((np.ones(3), np.ones(3)), "Returns.backward returned 2 gradients for 1 inputs"),
        ((), "Returns.backward returned 0 gradients for 1 inputs"),
    ],
)
def test_the_error_for_a_wrong_gradient_names_the_function(gradient, message):
    x = leaf(1.0, 2.0, 3.0)
    with pytest.raises(RuntimeError, match=message):
        Returns(gradient)(x).sum().backward()
    assert x.grad is None


def test_none_is_accepted_as_the_gradient_of_an_input_that_requires_none():
    x, constant = leaf(1.0, 2.0), Tensor(np.zeros(5))
    Returns((np.array([7.0, 8.0]), None))(x, constant).sum().backward()
    np.testing.assert_array_equal(x.grad, [7.0, 8.0])


def test_no_grad_records_nothing():
    x = leaf(1.0, 2.0)
    with no_grad():
        y = x * x
    assert y.creator is None and not y.requires_grad
    np.testing.assert_array_equal(y.data, [1.0, 4.0])


def test_no_grad_can_be_nested_and_ends_with_its_block():
    x = leaf(1.0)
    with no_grad():
        with no_grad():
            assert not (x * 2.0).requires_grad
        assert not (x * 2.0).requires_grad
    assert (x * 2.0).requires_grad


def test_no_grad_ends_with_an_exception():
    x = leaf(1.0)
    with pytest.raises(KeyError), no_grad():
        raise KeyError
    assert (x * 2.0).requires_grad


def test_dropping_the_loss_without_a_backward_pass_frees_the_graph(no_collector):
    x = leaf(1.0, 2.0)
    h = (x * 2.0).sigmoid()
    loss = (h * h).sum()
    alive = [weakref.ref(o) for o in (h, h.data, h.creator, loss, loss.creator)]
    del h, loss
    assert [r() for r in alive] == [None] * 5


def test_dropping_the_loss_after_the_backward_pass_frees_the_graph(no_collector):
    x = leaf(1.0, 2.0)
    h = (x * 2.0).sigmoid()
    loss = (h * h).sum()
    alive = [weakref.ref(o) for o in (h, h.data, h.creator, loss, loss.creator)]
    loss.backward()
    del h, loss
    assert [r() for r in alive] == [None] * 5


def test_backward_itself_frees_everything_between_the_loss_and_the_leaves(no_collector):
    x = leaf(1.0, 2.0)
    h = (x * 2.0).sigmoid()
    loss = (h * h).sum()
    functions, array = [h.creator, loss.creator, loss.creator.inputs[0].creator], weakref.ref(h.data)
    del h
    loss.backward()
    assert [vars(f) for f in functions] == [{}, {}, {}]
    assert array() is None


def test_an_array_that_no_backward_needs_is_freed_with_its_tensor(no_collector):
    x = leaf(1.0, 2.0)
    term, factor = x * 2.0, x.sigmoid()
    loss = ((term + term) * factor).sum()  # a sum needs neither term, a product needs both factors
    alive = [weakref.ref(term.data), weakref.ref(factor.data)]
    del term, factor
    assert [r() is not None for r in alive] == [False, True]
    loss.backward()
    s = 1 / (1 + np.exp(-x.data))
    np.testing.assert_allclose(x.grad, 4 * s + 4 * x.data * s * (1 - s))


def test_saved_arrays_and_gradients_are_freed_during_the_backward_pass_not_after_it(no_collector):
    class Probe(Function):
        """x; its backward records which of the arrays used before it are still alive."""

        def forward(self, x):
            return x.copy()

        def backward(self, dy):
            alive[:] = [r() is not None for r in used]
            used.append(weakref.ref(dy))
            return dy.copy()

    alive, x = [], leaf(1.0, 2.0)
    first = Probe()(x)
    h = first.exp()
    loss = Probe()(h.exp()).sum()
    used = [weakref.ref(first.data), weakref.ref(h), weakref.ref(h.data)]
    del first, h
    loss.backward()
    assert alive == [False] * 4  # as seen by the first probe: the gradient of the second one is freed as well
    np.testing.assert_allclose(x.grad, np.exp([1.0, 2.0]) * np.exp(np.exp([1.0, 2.0])))


def test_each_leaf_owns_its_gradient():
    """A user may modify it in place, for example to clip it."""
    a, b, given = leaf(1.0, 2.0), leaf(3.0, 4.0), np.ones(2)
    (a + b).backward(given)
    a.grad *= 5.0
    np.testing.assert_array_equal(b.grad, [1.0, 1.0])
    np.testing.assert_array_equal(given, [1.0, 1.0])
    a.grad = None
    a.sum().backward()
    a.grad *= 5.0
    np.testing.assert_array_equal(a.grad, [5.0, 5.0])

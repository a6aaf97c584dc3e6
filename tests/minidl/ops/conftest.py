"""Fixtures for the tests of operations: apply an operation to NumPy arrays on the device under test."""

import numpy as np
import pytest

from minidl.backend import to_numpy
from minidl.tensor import Tensor


@pytest.fixture
def value(put):
    """Return a function that applies f to Tensors of the arrays and returns the value as a NumPy array."""
    return lambda f, *arrays: f(*(Tensor(put(a)) for a in arrays)).numpy()


@pytest.fixture
def gradients(put):
    """Return a function that computes dL/dx for each array x, as NumPy arrays; the cotangent is dL/df."""

    def run(f, *arrays, cotangent):
        inputs = [Tensor(put(a), requires_grad=True) for a in arrays]
        f(*inputs).backward(put(cotangent))
        return [to_numpy(x.grad) for x in inputs]

    return run


@pytest.fixture
def loss_and_gradient(put):
    """Return a function that computes a loss and its gradient for NumPy arrays on the device under test."""

    def run(loss, logits, target, **settings):
        x = Tensor(put(np.asarray(logits)), requires_grad=True)
        y = loss(x, Tensor(put(np.asarray(target))), **settings)
        y.backward()
        return y.item(), to_numpy(x.grad)

    return run

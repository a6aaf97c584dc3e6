"""Forward hooks see every input and output of a module, and leave no trace."""

import numpy as np
import pytest

from minidl import Tensor
from minidl.nn import Module, ReLU, Sequential
from r2unet.network.hooks import forward_hooks


class Twice(Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return self.layers[0](self.layers[0](x) - 2.0)


class Product(Module):
    def forward(self, g: Tensor, x: Tensor) -> Tensor:
        return g * x


def test_the_hook_is_called_with_input_and_output_after_every_call():
    model, calls = Twice(ReLU()), []
    with forward_hooks(model.named_modules(), lambda *call: calls.append(call)):
        y = model(Tensor(np.array([-1.0, 3.0])))
    assert [(name, x.numpy().tolist(), out.numpy().tolist()) for name, _, x, out in calls] == [
        ("layers.0", [-1, 3], [0, 3]),
        ("layers.0", [-2, 1], [0, 1]),
        ("", [-1, 3], [0, 1]),
    ]
    assert calls[0][1] is model.layers[0] and calls[2][3] is y


def test_of_several_inputs_the_hook_gets_the_first():
    model, calls = Product(), []
    with forward_hooks([("gate", model)], lambda *call: calls.append(call)):
        y = model(Tensor(np.array([2.0])), Tensor(np.array([3.0])))
    (name, module, x, out), *others = calls
    assert (name, module, x.item(), out, others) == ("gate", model, 2.0, y, [])


def test_after_an_exception_no_hook_remains():
    model, calls = Twice(ReLU()), []
    with pytest.raises(KeyError), forward_hooks(model.named_modules(), lambda *call: calls.append(call)):
        raise KeyError
    model(Tensor(np.zeros(2)))
    assert calls == [] and "forward" not in vars(model) and "forward" not in vars(model.layers[0])

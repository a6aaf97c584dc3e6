"""What is heard of a network while it runs, and that it is left as it was."""

import numpy as np
import pytest

from minidl import Tensor
from minidl.nn import ReLU, Sequential
from r2unet.network.watch import watching


class Twice(Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return self.layers[0](self.layers[0](x) - 2.0)


def test_inputs_and_outputs_are_seen_at_every_call():
    model, calls = Twice(ReLU()), []
    with watching(model.named_modules(), lambda *call: calls.append(call)):
        y = model(Tensor(np.array([-1.0, 3.0])))
    assert [(name, x.numpy().tolist(), out.numpy().tolist()) for name, _, x, out in calls] == [
        ("layers.0", [-1, 3], [0, 3]),
        ("layers.0", [-2, 1], [0, 1]),
        ("", [-1, 3], [0, 1]),
    ]
    assert calls[0][1] is model.layers[0] and calls[2][3] is y


def test_afterwards_nothing_is_heard_and_nothing_is_left():
    model, calls = Twice(ReLU()), []
    with pytest.raises(KeyError), watching(model.named_modules(), lambda *call: calls.append(call)):
        raise KeyError
    model(Tensor(np.zeros(2)))
    assert calls == [] and "forward" not in vars(model) and "forward" not in vars(model.layers[0])

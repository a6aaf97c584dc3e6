"""Activation checkpointing changes the memory of a training step, and not one bit of its results."""

import tracemalloc

import numpy as np
import pytest

from minidl import Tensor, no_grad
from minidl.nn import BatchNorm2d, Conv2d, Module, Sequential
from minidl.ops.conv import convolution
from minidl.optim import AdamW
from minidl.recompute import recomputed
from minidl.tensor import Function


class Block(Module):
    """A convolution applied twice, with a norm: its weights receive two gradients in each backward pass."""

    def __init__(self, rng):
        self.conv, self.norm = Conv2d(4, 4, 3, padding=1, rng=rng), BatchNorm2d(4)

    def forward(self, x):
        y = self.norm(self.conv(x), relu=True)
        return x + self.norm(self.conv(x + y), relu=True)


def stored(module, x):
    return module(x)


def new_block(dtype=np.float32, device="cpu"):
    return Block(np.random.default_rng(1)).to(dtype).to(device)


def image(put=np.asarray, dtype=np.float32, requires_grad=True):
    return Tensor(put(np.random.default_rng(2).normal(size=(2, 4, 6, 5)).astype(dtype)), requires_grad)


def everything(module, *leaves):
    """The module's state, the gradients of its parameters, and those of other leaves."""
    gradients = {name: p.grad for name, p in module.named_parameters()}
    gradients |= {f"leaf {i}": x.grad for i, x in enumerate(leaves)}
    return module.state_dict(), {n: None if g is None else Tensor(g).numpy() for n, g in gradients.items()}


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert (a[name] is None) == (b[name] is None), name
            assert a[name] is None or a[name].tobytes() == b[name].tobytes(), name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_and_running_statistics_are_identical(device, put, dtype):
    results = []
    for run in (stored, recomputed):
        module, x = new_block(dtype, device), image(put, dtype)
        y = run(module, x)
        (y * y).mean().backward()
        results.append(everything(module, x))
    assert_same(*results)
    assert results[1][0]["norm.running_mean"].any() and results[1][1]["leaf 0"].any()


def test_gradients_of_shared_weights_are_summed_in_the_same_order():
    results = []
    for run in (stored, recomputed):
        module, x = new_block(), image()
        y = run(module, run(module, run(module, x)))
        (y * y).mean().backward()
        results.append(everything(module, x))
    assert_same(*results)


def test_it_can_be_nested():
    results = []
    for run in (stored, recomputed):
        inner, x = new_block(), image()
        outer = Sequential(inner, inner)
        outer.forward = lambda x, run=run, inner=inner: run(inner, run(inner, x))
        (run(outer, x) * 3.0).sum().backward()
        results.append(everything(outer, x))
    assert_same(*results)


def test_an_input_that_requires_no_gradient_receives_none_but_the_weights_receive_theirs():
    results = []
    for run in (stored, recomputed):
        module, x = new_block(), image(requires_grad=False)
        run(module, x).sum().backward()
        results.append(everything(module, x))
        assert x.grad is None and module.conv.weight.grad.any()
    assert_same(*results)


def test_a_frozen_weight_receives_no_gradient():
    results = []
    for run in (stored, recomputed):
        module, x = new_block(), image()
        module.conv.weight.requires_grad = False
        run(module, x).sum().backward()
        results.append(everything(module, x))
    assert_same(*results)
    assert results[1][1]["conv.weight"] is None


def test_a_part_inside_no_grad_receives_no_gradient():
    class Half(Block):
        def forward(self, x):
            with no_grad():
                y = self.conv(x)
            return self.norm(y)

    results = []
    for run in (stored, recomputed):
        module, x = Half(np.random.default_rng(1)), image()
        (run(module, x) * image()).sum().backward()
        gradients = everything(module)
        assert x.grad is None or not x.grad.any()
        results.append(gradients)
    assert_same(*results)


def test_the_second_pass_uses_the_convolution_method_of_the_first():
    results = []
    for run in (stored, recomputed):
        module, x = new_block(), image()
        with convolution("im2col"):
            y = run(module, x)
        (y * y).mean().backward()
        results.append(everything(module, x))
    assert_same(*results)


def test_the_second_pass_uses_the_running_statistics_of_the_first():
    results = []
    for run in (stored, recomputed):
        module, x = new_block(), image()
        y = run(module.eval(), x)
        module.norm.running_mean.data = module.norm.running_mean.data + np.float32(1.0)
        y.sum().backward()
        results.append(everything(module, x))
    assert_same(*results)


def test_no_grad_records_nothing():
    with no_grad():
        assert recomputed(new_block(), image()).creator is None


def test_two_steps_of_adamw_give_identical_weights():
    results = []
    for run in (stored, recomputed):
        module, x = new_block(), image()
        optimizer = AdamW(module.parameters(), 1e-2)
        for _ in range(2):
            optimizer.zero_grad()
            y = run(module, run(module, x))
            (y * y).mean().backward()
            optimizer.step()
        results.append(everything(module))
    assert_same(*results)


def test_only_the_input_of_a_module_is_stored():
    def allocated(run):
        blocks = [new_block() for _ in range(4)]
        x = Tensor(np.random.default_rng(0).normal(size=(1, 4, 128, 128)).astype(np.float32))  # 256 KiB
        tracemalloc.start()
        for block in blocks:
            x = run(block, x)
        kept, highest = tracemalloc.get_traced_memory()
        x.sum().backward()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return kept / 2**18, highest / 2**18, peak / 2**18

    stored_kept, _, stored_peak = allocated(stored)
    kept, highest, peak = allocated(recomputed)
    assert stored_kept > 4 * 3  # per block: two arrays before the norms, and the sum before the second
    assert 4 <= kept < 4.5  # the outputs of four blocks; three of them are inputs of the next
    assert highest < kept + 4.5  # inside a block arrays are freed as in evaluation
    assert peak < 0.7 * stored_peak


@pytest.mark.parametrize("requires_grad", [True, False])
def test_a_function_inside_runs_forward_twice_and_backward_only_if_needed(
    requires_grad,
):
    class Counted(Function):
        def forward(self, x):
            passes.append("forward")
            return x.copy()

        def backward(self, dy):
            passes.append("backward")
            return dy

    class CountedBlock(Block):
        def forward(self, x):
            return super().forward(Counted()(x))

    passes = []
    y = recomputed(CountedBlock(np.random.default_rng(1)), image(requires_grad=requires_grad))
    assert passes == ["forward"]
    y.sum().backward()
    assert passes == ["forward", "forward"] + ["backward"] * requires_grad

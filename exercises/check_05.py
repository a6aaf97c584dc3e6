"""Checks of the exercises of chapter 5, docs/5-recurrent-residual.md."""

import numpy as np

from exercises.gradients import check_gradient
from minidl import Tensor, no_grad
from r2unet.network.blocks import RecurrentConv


def recurrence(w, x, steps):
    y = np.tanh(w * x)
    for _ in range(steps):
        y = np.tanh(w * (x + y))
    return y


def check_1(answers):
    x = np.random.default_rng(8).normal(size=5)
    for steps in (0, 1, 3):
        try:
            check_gradient(
                lambda w, x, t=steps: recurrence(w, x, t),
                lambda w, x, dy, t=steps: answers.through_time(w, x, t, dy),
                np.array(0.7),
                x,
            )
        except AssertionError as error:
            raise AssertionError(f"steps = {steps}: {error}") from None


def check_2(answers):
    block = RecurrentConv(4, 2, rng=np.random.default_rng(9))
    expected = sum(p.size for p in block.parameters())
    block.norm = answers.step_norms(4, 2)
    assert len(block.norm) == 3, f"2 recurrent steps have 3 applications, not {len(block.norm)}"
    found = sum(p.size for p in block.parameters())
    assert found == expected, (
        f"the block has {found} parameters instead of {expected}: what do the steps share?"
    )
    block.to(np.float64)
    x = Tensor(np.random.default_rng(10).normal(size=(2, 4, 12, 12)))
    with no_grad():
        for _ in range(100):  # let the averages settle
            trained = block(x).data
        evaluated = block.eval()(x).data
    difference = np.sqrt(((trained - evaluated) ** 2).mean() / (trained**2).mean())
    assert difference < 0.05, (
        f"evaluation differs from training by {difference:.0%}: what do the averages mix?"
    )


def check_3(answers):
    rng = np.random.default_rng(11)
    jacobians, dy = list(0.1 * rng.normal(size=(30, 4, 4))), rng.normal(size=4)

    def chain(x):
        for jacobian in jacobians:
            x = x + jacobian @ x
        return x

    found = np.linalg.norm(answers.through_blocks(jacobians, dy.copy()))
    plain = np.linalg.norm(np.linalg.multi_dot([*(j.T for j in jacobians), dy]))
    assert found > 1e-6, f"|dx| is {found:.0e}, and {plain:.0e} without shortcuts: which path does dx lack?"
    check_gradient(chain, lambda x, dy: answers.through_blocks(jacobians, dy), rng.normal(size=4))

"""Checks of the exercises of chapter 1, docs/1-a-value-that-remembers.md."""

import numpy as np

from exercises.gradients import check_gradient


def check_1(answers):
    rng = np.random.default_rng(0)
    a, b, dy = rng.normal(size=(4, 3)), rng.uniform(1.0, 2.0, 3), rng.normal(size=(4, 3))
    da, db = answers.divide_backward(a, b, dy)
    assert np.shape(da) == (4, 3), f"da has the shape {np.shape(da)}, and a has (4, 3)"
    assert np.shape(db) == (3,), f"db has the shape {np.shape(db)}, and b has (3,): how often is b[c] used?"
    check_gradient(lambda a, b: a / b, answers.divide_backward, a, b)


class Graph(dict):
    """A graph that stops an answer which follows every path through it."""

    def __init__(self, inputs):
        super().__init__(inputs)
        self.lookups = 0

    def __getitem__(self, value):
        self.lookups += 1
        assert self.lookups < 10 * len(self) ** 2, "you follow every path; visit every value once"
        return super().__getitem__(value)


def check_2(answers):
    doubled = {"0": []} | {str(n): [str(n - 1)] * 2 for n in range(1, 42)}
    chain = {"0": []} | {str(n): [str(n - 1)] for n in range(1, 2000)}
    skip = {"loss": ["x", "h"], "h": ["g"], "g": ["x", "w"], "x": ["w"], "w": []}  # w: used early and late
    mirrored = {y: inputs[::-1] for y, inputs in skip.items()}
    for inputs, last in ((skip, "loss"), (mirrored, "loss"), (chain, "1999"), (doubled, "41")):
        order = answers.visits(Graph(inputs), last)
        assert sorted(order) == sorted(inputs), f"each of {len(inputs)} values once, not {order[:9]} ..."
        position = {value: i for i, value in enumerate(order)}
        early = [(x, y) for y in inputs for x in inputs[y] if position[x] < position[y]]
        assert not early, f"{early[0][0]} is visited before {early[0][1]}, which still adds to its gradient"


class Value:
    """A number that records how it was computed, as in the chapter."""

    def __init__(self, data, inputs=(), rule=None):
        self.data, self.inputs, self.rule = data, inputs, rule

    def __add__(self, other):
        return Value(self.data + other.data, (self, other), lambda dy: (dy, dy))

    def __mul__(self, other):
        return Value(self.data * other.data, (self, other), lambda dy: (dy * other.data, dy * self.data))


def check_3(answers):
    x, w = Value(3.0), Value(2.0)
    h = w * x
    for name, y, expected in (
        ("w x + x", h + x, {w: 3.0, x: 3.0}),
        ("h h + w with h = w x", h * h + w, {w: 37.0, x: 24.0}),
        ("h + h + h with h = w x", h + h + h, {w: 9.0, x: 6.0}),
    ):
        found = answers.backpropagate(y)
        for leaf, letter in ((w, "w"), (x, "x")):
            got = found.get(leaf)
            assert got == expected[leaf], f"z = {name}: dz/d{letter} is {expected[leaf]}, not {got}"

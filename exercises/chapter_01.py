"""Exercises of chapter 1, docs/1-a-value-that-remembers.md.

Fill in the functions. `make exercise N=1` says which are right.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def divide_backward(a: np.ndarray, b: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients (da, db) of y = a / b.

    a and dy are (N, C), b is (C,): row n of y is a[n] / b. So every b[c] is used N times. da must have the
    shape of a, db the shape of b. Remember what x receives in z = x y + x, where it is used twice.

    Chapter 1, "Vector-Jacobian products".
    """
    raise NotImplementedError("exercise 1.1")


def visits(inputs: Mapping[str, Sequence[str]], last: str) -> list[str]:
    """Return the values of a graph in an order in which the backward pass may visit them.

    inputs["y"] lists the values that y was computed from, and is empty for a leaf: {"y": ["x", "x"], "x": []}
    is y = x + x. The order starts with `last`. It has every value once, after all values that were computed
    from it, because only then is its gradient complete. The check uses a graph with more than 10^12 paths,
    and a chain of 2000 values.

    Chapter 1, "The order of the backward pass".
    """
    raise NotImplementedError("exercise 1.2")


def backpropagate(y: Any) -> dict:
    """Return the gradient of y with respect to every leaf it was computed from: {leaf: gradient}.

    This is the function of the chapter with one mistake. A value has `inputs`, and a `rule` that turns the
    gradient of the value into a list of the gradients of its inputs. Most graphs come out right. Find the
    graph that does not, then the line.

    Chapter 1, "The order of the backward pass".
    """
    raise NotImplementedError("exercise 1.3")  # delete this line, then mend the code below
    consumers, unvisited = Counter(), [y]
    while unvisited:
        for x in unvisited.pop().inputs:
            if x not in consumers:
                unvisited.append(x)
                consumers[x] += 1

    gradients, ready = {y: 1.0}, [y]
    while ready:
        value = ready.pop()
        if not value.inputs:
            continue
        for x, dx in zip(value.inputs, value.rule(gradients.pop(value)), strict=True):
            gradients[x] = gradients.get(x, 0.0) + dx
            consumers[x] -= 1
            if consumers[x] == 0:
                ready.append(x)
    return gradients

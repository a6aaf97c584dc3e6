"""Solutions of the exercises of chapter 1, docs/1-a-value-that-remembers.md."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def divide_backward(a: np.ndarray, b: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients (da, db) of y = a / b."""
    # B[c] receives the sum of N gradients, one from each use.
    return dy / b, (-dy * a / b**2).sum(axis=0)


def visits(inputs: Mapping[str, Sequence[str]], last: str) -> list[str]:
    """Return the values of a graph in an order in which the backward pass may visit them."""
    consumers, unvisited = {last: 0}, [last]
    while unvisited:
        for x in inputs[unvisited.pop()]:
            if x not in consumers:
                unvisited.append(x)
            consumers[x] = consumers.get(x, 0) + 1
    order, ready = [], [last]
    while ready:
        order.append(ready.pop())
        for x in inputs[order[-1]]:
            consumers[x] -= 1
            if consumers[x] == 0:
                ready.append(x)
    return order


def backpropagate(y: Any) -> dict:
    """Return the gradient of y with respect to every leaf it was computed from: {leaf: gradient}."""
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
            # An input that is used twice by one value, as in x + x, counts twice.
            consumers[x] -= 1
            if consumers[x] == 0:
                ready.append(x)
    return gradients

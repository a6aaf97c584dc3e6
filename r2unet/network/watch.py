"""Looking into a network while it runs, without a line for it in the network.

A module's `forward` is looked up on the object before it is looked up on its class. So a function put there
for a while is called in its place, hears what went in and what came out, and afterwards is taken away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from minidl.nn import Module
from minidl.tensor import Tensor

Seen = Callable[[str, Module, Tensor, Tensor], None]


@contextmanager
def watching(modules: Iterable[tuple[str, Module]], seen: Seen) -> Iterator[None]:
    """Call seen(name, module, x, y) after each forward pass x -> y of these named modules.

    A module that runs several times is seen as often.
    """
    modules = list(modules)

    def watch(name: str, module: Module) -> Callable[[Tensor], Tensor]:
        forward = module.forward

        def watched(x: Tensor, **settings: Any) -> Tensor:
            y = forward(x, **settings)
            seen(name, module, x, y)
            return y

        return watched

    for name, module in modules:
        module.forward = watch(name, module)
    try:
        yield
    finally:
        for _, module in modules:
            del module.forward

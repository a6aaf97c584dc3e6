"""Forward hooks: observe the inputs and outputs of modules while a network runs.

The network needs no code for this. Python looks `forward` up on the object before it looks on the class, so a
function stored on the object replaces the method. It calls the method, then the hook, and is removed
afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from minidl.nn import Module
from minidl.tensor import Tensor

Hook = Callable[[str, Module, Tensor, Tensor], None]


@contextmanager
def forward_hooks(modules: Iterable[tuple[str, Module]], hook: Hook) -> Iterator[None]:
    """Call hook(name, module, x, y) after every forward pass x -> y of these named modules.

    The hook is called each time that a module runs. For a module with several inputs, such as the
    attention gate, x is the first.
    """
    modules = list(modules)

    def with_hook(name: str, module: Module) -> Callable[..., Tensor]:
        forward = module.forward

        def hooked(*inputs: Tensor, **settings: Any) -> Tensor:
            y = forward(*inputs, **settings)
            hook(name, module, inputs[0], y)
            return y

        return hooked

    for name, module in modules:
        module.forward = with_hook(name, module)
    try:
        yield
    finally:
        for _, module in modules:
            del module.forward

"""Reverse-mode automatic differentiation: values that remember how they were made.

Write a computation as a graph of functions, y = f(x), L = g(y). The chain rule says

    dL/dx = (dy/dx)^T dL/dy,

so if every function f can multiply a vector by the transpose of its own Jacobian (its *vector-Jacobian
product*, `Function.backward`), the gradient of a scalar L with respect to everything is found in one walk
from L back to the leaves. A value used in several places receives the sum of what comes back from each.

The walk must reach a function only after everything that used its output has been visited. It counts how
many consumers each output has and visits a function when that count falls to zero (Kahn's topological
order). A recursive walk would overflow Python's stack at about a thousand functions, and one that
follows every path would take 2^n steps on n nested `x + x`, which is just what R2U-Net does in
`conv(x + y)`.

Gradients are first order: a gradient is an array, not a Tensor, and cannot be differentiated again.
That halves the size of every operation, and training a U-Net needs no more.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np

from minidl.backend import DEVICES, Array, device_of, is_array, to_device, to_numpy

_recording: ContextVar[bool] = ContextVar("recording", default=True)


@contextlib.contextmanager
def no_grad() -> Iterator[None]:
    """Record no graph inside this block: for evaluation, which then keeps no intermediate arrays."""
    token = _recording.set(False)
    try:
        yield
    finally:
        _recording.reset(token)


class Function:
    """One differentiable operation: its forward pass and its vector-Jacobian product, on raw arrays.

    Settings go to `__init__`; `forward` keeps in attributes whatever `backward` will want; `needs[i]` says
    whether input i wants a gradient. One object serves one call.
    """

    needs: tuple[bool, ...]
    inputs: tuple[Tensor | Origin, ...]  # leaves as they are; in the place of what was computed, its origin

    def forward(self, *arrays: Array) -> Array:
        """Compute the output from the input arrays, leaving those unchanged."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def backward(self, dy: Array) -> Array | tuple[Array | None, ...]:
        """Return dL/dx for each input x, given dL/dy; None for an input that needs none."""
        raise NotImplementedError(f"{type(self).__name__} does not define backward")

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Apply the operation, and record it if any input wants a gradient."""
        self._check_inputs(inputs)
        self.needs = tuple(_recording.get() and x.requires_grad for x in inputs)
        try:
            output = Tensor(self.forward(*(x.data for x in inputs)))
        except ValueError as error:  # NumPy's own words for shapes that do not fit name no operation
            shapes = " and ".join(str(x.shape) for x in inputs)
            raise ValueError(f"{type(self).__name__} of {shapes}: {error}") from error
        if output.dtype != inputs[0].dtype:
            raise TypeError(f"{type(self).__name__} turned {inputs[0].dtype} into {output.dtype}")
        if any(self.needs):
            self.inputs = tuple(Origin.of(x) if x.creator else x for x in inputs)
            output.requires_grad = True
            output.creator = self
        return output

    def _check_inputs(self, inputs: tuple[Tensor, ...]) -> None:
        """One device and one dtype: a silent move or conversion would cost time and hide mistakes."""
        first = inputs[0]
        for x in inputs[1:]:
            for what, a, b in (("devices", first.device, x.device), ("dtypes", first.dtype, x.dtype)):
                if a != b:
                    raise TypeError(
                        f"{type(self).__name__} got tensors of different {what}: {a} {first.shape} and "
                        f"{b} {x.shape}; convert one of them with .to(...) first"
                    )

    def _gradients(self, dy: Array) -> tuple[Array | None, ...]:
        """Run `backward` and check what it returns: one gradient for each input, alike in every way."""
        name = type(self).__name__
        gradients = self.backward(dy)
        if not isinstance(gradients, tuple):
            gradients = (gradients,)
        if len(gradients) != len(self.inputs):
            raise RuntimeError(f"{name}.backward returned {len(gradients)} for {len(self.inputs)} inputs")
        gradients = tuple(np.asarray(dx) if isinstance(dx, np.generic) else dx for dx in gradients)
        for i, (x, dx) in enumerate(zip(self.inputs, gradients, strict=True)):
            if not self.needs[i]:
                continue
            if dx is None:
                raise RuntimeError(f"{name}.backward returned no gradient for input {i}")
            if (dx.shape, dx.dtype, device_of(dx)) != (x.shape, x.dtype, x.device):
                raise RuntimeError(
                    f"{name}.backward returned {dx.dtype} {dx.shape} on {device_of(dx)} for input {i}, "
                    f"which is {x.dtype} {x.shape} on {x.device}"
                )
        return gradients


class Tensor:
    """An array, and, if it was computed from something that wants a gradient, how it was made.

    `data` is a NumPy or CuPy array of float32 or float64; Python numbers and lists become float32.
    `grad` is an array like it, filled by `backward` for the tensors a user made with `requires_grad`.
    """

    __slots__ = ("__weakref__", "creator", "data", "grad", "requires_grad")
    __array_ufunc__ = None  # makes `array * tensor` call Tensor.__rmul__ instead of looping over elements

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        self.data = _floating_array(data)
        self.requires_grad = requires_grad
        self.grad: Array | None = None
        self.creator: Function | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        return self.data.size

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype

    @property
    def device(self) -> str:
        return device_of(self.data)

    def __repr__(self) -> str:
        made = f", from {type(self.creator).__name__}" if self.creator else ""
        return f"{type(self).__name__}({self.data}, shape {self.shape}, {self.dtype}{made})"

    def __len__(self) -> int:
        return len(self.data)

    def item(self) -> float:
        """Return the one number this tensor holds."""
        return self.data.item()

    def numpy(self) -> np.ndarray:
        """Return the value as a NumPy array."""
        return to_numpy(self.data)

    def detach(self) -> Tensor:
        """Return the same value with no history: no gradient flows through it."""
        return Tensor(self.data)

    def to(self, target: str | np.dtype | type) -> Tensor:
        """Return the value on one of `backend.DEVICES` or in a dtype, as a new leaf without history.

        Raises RuntimeError for a value that was computed: the way back to where it came from would be cut.
        """
        if self.creator is not None:
            raise RuntimeError(
                "to: this tensor was computed, and no gradient would get back; detach() it first"
            )
        if target in DEVICES:
            return Tensor(to_device(self.data, target), self.requires_grad)
        return Tensor(self.data.astype(target), self.requires_grad)

    def backward(self, gradient: Array | None = None) -> None:
        """Add dL/dx to `x.grad` for every leaf x this tensor was computed from.

        `gradient` is dL/d(self); it may be left out for a single number, which then is L itself. The graph
        is freed on the way: each function's saved arrays, and each gradient, die as soon as they are used.
        """
        if self.creator is None:
            raise RuntimeError("backward: this tensor was not computed from any that requires a gradient")
        if gradient is None:
            if self.size != 1:
                raise RuntimeError(
                    f"backward: give the gradient of a tensor of shape {self.shape}, or sum it"
                )
            gradient = np.ones(self.shape, self.dtype)
        if np.shape(gradient) != self.shape:
            raise ValueError(f"backward: the gradient is {np.shape(gradient)}, the tensor {self.shape}")
        gradient = to_device(_floating_array(gradient), self.device).astype(self.dtype, copy=False)
        _walk_back(self.creator, gradient)

    # The operators, written out so that every symbol can be found by searching for it.

    def __add__(self, other: Any) -> Tensor:
        return ops.add(self, other)

    def __radd__(self, other: Any) -> Tensor:
        return ops.add(self, other)

    def __sub__(self, other: Any) -> Tensor:
        return ops.subtract(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return ops.subtract(as_tensor(other, like=self), self)

    def __mul__(self, other: Any) -> Tensor:
        return ops.multiply(self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return ops.multiply(self, other)

    def __truediv__(self, other: Any) -> Tensor:
        return ops.divide(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return ops.divide(as_tensor(other, like=self), self)

    def __neg__(self) -> Tensor:
        return ops.negative(self)

    def __pow__(self, exponent: float) -> Tensor:
        return ops.power(self, exponent)

    def __matmul__(self, other: Any) -> Tensor:
        return ops.matmul(self, as_tensor(other, like=self))

    def __rmatmul__(self, other: Any) -> Tensor:
        return ops.matmul(as_tensor(other, like=self), self)

    def __getitem__(self, index: Any) -> Tensor:
        return ops.getitem(self, index)

    def exp(self) -> Tensor:
        return ops.exp(self)

    def log(self) -> Tensor:
        return ops.log(self)

    def sigmoid(self) -> Tensor:
        return ops.sigmoid(self)

    def relu(self) -> Tensor:
        return ops.relu(self)

    def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        return ops.sum(self, axis, keepdims)

    def mean(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        return ops.mean(self, axis, keepdims)

    def max(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        return ops.max(self, axis, keepdims)

    def reshape(self, *shape: int) -> Tensor:
        return ops.reshape(self, shape)

    def transpose(self, *axes: int) -> Tensor:
        return ops.transpose(self, axes or None)


class Parameter(Tensor):
    """A tensor that training changes: a leaf that wants a gradient. Modules find theirs by this type."""

    __slots__ = ()

    def __init__(self, data: Any) -> None:
        super().__init__(data, requires_grad=True)


class Origin(NamedTuple):
    """Where the gradient of a computed tensor goes, and what it must be like: the tensor without its array.

    A graph of tensors would keep every array until the backward pass, also those that no function wants
    there, such as the parts of a sum: a step of R2U-Net would take 40 % more memory.
    """

    creator: Function
    shape: tuple[int, ...]
    dtype: np.dtype
    device: str

    @staticmethod
    def of(x: Tensor) -> Origin:
        """Return the origin of a tensor that was computed."""
        return Origin(x.creator, x.shape, x.dtype, x.device)


def as_tensor(value: Any, like: Tensor) -> Tensor:
    """Return the value as a Tensor; a plain number takes the dtype and the device of `like`.

    A number must not decide the dtype: NumPy 2 makes float32_array * np.sqrt(2.0) a float64 array.
    """
    if isinstance(value, Tensor):
        return value
    if value is None:
        raise TypeError("cannot compute with None (NumPy would make it NaN); is a `return` missing?")
    if is_array(value):
        return Tensor(value if value.ndim else to_device(value.astype(like.dtype), like.device))
    return Tensor(to_device(np.asarray(value, like.dtype), like.device))


def _floating_array(data: Any) -> Array:
    if not is_array(data):
        dtype = data.dtype if isinstance(data, np.floating) else np.float32
        data = np.asarray(data, dtype)
    if data.dtype not in (np.float32, np.float64):
        raise TypeError(f"Tensor holds float32 or float64, got {data.dtype}; convert it with .astype(...)")
    return data


def _walk_back(root: Function, gradient: Array) -> None:
    """Visit every function behind `root` once, each after all its consumers; see the module's docstring."""
    consumers = _count_consumers(root)
    pending = {root: gradient}  # dL/dy of each function's output y, summed as its consumers are visited
    sums = set()  # the functions whose pending gradient is a sum made here, which may be added to in place
    ready = [root]
    while ready:
        function = ready.pop()
        gradients = function._gradients(pending.pop(function))
        inputs, needs = function.inputs, function.needs
        vars(function).clear()  # saved arrays die here, not at the end of the walk
        for x, needed, dx in zip(inputs, needs, gradients, strict=True):
            if not needed:
                continue
            if x.creator is None:
                # A copy: one array may be the gradient of several leaves, and whose it is may change it.
                x.grad = dx.copy() if x.grad is None else _floating_array(x.grad + dx)
                continue
            if x.creator not in pending:
                pending[x.creator] = dx
            elif x.creator not in sums:
                pending[x.creator] = pending[x.creator] + dx
                sums.add(x.creator)
            else:
                pending[x.creator] += dx
            consumers[x.creator] -= 1
            if consumers[x.creator] == 0:
                ready.append(x.creator)
        del x, dx, gradients, inputs  # or these names would keep the arrays alive into the next visit


def _count_consumers(root: Function) -> Counter[Function]:
    consumers: Counter[Function] = Counter()
    unvisited = [root]
    while unvisited:
        function = unvisited.pop()
        if "inputs" not in vars(function):
            raise RuntimeError("backward ran through this graph before; compute the value again first")
        for x, needed in zip(function.inputs, function.needs, strict=True):
            if needed and x.creator is not None:
                if x.creator not in consumers:
                    unvisited.append(x.creator)
                consumers[x.creator] += 1
    return consumers


from minidl import ops  # noqa: E402  (last, because the operations need Tensor and Function, above)

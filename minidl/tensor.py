"""Reverse-mode automatic differentiation: backpropagation through the computational graph of a result.

Every result records the function that computed it and the inputs of that function. Together these records are
the computational graph, for example y = f(x), L = g(y). By the chain rule,

    dL/dx = (dy/dx)^T dL/dy.

Each function f therefore only has to multiply a vector by the transpose of its own Jacobian (its
*vector-Jacobian product*, `Function.backward`). One backward pass, from L to the leaves of the graph, then
computes the gradient of a scalar L with respect to all leaves. A value that is used several times receives
the sum of the gradients from all its uses.

The backward pass must visit a function only after all consumers of its output, that is, in topological order.
`_backpropagate` counts the consumers of each output, and visits a function when its count reaches zero
(Kahn's algorithm). A recursive pass would overflow Python's stack at about a thousand functions. If it
followed every path, it would also take 2^n steps for n nested `x + x`. R2U-Net has such paths: `conv(x + y)`,
where y was computed from x.

Gradients are first order: a gradient is an array, not a Tensor, and cannot be differentiated again. This
halves the size of every operation, and training a U-Net needs no more.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple, NoReturn

import numpy as np

from minidl.backend import DEVICES, Array, array_module, device_of, is_array, to_device, to_numpy

_recording: ContextVar[bool] = ContextVar("recording", default=True)


@contextlib.contextmanager
def no_grad() -> Iterator[None]:
    """Record no graph inside this `with` block; evaluation then stores no intermediate arrays."""
    token = _recording.set(False)
    try:
        yield
    finally:
        _recording.reset(token)


class Function:
    """A node of the graph: one application of an operation, its forward and backward pass on raw arrays.

    Settings are passed to `__init__`. `forward` stores in attributes the arrays that `backward` will need.
    `needs[i]` is True if input i requires a gradient. Each object is called once.
    """

    # A class that computes an operation faster has its definition and a name here (`minidl.implementation`).
    definition: type[Function]
    implementation = "definition"

    needs: tuple[bool, ...]
    inputs: tuple[Tensor | Edge, ...]  # a leaf itself; for a computed tensor, the edge to its creator

    def forward(self, *arrays: Array) -> Array:
        """Compute the output from the input arrays, which must not be modified."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def backward(self, dy: Array) -> Array | tuple[Array | None, ...]:
        """Return dL/dx for each input x, given dL/dy; None for an input that requires no gradient."""
        raise NotImplementedError(f"{type(self).__name__} does not define backward")

    @classmethod
    def operation(cls) -> str:
        """Return the name of the operation, which all its implementations share."""
        return getattr(cls, "definition", cls).__name__

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Apply the operation, and record it if any input requires a gradient."""
        self._check_inputs(inputs)
        self.needs = tuple(_recording.get() and x.requires_grad for x in inputs)
        try:
            output = Tensor(self.forward(*(x.data for x in inputs)))
        except ValueError as error:  # NumPy's messages about shapes do not name the operation
            shapes = " and ".join(str(x.shape) for x in inputs)
            raise ValueError(f"{self.operation()} of {shapes}: {error}") from error
        if output.dtype != inputs[0].dtype:
            raise TypeError(f"{self.operation()} turned {inputs[0].dtype} into {output.dtype}")
        if any(self.needs):
            self.inputs = tuple(Edge.to(x) if x.creator else x for x in inputs)
            output.requires_grad = True
            output.creator = self
        return output

    def _check_inputs(self, inputs: tuple[Tensor, ...]) -> None:
        """Require tensors of one device and dtype: a silent conversion would cost time and hide mistakes."""
        for x in inputs:
            if not isinstance(x, Tensor):
                raise TypeError(
                    f"{self.operation()}: expected a Tensor, got {type(x).__name__}; use Tensor(...)"
                )
        first = inputs[0]
        for x in inputs[1:]:
            for what, a, b in (("devices", first.device, x.device), ("dtypes", first.dtype, x.dtype)):
                if a != b:
                    raise TypeError(
                        f"{self.operation()} got tensors of different {what}: {a} {first.shape} and "
                        f"{b} {x.shape}; convert one of them with .to(...) first"
                    )

    def checked_backward(self, dy: Array) -> tuple[Array | None, ...]:
        """Run `backward` and check that each gradient has the shape, dtype and device of its input."""
        name = type(self).__name__  # of the class with the mistake, not of its operation
        gradients = self.backward(dy)
        if not isinstance(gradients, tuple):
            gradients = (gradients,)
        if len(gradients) != len(self.inputs):
            raise RuntimeError(
                f"{name}.backward returned {len(gradients)} gradients for {len(self.inputs)} inputs"
            )
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
    """An array and, if it was computed from tensors that require gradients, the function that computed it.

    `data` is a NumPy or CuPy array of float32 or float64; Python numbers and lists become float32.
    `creator` is the function that computed it, or None for a leaf.
    `grad` is an array like `data`; `backward` fills it for leaves that were made with `requires_grad`.
    """

    __slots__ = ("__weakref__", "creator", "data", "grad", "requires_grad")
    __array_ufunc__ = None  # `array * tensor` then calls Tensor.__rmul__ instead of looping over elements

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
        origin = f", from {self.creator.operation()}" if self.creator else ""
        return f"{type(self).__name__}({self.data}, shape {self.shape}, {self.dtype}{origin})"

    def __len__(self) -> int:
        return len(self.data)

    def item(self) -> float:
        """Return the number in a tensor of a single element."""
        return self.data.item()

    def numpy(self) -> np.ndarray:
        """Return the value as a NumPy array."""
        return to_numpy(self.data)

    def detach(self) -> Tensor:
        """Return the same value as a new leaf: no gradient flows through it."""
        return Tensor(self.data)

    def to(self, target: str | np.dtype | type) -> Tensor:
        """Return the value on another device (of `backend.DEVICES`) or in another dtype, as a new leaf.

        Raises RuntimeError for a computed value, because no gradient would flow back to its creator.
        """
        if self.creator is not None:
            raise RuntimeError(
                "to: no gradient would flow from the new leaf to this computed tensor; call detach() first"
            )
        if target in DEVICES:
            return Tensor(to_device(self.data, target), self.requires_grad)
        return Tensor(self.data.astype(floating_dtype(target)), self.requires_grad)

    def backward(self, gradient: Array | None = None) -> None:
        """Add dL/dx to `x.grad` for every leaf x that this tensor was computed from.

        `gradient` is dL/d(self). It may be omitted for a single number, which then is L itself. The graph is
        freed during the pass: saved arrays and intermediate gradients are dropped as soon as they are used.
        Raises RuntimeError or ValueError if there is no graph, or if the gradient is missing or misshapen.
        """
        if self.creator is None:
            raise RuntimeError("backward: this tensor was not computed from any that requires a gradient")
        if gradient is None:
            if self.size != 1:
                raise RuntimeError(
                    f"backward: pass the gradient of this tensor of shape {self.shape}, or sum it first"
                )
            gradient = array_module(self.data).ones(self.shape, self.dtype)
        if np.shape(gradient) != self.shape:
            raise ValueError(
                f"backward: the gradient has shape {np.shape(gradient)}, the tensor {self.shape}"
            )
        gradient = to_device(_floating_array(gradient), self.device).astype(self.dtype, copy=False)
        _backpropagate(self.creator, gradient)

    # The operators are written out, so that each can be found by searching for it.

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

    def reshape(self, *shape: int | tuple[int, ...]) -> Tensor:
        return ops.reshape(self, shape[0] if isinstance(shape[0], tuple) else shape)

    def transpose(self, *axes: int) -> Tensor:
        return ops.transpose(self, axes or None)


class Parameter(Tensor):
    """A leaf that requires a gradient and is trained. Modules find their parameters by this type."""

    __slots__ = ()

    def __init__(self, data: Any) -> None:
        super().__init__(data, requires_grad=True)

    def __iadd__(self, other: Any) -> NoReturn:
        """Refuse `p += x`, which would make p another tensor that no module and no optimizer knows."""
        raise TypeError("a Parameter cannot be changed by +=, -=, *= or /=; write p.data = p.data + ...")

    __isub__ = __imul__ = __itruediv__ = __iadd__


class Edge(NamedTuple):
    """An edge of the graph, from a function back to the creator of one of its inputs.

    It holds the properties of the input, but not its array. A graph of tensors would store every array until
    the backward pass, even arrays that no `backward` needs, such as the terms of a sum: a training step of
    R2U-Net would take 40 % more memory.
    """

    creator: Function
    shape: tuple[int, ...]
    dtype: np.dtype
    device: str

    @staticmethod
    def to(x: Tensor) -> Edge:
        """Return the edge to the creator of a computed tensor."""
        return Edge(x.creator, x.shape, x.dtype, x.device)


def as_tensor(value: Any, like: Tensor) -> Tensor:
    """Return the value as a Tensor; a plain number takes the dtype and the device of `like`.

    A number must not determine the dtype: in NumPy 2, float32_array * np.sqrt(2.0) is a float64 array.
    """
    if isinstance(value, Tensor):
        return value
    if value is None:
        raise TypeError("cannot compute with None (NumPy would make it NaN); is a `return` missing?")
    if is_array(value):
        return Tensor(value if value.ndim else to_device(value.astype(like.dtype), like.device))
    return Tensor(to_device(np.asarray(value, like.dtype), like.device))


def floating_dtype(dtype: Any) -> np.dtype:
    """Return float32 or float64 as a dtype of NumPy. Raises TypeError for any other."""
    if dtype is None or np.dtype(dtype) not in (np.float32, np.float64):
        raise TypeError(f"a Tensor holds float32 or float64, got {dtype}")
    return np.dtype(dtype)


def _floating_array(data: Any) -> Array:
    if data is None or isinstance(data, Tensor):
        raise TypeError(f"Tensor: expected an array, a list or a number, got {type(data).__name__}")
    if not is_array(data):
        dtype = data.dtype if isinstance(data, np.floating) else np.float32
        data = np.asarray(data, dtype)
    if data.dtype not in (np.float32, np.float64):
        raise TypeError(f"a Tensor holds float32 or float64, got {data.dtype}; convert it with .astype(...)")
    return data


def _backpropagate(root: Function, gradient: Array) -> None:
    """Visit `root` and every function below it once, in topological order; see the module's docstring."""
    consumers = _count_consumers(root)
    pending = {root: gradient}  # dL/dy of each function's output y, summed as its consumers are visited
    sums = set()  # functions whose pending gradient is an array made here: more is added in place
    ready = [root]
    while ready:
        function = ready.pop()
        gradients = function.checked_backward(pending.pop(function))
        inputs, needs = function.inputs, function.needs
        vars(function).clear()  # frees the saved arrays now, not at the end of the pass
        for x, needed, dx in zip(inputs, needs, gradients, strict=True):
            if not needed:
                continue
            if x.creator is None:
                # A leaf that is used several times, such as the weight of a recurrent convolution, receives
                # the sum over its uses. A copy: one array may be the gradient of several leaves.
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
        del x, dx, gradients, inputs  # these names would keep the arrays alive during the next visit


def _count_consumers(root: Function) -> Counter[Function]:
    """Return, for each function below `root`, how many functions will send a gradient to its output.

    Raises RuntimeError if a backward pass has freed a part of the graph; nothing has been changed then.
    """
    consumers: Counter[Function] = Counter()
    unvisited = [root]
    while unvisited:
        function = unvisited.pop()
        if "inputs" not in vars(function):
            raise RuntimeError(
                "backward: an earlier backward pass has freed this graph; run the forward pass again"
            )
        for x, needed in zip(function.inputs, function.needs, strict=True):
            if needed and x.creator is not None:
                if x.creator not in consumers:
                    unvisited.append(x.creator)
                consumers[x.creator] += 1
    return consumers


from minidl import ops  # noqa: E402  (last, because the operations import Tensor and Function, above)

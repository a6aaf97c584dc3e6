"""Arithmetic on single elements, with NumPy's broadcasting.

Where y_i = f(a_i, b_i), the Jacobian is diagonal and the vector-Jacobian product is one multiplication per
element: da_i = dy_i * df/da. Broadcasting copies an element of a small input to many places of the output,
and the gradient of a copy is a sum: `unbroadcast` sums over the axes along which an input was broadcast.

    y = a + b      da =  dy            db =  dy
    y = a - b      da =  dy            db = -dy
    y = a b        da =  dy b          db =  dy a
    y = a / b      da =  dy / b        db = -dy y / b
    y = a^n        da =  dy n a^(n-1)
    y = exp(a)     da =  dy y
    y = log(a)     da =  dy / a
"""

from __future__ import annotations

from minidl.backend import Array, array_module
from minidl.tensor import Function, Tensor, as_tensor


def unbroadcast(dy: Array, shape: tuple[int, ...]) -> Array:
    """Sum a gradient over the axes along which an input of `shape` was broadcast."""
    if dy.shape == shape:
        return dy
    new_axes = dy.ndim - len(shape)
    dy = dy.sum(axis=tuple(range(new_axes)))  # broadcasting adds new axes in front
    stretched = tuple(i for i, n in enumerate(shape) if n == 1 and dy.shape[i] != 1)
    return dy.sum(axis=stretched, keepdims=True).reshape(shape)


class Add(Function):
    """y = a + b."""

    def forward(self, a: Array, b: Array) -> Array:
        self.shapes = a.shape, b.shape
        return a + b

    def backward(self, dy: Array) -> tuple[Array, Array]:
        return unbroadcast(dy, self.shapes[0]), unbroadcast(dy, self.shapes[1])


class Subtract(Function):
    """y = a - b."""

    def forward(self, a: Array, b: Array) -> Array:
        self.shapes = a.shape, b.shape
        return a - b

    def backward(self, dy: Array) -> tuple[Array, Array]:
        return unbroadcast(dy, self.shapes[0]), unbroadcast(-dy, self.shapes[1])


class Multiply(Function):
    """y = a b, element by element."""

    def forward(self, a: Array, b: Array) -> Array:
        self.a, self.b = a, b
        return a * b

    def backward(self, dy: Array) -> tuple[Array | None, Array | None]:
        da = unbroadcast(dy * self.b, self.a.shape) if self.needs[0] else None
        db = unbroadcast(dy * self.a, self.b.shape) if self.needs[1] else None
        return da, db


class Divide(Function):
    """y = a / b, element by element."""

    def forward(self, a: Array, b: Array) -> Array:
        self.b, self.y = b, a / b
        self.shape = a.shape
        return self.y

    def backward(self, dy: Array) -> tuple[Array | None, Array | None]:
        da = unbroadcast(dy / self.b, self.shape) if self.needs[0] else None
        db = unbroadcast(-dy * self.y / self.b, self.b.shape) if self.needs[1] else None
        return da, db


class Negative(Function):
    """y = -a."""

    def forward(self, a: Array) -> Array:
        return -a

    def backward(self, dy: Array) -> Array:
        return -dy


class Power(Function):
    """y = a^n for a fixed number n."""

    def __init__(self, exponent: float) -> None:
        self.exponent = float(exponent)

    def forward(self, a: Array) -> Array:
        self.a = a
        return a**self.exponent

    def backward(self, dy: Array) -> Array:
        if self.exponent == 0.0:
            return dy * 0.0  # a^0 = 1 everywhere; n a^(n-1) would be 0/0 at zero
        return dy * (self.exponent * self.a ** (self.exponent - 1.0))


class Exp(Function):
    """y = e^a."""

    def forward(self, a: Array) -> Array:
        self.y = array_module(a).exp(a)
        return self.y

    def backward(self, dy: Array) -> Array:
        return dy * self.y


class Log(Function):
    """y = log a, the natural logarithm."""

    def forward(self, a: Array) -> Array:
        self.a = a
        return array_module(a).log(a)

    def backward(self, dy: Array) -> Array:
        return dy / self.a


def add(a: Tensor, b: Tensor | float) -> Tensor:
    """Return a + b, broadcast."""
    return Add()(a, as_tensor(b, like=a))


def subtract(a: Tensor, b: Tensor | float) -> Tensor:
    """Return a - b, broadcast."""
    return Subtract()(a, as_tensor(b, like=a))


def multiply(a: Tensor, b: Tensor | float) -> Tensor:
    """Return a * b, element by element, broadcast."""
    return Multiply()(a, as_tensor(b, like=a))


def divide(a: Tensor, b: Tensor | float) -> Tensor:
    """Return a / b, element by element, broadcast."""
    return Divide()(a, as_tensor(b, like=a))


def negative(a: Tensor) -> Tensor:
    """Return -a."""
    return Negative()(a)


def power(a: Tensor, exponent: float) -> Tensor:
    """Return a to the power of a fixed number; for a tensor b as the exponent, use exp(b log a)."""
    return Power(exponent)(a)


def exp(a: Tensor) -> Tensor:
    """Return e to the power of a."""
    return Exp()(a)


def log(a: Tensor) -> Tensor:
    """Return the natural logarithm of a, which must be positive."""
    return Log()(a)

"""What `backward` does, on five operations small enough to differentiate by hand.

    y = sigmoid(w x + b) + x^2            s = sigmoid(w x + b),   s' = s (1 - s)

    dy/dw = s' x          dy/db = s'          dy/dx = s' w  +  2 x

x is used twice, so y changes in two ways when x does, and the two derivatives add. With the chain rule,
that is all of reverse-mode differentiation. It is also how a recurrent network learns: R2U-Net applies one
convolution three times over, and the gradient of its weights is the sum of three.

Run it:    python examples/scalar_graph.py                                         (less than a second)

Expect:    the graph; then for each leaf three numbers that agree to nine digits or more: what `backward`
           found, the formula above, and a central difference, which knows no calculus; then dy/dx in its
           two parts.

Try next:  1. Change `expression`, and not the formulas: which column is wrong now?
           2. H = 1e-1, then H = 1e-13. Both are worse, for opposite reasons.
           3. np.float32 for np.float64. The first two columns hardly change; the third one does.
"""

import numpy as np

from minidl import Tensor

W, X, B = -1.5, 0.8, 2.0
H = 1e-5  # step of the central difference: its error is about H^2 from curvature and 1e-16 / H from rounding


def expression(w, x, b):
    """The y of the docstring. Each symbol applies an operation that remembers what it was applied to."""
    return (w * x + b).sigmoid() + x**2


# Python's numbers would become float32, whose 7 digits a difference of near-equal numbers uses up.
w, x, b = (Tensor(np.float64(value), requires_grad=True) for value in (W, X, B))
names = {w: "w", x: "x", b: "b"}

y = expression(w, x, b)


def print_graph(tensor, depth=0):
    """Print an operation, then what it was applied to, one step further in; at the leaves, their values."""
    if tensor.creator is None:
        print(f"{'    ' * depth + names[tensor]:24}{tensor.item():9.4f}")
        return
    print("    " * depth + type(tensor.creator).__name__)
    for part in tensor.creator.inputs:
        print_graph(part, depth + 1)


# Before `backward`, because that frees the graph as it goes.
print("The graph, from y down to its leaves:\n")
print_graph(y)

y.backward()

s = 1 / (1 + np.exp(-(W * X + B)))
by_hand = {"w": s * (1 - s) * X, "x": s * (1 - s) * W + 2 * X, "b": s * (1 - s)}


def value_at(w, x, b):
    return expression(*(Tensor(np.float64(value)) for value in (w, x, b))).item()


by_difference = {
    "w": (value_at(W + H, X, B) - value_at(W - H, X, B)) / (2 * H),
    "x": (value_at(W, X + H, B) - value_at(W, X - H, B)) / (2 * H),
    "b": (value_at(W, X, B + H) - value_at(W, X, B - H)) / (2 * H),
}
gradients = {name: leaf.grad.item() for leaf, name in names.items()}

print("\n         backward        by hand         central difference")
for name in gradients:
    print(f"dy/d{name}    {gradients[name]:<15.11f} {by_hand[name]:<15.11f} {by_difference[name]:.11f}")

# Give each use of x a leaf of its own, and each receives only what comes back along its own path.
x_in_sigmoid, x_in_square = (Tensor(np.float64(X), requires_grad=True) for _ in range(2))
((w.detach() * x_in_sigmoid + b.detach()).sigmoid() + x_in_square**2).backward()
paths = x_in_sigmoid.grad.item(), x_in_square.grad.item()

print("\nx is used twice, and what comes back along its two paths adds up:")
print(f"through the sigmoid {paths[0]:.6f}, through the square {paths[1]:.6f}, together {sum(paths):.6f}")

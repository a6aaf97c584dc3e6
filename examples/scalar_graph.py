"""What `backward` does, on five operations that are easy to differentiate on paper.

    y = sigmoid(w x + b) + x^2            s = sigmoid(w x + b),   s' = s (1 - s)

    dy/dw = s' x          dy/db = s'          dy/dx = s' w  +  2 x

x is used twice, so y depends on x along two paths, and the derivatives along the paths add up. The chain rule
and this sum are all of reverse-mode differentiation (backpropagation). A recurrent network learns in the same
way: R2U-Net applies one convolution three times, and the gradient of its weights is the sum of three terms.

Run it:    python examples/scalar_graph.py                                         (less than a second)

Expect:    the graph; then for each leaf three numbers that agree to nine digits or more: the gradient that
           `backward` found, the formula above, and a central difference, which uses no calculus; then the two
           terms of dy/dx.

Try next:  1. Change `expression` but not the formulas: which column is wrong now?
           2. H = 1e-1, then H = 1e-13. Both are less accurate, for opposite reasons.
           3. np.float32 for np.float64. The first two columns hardly change; the third one does.
"""

import numpy as np

from minidl import Tensor

W, X, B = -1.5, 0.8, 2.0
H = 1e-5  # step of the central difference; its error is about H^2 by truncation and 1e-16 / H by rounding


def expression(w, x, b):
    """Return y of the docstring. Each symbol applies an operation, which stores its inputs."""
    return (w * x + b).sigmoid() + x**2


# Python floats would become float32. Its 7 digits are too few for a difference of nearly equal numbers.
w, x, b = (Tensor(np.float64(value), requires_grad=True) for value in (W, X, B))
names = {w: "w", x: "x", b: "b"}

y = expression(w, x, b)


def print_graph(tensor, depth=0):
    """Print an operation and below it, indented, its inputs; for a leaf, print its value."""
    if tensor.creator is None:
        print(f"{'    ' * depth + names.get(tensor, 'constant'):24}{tensor.item():9.4f}")
        return
    print("    " * depth + type(tensor.creator).__name__)
    for part in tensor.creator.inputs:
        print_graph(part, depth + 1)


# Print before `backward`, which frees the graph.
print("The graph, from y down to its leaves:\n")
print_graph(y)

y.backward()

s = 1 / (1 + np.exp(-(W * X + B)))
by_formula = {"w": s * (1 - s) * X, "x": s * (1 - s) * W + 2 * X, "b": s * (1 - s)}


def value_at(w, x, b):
    return expression(*(Tensor(np.float64(value)) for value in (w, x, b))).item()


by_difference = {
    "w": (value_at(W + H, X, B) - value_at(W - H, X, B)) / (2 * H),
    "x": (value_at(W, X + H, B) - value_at(W, X - H, B)) / (2 * H),
    "b": (value_at(W, X, B + H) - value_at(W, X, B - H)) / (2 * H),
}
# A leaf on which y does not depend receives no gradient.
gradients = {name: 0.0 if leaf.grad is None else leaf.grad.item() for leaf, name in names.items()}

print("\n         backward        formula         central difference")
for name in gradients:
    print(f"dy/d{name}    {gradients[name]:<15.11f} {by_formula[name]:<15.11f} {by_difference[name]:.11f}")

# With a separate leaf for each use of x, each leaf receives the gradient of its own path only.
x_in_sigmoid, x_in_square = (Tensor(np.float64(X), requires_grad=True) for _ in range(2))
((w.detach() * x_in_sigmoid + b.detach()).sigmoid() + x_in_square**2).backward()
paths = x_in_sigmoid.grad.item(), x_in_square.grad.item()

print("\nx is used twice, and the gradients along its two paths add up:")
print(f"through the sigmoid {paths[0]:.6f}, through the square {paths[1]:.6f}, together {sum(paths):.6f}")

"""A first network: two hidden layers learn to separate the two arms of a spiral.

The best straight line classifies about two thirds of the points correctly. Each ReLU unit folds the plane
along a line; 32 units, and 32 more that fold the result again, can follow the arms. The output is a logit for
each point, and sigmoid(logit) is the probability that the point is on the first arm.

Run it:    python examples/spiral_mlp.py                                        (takes two seconds)

Expect:    the loss falls from about 0.7 to below 0.01; log 2 = 0.69 is the loss of random guessing. The
           accuracy on points that are not in the training set rises from about one half to above 0.95.
           runs/spiral/boundary.png shows the decision boundary.

Try next:  1. WIDTH = 4: too few folds. WIDTH = 256: does the boundary between the points improve?
           2. Remove both `relu`: three linear layers are one linear layer, with one straight boundary.
           3. SGD(..., momentum=0.9) from minidl.optim instead of Adam. How much larger must its learning rate
              be?
           4. NOISE = 0.15: the accuracy on new points falls below the accuracy on the training points.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from minidl import Tensor, no_grad
from minidl.nn import Linear, Module
from minidl.ops import binary_cross_entropy_with_logits, relu
from minidl.optim import Adam

POINTS = 300  # on each arm
TURNS = 1.5  # turns of an arm around the centre
NOISE = 0.03  # standard deviation around the arm; the spiral's radius is 1
WIDTH = 32  # units in each of the two hidden layers
LEARNING_RATE = 1e-2
SEED = 0

parser = argparse.ArgumentParser(description="Separate the arms of a spiral with a small network.")
parser.add_argument("--steps", type=int, default=400, help="optimizer steps (default 400)")
parser.add_argument("--out", type=Path, default=Path("runs/spiral"), help="folder for the figure")
options = parser.parse_args()
if options.steps < 0:
    parser.error(f"argument --steps: must be at least 0, got {options.steps}")


def draw_spiral(rng):
    """Return random points (2 POINTS, 2) and their arms (2 POINTS, 1): 1 for the first, 0 for the second."""
    # With the root, points are equally dense along the arm.
    distance = np.sqrt(rng.uniform(0.01, 1.0, POINTS))
    angle = 2 * np.pi * TURNS * distance
    arm = distance[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)  # (POINTS, 2)
    points = np.concatenate([arm, -arm])  # the second arm is the first, rotated by half a turn
    points += rng.normal(0.0, NOISE, points.shape)
    arms = np.repeat([1.0, 0.0], POINTS)[:, None]
    return points.astype(np.float32), arms.astype(np.float32)


class Network(Module):
    """x (N, 2) -> logits (N, 1)."""

    def __init__(self, rng):
        self.first = Linear(2, WIDTH, rng=rng)
        self.second = Linear(WIDTH, WIDTH, rng=rng)
        self.head = Linear(WIDTH, 1, rng=rng)

    def forward(self, x):
        x = relu(self.first(x))  # (N, 2) -> (N, WIDTH)
        x = relu(self.second(x))
        return self.head(x)  # (N, WIDTH) -> (N, 1)


rng = np.random.default_rng(SEED)
points, arms = draw_spiral(rng)
new_points, new_arms = draw_spiral(rng)  # other points of the same spiral, to measure generalisation
model = Network(rng)
optimizer = Adam(model.parameters(), LEARNING_RATE)


def logits_at(points):
    with no_grad():
        return model(Tensor(points)).numpy()


def accuracy_on(points, arms):
    return np.mean((logits_at(points) > 0) == (arms > 0.5))  # a logit above 0 is a probability above one half


print(f"{sum(p.size for p in model.parameters())} weights, {len(points)} points")
print("step    loss   accuracy   on new points")
for step in range(options.steps + 1):
    loss = binary_cross_entropy_with_logits(model(Tensor(points)), Tensor(arms))
    if step % 50 == 0 or step == options.steps:
        accuracy, new_accuracy = accuracy_on(points, arms), accuracy_on(new_points, new_arms)
        print(f"{step:4}  {loss.item():.4f}     {accuracy:.4f}          {new_accuracy:.4f}")
    if step < options.steps:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

side = np.linspace(-1.25, 1.25, 300, dtype=np.float32)
grid = np.stack(np.meshgrid(side, side), axis=-1)  # (300, 300, 2)
logits = logits_at(grid.reshape(-1, 2)).reshape(grid.shape[:2])  # (90000, 1) -> (300, 300)
probability = Tensor(logits).sigmoid().numpy()

figure = Figure(figsize=(5.8, 4.9), dpi=150, layout="constrained")
axes = figure.subplots()
shades = axes.contourf(side, side, probability, np.linspace(0, 1, 21), cmap="RdBu", alpha=0.75)
axes.contour(side, side, logits, [0.0], colors="black", linewidths=1.5)
for arm, colour, label in ((1, "#053061", "first arm"), (0, "#67001f", "second arm")):
    chosen = new_points[new_arms[:, 0] == arm]
    axes.scatter(*chosen.T, s=9, color=colour, edgecolors="white", linewidths=0.4, label=label)
axes.set_aspect("equal")
axes.set_title(f"points not trained on, accuracy {new_accuracy:.3f}", fontsize=11)
axes.legend(loc="lower right", fontsize=9, markerscale=2)
bar = figure.colorbar(shades, ticks=[0, 0.25, 0.5, 0.75, 1], shrink=0.98)
bar.set_label("probability of the first arm")

options.out.mkdir(parents=True, exist_ok=True)
figure.savefig(options.out / "boundary.png")
print(f"the decision boundary is drawn in {options.out / 'boundary.png'}")

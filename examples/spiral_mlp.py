"""A first network: two hidden layers learn to tell the arms of a spiral apart.

The best straight line is right about two points in three. Each ReLU unit folds the plane along a line of its
own; 32 of them, and 32 more that fold the result again, can follow the arms. What is learned is a logit a
point, and sigmoid(logit) is the probability that the point lies on the first arm.

Run it:    python examples/spiral_mlp.py                                        (takes two seconds)

Expect:    the loss falls from about 0.7, which is log 2, the loss of a coin, to below 0.01; the accuracy on
           points that training never saw rises from about one half to above 0.95. runs/spiral/boundary.png
           shows the border that was found.

Try next:  1. WIDTH = 4: too few bends. WIDTH = 256: does the border improve between the points?
           2. Leave out both `relu`: three linear layers are one linear layer, with one straight border.
           3. SGD(..., momentum=0.9) from minidl.optim in place of Adam. How much larger must its rate be?
           4. NOISE = 0.15: the accuracy on the training points and on new ones come apart.
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
TURNS = 1.5  # how often an arm winds around the centre
NOISE = 0.03  # standard deviation around the arm; the spiral's radius is 1
WIDTH = 32  # units in each of the two hidden layers
LEARNING_RATE = 1e-2
SEED = 0

parser = argparse.ArgumentParser(description="Separate the arms of a spiral with a small network.")
parser.add_argument("--steps", type=int, default=400, help="steps of the optimizer (default 400)")
parser.add_argument("--out", type=Path, default=Path("runs/spiral"), help="folder for the picture")
options = parser.parse_args()


def draw_spiral(rng):
    """Draw points (2 POINTS, 2) and their arms (2 POINTS, 1), 1 for the first and 0 for the second."""
    distance = np.sqrt(rng.uniform(0.01, 1.0, POINTS))  # the root makes the points as dense outside as inside
    angle = 2 * np.pi * TURNS * distance
    arm = distance[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)  # (POINTS, 2)
    points = np.concatenate([arm, -arm])  # the second arm is the first, turned by half a turn
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
new_points, new_arms = draw_spiral(rng)  # the same spiral, other points: to judge what was not memorised
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
print(f"the border between the arms is drawn in {options.out / 'boundary.png'}")

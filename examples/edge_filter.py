"""What a convolution learns: nine weights that turn images into their edges, learned from examples alone.

The Sobel filter (1968) measures how fast the brightness increases to the right, smoothed vertically:

    -1  0  1
    -2  0  2          y = the image convolved with it
    -1  0  1

We give a 3x3 convolution images x and their edges y, and minimise L = mean (w * x - y)^2 by gradient descent.
L is a quadratic function of the nine weights. Its Hessian, the curvature, is 2 E[c c^T], where c are the nine
pixels under the filter. In a direction of curvature k, a step of learning rate r multiplies the error by
1 - r k. For r k > 2 the error grows. So the steepest direction limits the learning rate, and the flattest
direction determines the number of steps.

In white noise the nine pixels are independent: k is 2 in every direction, and r = 1/4 halves every error. In
real images neighbouring pixels are nearly equal: the curvature along their sum is hundreds of times the
curvature along their differences. This is why deep networks need more than plain gradient descent.

Run it:    python examples/edge_filter.py                                          (takes a second)

Expect:    the largest error of a weight halves at each step, and the learned filter agrees with the true
           one to three decimals. runs/edge_filter/edges.png shows both on a lesion that was not in the
           training images.

Try next:  1. --images lesions --steps 2000: the loss is near zero long before the weights are right. Which
              errors of the weights hardly change the loss?
           2. STEP = 1 converges almost at once, 1.8 overshoots, 2.2 diverges.
           3. Adam(layer.parameters(), 0.05) from minidl.optim, on lesions: each weight has its own step size.
           4. TRUE_KERNEL = any other nine numbers. Add noise to the edges: it averages out.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.lib.stride_tricks import sliding_window_view

from minidl import Tensor, no_grad
from minidl.nn import Conv2d
from minidl.ops import conv2d
from minidl.optim import SGD
from r2unet import SyntheticLesions

TRUE_KERNEL = [[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]
COUNT, SIZE = 16, 64  # training images, and their height and width in pixels
STEP = 0.5  # the learning rate times the largest curvature
SEED = 0

parser = argparse.ArgumentParser(description="Learn an edge filter from images and their edges.")
parser.add_argument("--images", choices=("noise", "lesions"), default="noise", help="training images")
parser.add_argument("--steps", type=int, default=20, help="steps of gradient descent (default 20)")
parser.add_argument("--out", type=Path, default=Path("runs/edge_filter"), help="folder for the figure")
options = parser.parse_args()
if options.steps < 0:
    parser.error(f"argument --steps: must be at least 0, got {options.steps}")

rng = np.random.default_rng(SEED)
lesions = SyntheticLesions(COUNT + 1, SIZE, seed=SEED)
grey = np.stack([lesions[i].image.mean(axis=2) for i in range(COUNT + 1)])  # (COUNT + 1, SIZE, SIZE)
grey = ((grey - grey.mean()) / grey.std())[:, None].astype(np.float32)  # -> (COUNT + 1, 1, SIZE, SIZE)
noise = rng.normal(size=(COUNT, 1, SIZE, SIZE)).astype(np.float32)

# The last lesion is held out for the figure: the filter should also work on an image it was not trained on.
images = Tensor(noise if options.images == "noise" else grey[:-1])
true_kernel = np.array(TRUE_KERNEL, np.float32)[None, None]  # (OC, C, KH, KW) = (1, 1, 3, 3)
edges = conv2d(images, Tensor(true_kernel))  # (COUNT, 1, SIZE, SIZE) -> (COUNT, 1, SIZE - 2, SIZE - 2)

layer = Conv2d(1, 1, 3, rng=rng)  # its bias should stay zero, which it has to learn too

windows = sliding_window_view(images.numpy(), (3, 3), axis=(2, 3))  # (COUNT, 1, SIZE - 2, SIZE - 2, 3, 3)
c = windows.reshape(-1, 9)  # the nine pixels under the filter, a row for each position of the filter
curvature = np.linalg.eigvalsh(2 * c.T @ c / len(c))  # (9,) from the flattest direction to the steepest
optimizer = SGD(layer.parameters(), lr=STEP / float(curvature[-1]))

print(
    f"training on {options.images}: curvature {curvature[0]:.3f} to {curvature[-1]:.3f}, "
    f"learning rate {optimizer.lr:.3f}"
)
print("step        loss   largest error of a weight")
for step in range(options.steps + 1):
    loss = ((layer(images) - edges) ** 2).mean()
    error = np.abs(layer.weight.numpy() - true_kernel).max()
    if step % max(1, options.steps // 10) == 0:
        print(f"{step:4}  {loss.item():.4e}   {error:.6f}")
    if step < options.steps:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

print("\nlearned filter              true filter")
for learned_row, true_row in zip(layer.weight.numpy()[0, 0], TRUE_KERNEL, strict=True):
    print("".join(f"{v:z8.4f}" for v in learned_row), "  ", "".join(f"{v:5.0f}" for v in true_row))
print(f"learned bias {layer.bias.item():z.4f}, true bias 0")

with no_grad():
    lesion = Tensor(grey[-1:])  # (1, 1, SIZE, SIZE)
    shown = {
        "a lesion not trained on": lesion,
        "edges, true filter": conv2d(lesion, Tensor(true_kernel)),
        "edges, learned filter": layer(lesion),
    }
figure = Figure(figsize=(9.6, 3.5), dpi=150, layout="constrained")
for axes, (title, image) in zip(figure.subplots(1, 3), shown.items(), strict=True):
    axes.imshow(image.numpy()[0, 0], cmap="gray")
    axes.set_title(title, fontsize=11)
    axes.set_axis_off()
options.out.mkdir(parents=True, exist_ok=True)
figure.savefig(options.out / "edges.png")
print(f"the edges of a lesion are drawn in {options.out / 'edges.png'}")

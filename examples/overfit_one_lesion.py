"""The first test of any network: can it overfit one image?

A network that cannot do this is broken: a skip connection is missing, a gradient does not arrive, or the mask
belongs to another image. A network that can do it has passed the cheapest test, which says nothing about
other images. Run this test before every long training run: it takes seconds and can save days.

Two numbers are printed for the mask. The loss, cross-entropy + (1 - soft Dice), is differentiable, and
gradient descent minimises it. Dice, twice the overlap divided by the sum of the two areas, is the goal; it is
piecewise constant, so its gradient is zero.

Run it:    python examples/overfit_one_lesion.py                                (takes two seconds)

Expect:    the loss falls towards 0. Dice exceeds 0.95 within about twenty steps and reaches 0.99. In
           evaluation mode, with running statistics, the same network agrees. runs/overfit/overlays.png shows
           its predictions before, during and after training.

Try next:  1. --steps 8: in evaluation mode Dice is lower. The running averages of batch norm move by a tenth
              per step, so they still describe the network of earlier steps.
           2. RECURRENT_STEPS = 0, a plain residual U-Net, and 3: the number of weights stays the same. Count
              them.
           3. LESION = 7, a small and faint lesion under hairs. Why is its loss so much higher at first?
           4. collate two lesions instead of one. Does it take twice as many steps?
"""

import argparse
from pathlib import Path

import numpy as np

from minidl import Tensor, no_grad
from minidl.ops import binary_cross_entropy_with_logits, soft_dice_loss
from minidl.optim import Adam
from r2unet import R2UNet, SyntheticLesions, collate, confusion, dice, jaccard
from r2unet.scores.overlays import OverlayRow, plot_overlays

LESION = 6  # number of the generated lesion; this one has an irregular border and a ruler next to it
SIZE = 64  # image size in pixels; must be divisible by 4, because three levels halve it twice
WIDTHS = (4, 8, 16)  # channels of each level
RECURRENT_STEPS = 2  # the paper's t: each 3x3 convolution is applied t + 1 times
LEARNING_RATE = 1e-2
SEED = 0
SHOWN = (0, 5)  # steps whose prediction is drawn, in addition to the last step

parser = argparse.ArgumentParser(description="Overfit a small R2U-Net to one lesion.")
parser.add_argument("--steps", type=int, default=60, help="optimizer steps (default 60)")
parser.add_argument("--out", type=Path, default=Path("runs/overfit"), help="folder for the figure")
options = parser.parse_args()
if options.steps < 0:
    parser.error(f"argument --steps: must be at least 0, got {options.steps}")

sample = SyntheticLesions(LESION + 1, SIZE, seed=SEED)[LESION]
batch = collate([sample])
images, masks = Tensor(batch.images), Tensor(batch.masks)  # (1, 3, SIZE, SIZE) and (1, 1, SIZE, SIZE)

model = R2UNet(3, 1, WIDTHS, RECURRENT_STEPS, rng=np.random.default_rng(SEED))
optimizer = Adam(model.parameters(), LEARNING_RATE)


def score(logits):
    """Compare the predicted mask with the true one; a logit above 0 is a probability above one half."""
    return confusion(logits.numpy()[0, 0] > 0, sample.mask)


def overlay_row(logits, name):
    probability = logits.detach().sigmoid().numpy()[0, 0]  # (1, 1, SIZE, SIZE) -> (SIZE, SIZE)
    return OverlayRow(sample.image, sample.mask, probability, name, jaccard(score(logits)))


rows = []
print(f"{sum(p.size for p in model.parameters())} weights, {SIZE} x {SIZE} pixels")
print("step    loss     Dice")
for step in range(options.steps + 1):
    logits = model(images)
    loss = binary_cross_entropy_with_logits(logits, masks) + soft_dice_loss(logits, masks)
    training_dice = dice(score(logits))
    if step % 10 == 0 or step == options.steps:
        print(f"{step:4}  {loss.item():.4f}   {training_dice:.4f}")
    if step in SHOWN:
        rows.append(overlay_row(logits, f"step {step}"))
    if step < options.steps:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

model.eval()
with no_grad():
    logits = model(images)
evaluation_dice = dice(score(logits))
print(f"in evaluation mode, with running statistics: Dice {evaluation_dice:.4f}")

rows.append(overlay_row(logits, f"step {options.steps}"))
plot_overlays(rows, options.out / "overlays.png")
print(f"the outlines are drawn in {options.out / 'overlays.png'}")

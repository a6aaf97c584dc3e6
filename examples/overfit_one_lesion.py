"""The first test of any network: can it learn one image by heart?

A network that cannot is broken: a skip cut off, a gradient that does not arrive, a mask that does not belong
to its image. One that can has passed the cheapest test there is, and nothing more: it says nothing about
images it has not seen. Do this before every long training; it takes seconds and saves nights.

Two numbers are printed for the mask. The loss, cross-entropy + (1 - soft Dice), is what gradient descent
can follow; Dice, twice the overlap over the sum of the two areas, is what we want, and has steps that no
gradient sees.

Run it:    python examples/overfit_one_lesion.py                                (takes two seconds)

Expect:    the loss falls towards 0, and Dice passes 0.95 within some twenty steps and comes to 0.99. The same
           network in evaluation mode, with its running statistics, agrees. runs/overfit/overlays.png shows
           what it answered before, during and after.

Try next:  1. --steps 8: in evaluation mode Dice lags behind. A batch norm's running averages move by a tenth
              a step, so they still describe the network of some steps ago.
           2. RECURRENT_STEPS = 0, a plain residual U-Net, and 3: the weights stay as many. Count them.
           3. LESION = 7, a small and faint one among hairs. Why is its loss so much higher at first?
           4. collate two lesions in place of one. Does it take twice as many steps?
"""

import argparse
from pathlib import Path

import numpy as np

from minidl import Tensor, no_grad
from minidl.ops import binary_cross_entropy_with_logits, soft_dice_loss
from minidl.optim import Adam
from r2unet.data.sample import collate
from r2unet.data.synthetic import SyntheticLesions
from r2unet.network.model import R2UNet
from r2unet.plots import OverlayRow, plot_overlays
from r2unet.scores.metrics import confusion, dice, jaccard

LESION = 6  # which of the generated lesions: this one has a ragged border, and a ruler beside it
SIZE = 64  # pixels a side; must divide by 4, since three levels halve it twice
WIDTHS = (4, 8, 16)  # channels of each level
RECURRENT_STEPS = 2  # the paper's t: each 3x3 convolution is applied t + 1 times
LEARNING_RATE = 1e-2
SEED = 0
SHOWN = (0, 5)  # steps whose answer is drawn, beside the last one

parser = argparse.ArgumentParser(description="Let a small R2U-Net learn one lesion by heart.")
parser.add_argument("--steps", type=int, default=60, help="steps of the optimizer (default 60)")
parser.add_argument("--out", type=Path, default=Path("runs/overfit"), help="folder for the picture")
options = parser.parse_args()

sample = SyntheticLesions(LESION + 1, SIZE, seed=SEED)[LESION]
batch = collate([sample])
images, masks = Tensor(batch.images), Tensor(batch.masks)  # (1, 3, SIZE, SIZE) and (1, 1, SIZE, SIZE)

model = R2UNet(3, 1, WIDTHS, RECURRENT_STEPS, rng=np.random.default_rng(SEED))
optimizer = Adam(model.parameters(), LEARNING_RATE)


def score(logits):
    """Compare the predicted mask with the true one; a logit above 0 is a probability above one half."""
    return confusion(logits.numpy()[0, 0] > 0, sample.mask)


def picture(logits, name):
    probability = logits.detach().sigmoid().numpy()[0, 0]  # (1, 1, SIZE, SIZE) -> (SIZE, SIZE)
    return OverlayRow(sample.image, sample.mask, probability, name, jaccard(score(logits)))


pictures = []
print(f"{sum(p.size for p in model.parameters())} weights, {SIZE} x {SIZE} pixels")
print("step    loss     Dice")
for step in range(options.steps + 1):
    logits = model(images)
    loss = binary_cross_entropy_with_logits(logits, masks) + soft_dice_loss(logits, masks)
    training_dice = dice(score(logits))
    if step % 10 == 0 or step == options.steps:
        print(f"{step:4}  {loss.item():.4f}   {training_dice:.4f}")
    if step in SHOWN:
        pictures.append(picture(logits, f"step {step}"))
    if step < options.steps:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

model.eval()
with no_grad():
    logits = model(images)
evaluation_dice = dice(score(logits))
print(f"in evaluation mode, with running statistics: Dice {evaluation_dice:.4f}")

pictures.append(picture(logits, f"step {options.steps}"))
plot_overlays(pictures, options.out / "overlays.png")
print(f"the outlines are drawn in {options.out / 'overlays.png'}")

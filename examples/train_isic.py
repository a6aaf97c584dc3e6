"""Train R2U-Net to segment skin lesions: a complete training run in one script, to read from top to bottom.

`r2unet train` does the same with more checks and options. Here nothing is hidden: settings, data, model, the
training loop, validation, and a checkpoint from which training can be resumed. Change a line and see what it
does.

Run it:    python examples/train_isic.py                                  (generated lesions, half a minute)
           python examples/train_isic.py --data ISIC --limit 200          (a quick try on real images)
           python examples/train_isic.py --data ISIC --size 128 --epochs 40 --out runs/isic

You can interrupt it at any time. The same command with --resume resumes after the last complete epoch, and
ends with the same weights as an uninterrupted run.

Expect:    a line per epoch, with the mean Jaccard rising; at the end the scores of the best epoch and of two
           baselines that need no network. OUT/curves.png and OUT/overlays.png show both. Use the weights with
           `r2unet predict PHOTO --checkpoint OUT/best.npz --out masks`. This is not a medical device.

Try next:  1. augment=0.0 learns so few images faster. Are the two losses still close after 40 epochs?
           2. Only one of the two terms in `loss_function`. Which of them finds the small lesions?
           3. steps=0, a residual U-Net with as many weights. Use several seeds before you believe a gain.
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

from minidl import Tensor, checkpoint, no_grad
from minidl.backend import resolve_device
from minidl.data import DataLoader
from minidl.ops import binary_cross_entropy_with_logits, soft_dice_loss
from minidl.optim import AdamW, CosineLR, clip_grad_norm
from r2unet import (
    InputError,
    LesionImages,
    R2UNet,
    Settings,
    SyntheticLesions,
    collate,
    confusion,
    find_pairs,
)
from r2unet.data.augment import augment
from r2unet.scores import evaluate
from r2unet.scores.metrics import summarize
from r2unet.scores.overlays import plot_overlays
from r2unet.scores.predictions import predict_samples
from r2unet.scores.ranking import best_to_worst_rows
from r2unet.training.checkpoints import checkpoint_header, read_settings, read_state
from r2unet.training.curves import plot_curves
from r2unet.training.run_folder import BEST, LAST

# Settings

parser = argparse.ArgumentParser(description="Train R2U-Net to segment skin lesions, in one script.")
parser.add_argument("--data", help="folder of ISIC 2016, 2017 or 2018 (default: generated lesions)")
parser.add_argument("--epochs", type=int, default=6, help="passes over the training images (default 6)")
parser.add_argument("--size", type=int, default=48, help="image size in pixels, divisible by 8 (default 48)")
parser.add_argument(
    "--out", type=Path, default=Path("runs/train_isic"), help="folder for checkpoints and figures"
)
parser.add_argument("--resume", action="store_true", help="resume the training run in --out")
parser.add_argument(
    "--limit", type=int, metavar="N", help="use the first N images of each split, or generate N"
)
options = parser.parse_args()

settings = Settings(
    data=options.data,
    size=options.size,
    epochs=options.epochs,
    images=options.limit or 160,  # lesions to generate for training without --data
    widths=(8, 16, 32, 64),  # channels of each level; each level halves the image
    steps=2,  # the paper's t: each 3x3 convolution is applied t + 1 times
    batch_size=8,  # images per step
    lr=2e-3,  # AdamW's learning rate after the warm-up
    weight_decay=1e-2,  # each step subtracts lr * weight_decay * weight from every weight
    warmup_epochs=1.0,  # epochs over which the learning rate rises; then it follows half a cosine down
    clip=1.0,  # maximum gradient norm (gradient clipping)
    augment=1.0,  # strength of random crops and colours, from 0 (none) to 2
    seed=0,  # of the initial weights, the order of the images and the augmentation
)

# Data, and with --resume the saved state. Errors in either should appear now, not in an hour.

state = None
try:
    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit {options.limit}: must be at least 1")
    if settings.size % settings.multiple:
        raise InputError(
            f"--size {settings.size}: must be divisible by {settings.multiple}, "
            f"to be halved {len(settings.widths) - 1} times"
        )
    settings.check()
    if options.resume:
        state = read_state(options.out / LAST)
        if (read_settings(state), state.get("limit", 0)) != (settings, options.limit):
            raise InputError(
                f"--out {options.out}: was started with other settings; repeat its options and add --resume"
            )
    elif (options.out / LAST).exists():
        raise InputError(
            f"--out {options.out}: already contains a training run; add --resume, or choose another folder"
        )
    if settings.data is None:
        training = SyntheticLesions(settings.images, settings.size, settings.seed)
        # A distant seed, so that no training set of any practical size contains these lesions.
        validation = SyntheticLesions(max(1, settings.images // 5), settings.size, settings.seed + 1_000_003)
    else:
        pairs = (find_pairs(settings.data, split)[: options.limit] for split in ("training", "validation"))
        training, validation = (LesionImages(p, settings.size, progress=sys.stderr.isatty()) for p in pairs)
    options.out.mkdir(parents=True, exist_ok=True)
except (InputError, OSError) as error:
    parser.exit(2, f"{parser.prog}: error: {error}\n")

# Model, optimizer, schedule

device = resolve_device("auto")  # the GPU if CUDA works
weight_rng, batch_rng = np.random.default_rng(settings.seed).spawn(2)
model = R2UNet(3, 1, settings.widths, settings.steps, rng=weight_rng).to(device)
transform = partial(augment, strength=settings.augment)  # random for each image in each epoch
loader = DataLoader(
    training,
    settings.batch_size,
    shuffle=True,
    rng=batch_rng,
    transform=transform,
    collate=collate,
    threads=1,
)
optimizer = AdamW(model.parameters(), settings.lr, weight_decay=settings.weight_decay)
warmup = int(settings.warmup_epochs * len(loader))
schedule = CosineLR(optimizer, total_steps=settings.epochs * len(loader), warmup_steps=warmup)
history = []
if state:
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    batch_rng.bit_generator.state = state["random"]
    history = state["history"]


def loss_function(logits, masks):
    """Cross-entropy scores every pixel; soft Dice scores the region, so that small lesions count as much."""
    return binary_cross_entropy_with_logits(logits, masks) + soft_dice_loss(logits, masks)


# The training loop

print(f"{len(training)} images for training, {len(validation)} for validation, on the {device}", flush=True)
for epoch in range(len(history) + 1, settings.epochs + 1):
    started = time.monotonic()
    model.train()
    train_loss = 0.0
    for batch in loader:
        images, masks = Tensor(batch.images).to(device), Tensor(batch.masks).to(device)
        loss = loss_function(model(images), masks)  # (N, 3, H, W) -> (N, 1, H, W) -> a scalar
        optimizer.zero_grad()  # backward adds to the gradients
        loss.backward()
        clip_grad_norm(optimizer.parameters, settings.clip)
        optimizer.step()
        schedule.step()
        train_loss += loss.item() * len(images) / len(training)

    model.eval()  # batch norm now uses its running statistics
    validation_loss, counts = 0.0, []
    for batch in DataLoader(validation, settings.batch_size, collate=collate):
        with no_grad():
            logits = model(Tensor(batch.images).to(device)).to("cpu")  # (N, 1, H, W)
            loss = loss_function(logits, Tensor(batch.masks))
            validation_loss += loss.item() * len(logits) / len(validation)
        predicted = logits.numpy() > 0  # a logit above 0 is a probability above one half
        counts += [confusion(*pair) for pair in zip(predicted, batch.masks > 0.5, strict=True)]
    scores = summarize(counts, np.random.default_rng(0))["mean"]

    row = {"epoch": epoch, "train_loss": train_loss, "validation_loss": validation_loss}
    row |= {f"validation_{name}": scores[name] for name in ("jaccard", "dice")}
    best = all(row["validation_jaccard"] > earlier["validation_jaccard"] for earlier in history)
    history.append(row)
    state = {
        **checkpoint_header(settings),
        "limit": options.limit,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "random": batch_rng.bit_generator.state,  # determines the order and augmentation of later epochs
        "history": history,
    }
    if best:
        checkpoint.save(options.out / BEST, state)
    checkpoint.save(options.out / LAST, state)
    plot_curves(history, options.out / "curves.png")
    print(
        f"epoch {epoch}/{settings.epochs}  loss {train_loss:.4f}  validation: loss {validation_loss:.4f}  "
        f"Jaccard {scores['jaccard']:.4f}  Dice {scores['dice']:.4f}  {time.monotonic() - started:.0f} s",
        flush=True,
    )

# The scores of the best epoch, with baselines that need no network

model.load_state_dict(read_state(options.out / BEST)["model"])
model.eval()
predictions = list(predict_samples(model, validation, settings.batch_size, device))
report = evaluate.report(predictions, None, np.random.default_rng(settings.seed))
plot_overlays(best_to_worst_rows(predictions, count=6), options.out / "overlays.png")
print(evaluate.as_table(report), *evaluate.baseline_warnings(report), sep="\n")
print(f"the weights are in {options.out / BEST}")

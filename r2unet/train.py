"""Training R2U-Net, so that it can be stopped anywhere and goes on as if it had not been.

A step is: a batch, the loss, its gradients, one move of the optimizer. The loss is binary cross-entropy
plus soft Dice: the first judges every pixel, the second the region, and small lesions count in it as much
as large ones.

What happens next depends on the weights, the optimizer's memory, the schedule's step, and the random
state at the epoch's start with the number of batches done since (`minidl.data` says why that suffices).
All of it is saved about every minute, at each epoch's end and on Ctrl-C, and never between the halves of
a step, so a run that was killed continues bit for bit on the path it would have taken.
"""

from __future__ import annotations

import csv
import io
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from minidl import Tensor, checkpoint, no_grad
from minidl.backend import to_device
from minidl.data import DataLoader
from minidl.ops import binary_cross_entropy_with_logits, soft_dice_loss
from minidl.optim import AdamW, CosineLR, clip_grad_norm
from r2unet import baselines, evaluate
from r2unet.augment import augment
from r2unet.errors import InputError
from r2unet.images import written_whole
from r2unet.isic import LesionImages, find_pairs
from r2unet.metrics import confusion, summarize
from r2unet.run import BEST, LAST, Settings, load_model, new_model, stamp
from r2unet.sample import Batch, Sample, collate
from r2unet.synthetic import SyntheticLesions

SAVE_SECONDS = 60.0
VALIDATION_SHARE = 5  # one generated lesion for validation to so many for training


class Interrupted(Exception):
    """A training was asked to stop, and has saved its state."""


def load_datasets(
    settings: Settings, threads: int = 2, cache: Path | None = None, progress: bool = False
) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """Return the training and the validation images, decoded once, or generated lesions where there is no
    data."""
    if settings.data is None:
        held_out = max(1, settings.images // VALIDATION_SHARE)
        # Seeds side by side, not one data set cut in two: more images for training leave validation as it is.
        return (
            SyntheticLesions(settings.images, settings.size, seed=settings.seed),
            SyntheticLesions(held_out, settings.size, seed=settings.seed + 1_000_003),
        )
    pairs = [find_pairs(settings.data, split) for split in ("training", "validation")]
    return tuple(LesionImages(p, settings.size, threads, cache, progress) for p in pairs)


def loss_of(logits: Tensor, masks: Tensor) -> Tensor:
    """Return binary cross-entropy + soft Dice, logits and masks (N, 1, H, W) -> one number."""
    return binary_cross_entropy_with_logits(logits, masks) + soft_dice_loss(logits, masks)


class Trainer:
    """One training run: its model, data and progress, and the files it writes into `out`.

    `say` receives a line of text for a person; `bar` draws progress on stderr.
    """

    def __init__(
        self,
        settings: Settings,
        out: Path,
        training: Sequence[Sample],
        validation: Sequence[Sample],
        device: str = "cpu",
        threads: int = 1,
        say: Callable[[str], None] = print,
        bar: bool = False,
    ) -> None:
        self.settings, self.out, self.device, self.say, self.bar = settings, out, device, say, bar
        self.training, self.validation = training, validation
        for_weights, for_batches = np.random.default_rng(settings.seed).spawn(2)
        self.model = new_model(settings, for_weights).to(device)
        self.loader = DataLoader(
            training,
            settings.batch_size,
            shuffle=True,
            rng=for_batches,
            transform=partial(augment, strength=settings.augment) if settings.augment else None,
            collate=collate,
            threads=threads,
        )
        steps = len(self.loader) * settings.epochs
        self.optimizer = AdamW(self.model.parameters(), settings.lr, weight_decay=settings.weight_decay)
        self.schedule = CosineLR(self.optimizer, steps, int(len(self.loader) * settings.warmup_epochs))
        self.mean_mask = baselines.MeanMask.fit(
            training[i].mask for i in range(min(len(training), evaluate.MEAN_MASK_IMAGES))
        ).mask
        self.history: list[dict[str, float]] = []
        self.random = for_batches.bit_generator.state  # as it was when this epoch began
        self.batches_done, self.loss_sum = 0, 0.0  # in this epoch
        self.stop = False

    # The state, and its way to the disk and back

    def state(self) -> dict[str, Any]:
        """Return all that decides how this training goes on."""
        return {
            **stamp(self.settings),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": self.random,
            "batches_done": self.batches_done,
            "loss_sum": self.loss_sum,
            "history": self.history,
            "mean_mask": self.mean_mask,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up where `state` left off."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.random, self.history = state["random"], state["history"]
        self.batches_done, self.loss_sum = state["batches_done"], state["loss_sum"]

    def save(self, name: str = LAST) -> None:
        """Write the state to a file of the run's folder, whole or not at all."""
        path = self.out / name
        try:
            checkpoint.save(path, self.state())
        except OSError as fault:
            raise InputError(
                f"{path}: cannot be written ({fault.strerror or fault}); free space or choose another --out"
            ) from None
        self.saved_at = time.monotonic()

    # Training

    def run(self) -> dict[str, Any]:
        """Train to the last epoch and return the report of the best one. Raises Interrupted on Ctrl-C."""
        self.saved_at = time.monotonic()
        with self._stopping_gently(), self._progress() as progress:
            while len(self.history) < self.settings.epochs:
                started = time.monotonic()
                train_loss = self._train_epoch(progress)
                self._finish_epoch(train_loss, started)
        return self._report()

    def _train_epoch(self, progress: Any) -> float:
        """Run this epoch's remaining batches; return the mean loss over all of its images."""
        progress.set_description(f"epoch {len(self.history) + 1}/{self.settings.epochs}")
        self.model.train()
        self.loader.rng.bit_generator.state = self.random
        for batch in self.loader.batches(start=self.batches_done):
            loss = self._step(batch)
            self.batches_done += 1
            self.loss_sum += loss * len(batch.names)
            progress.set_postfix(loss=f"{loss:.3f}", refresh=False)
            progress.update(len(batch.names))
            if self.stop:
                self._interrupt()
            if time.monotonic() - self.saved_at > SAVE_SECONDS:
                self.save()
        return self.loss_sum / len(self.training)

    def _step(self, batch: Batch) -> float:
        """Move the weights once, by the gradient of one batch; return its loss."""
        loss = loss_of(*self._forward(batch))
        value = loss.item()
        self.optimizer.zero_grad()
        loss.backward()
        length = clip_grad_norm(self.optimizer.parameters, self.settings.clip)
        if not (math.isfinite(value) and math.isfinite(length)):
            raise InputError(
                f"the loss is {value} and its gradient's length {length} in epoch {len(self.history) + 1}, "
                f"step {self.batches_done + 1}, on {', '.join(batch.names)}; look at them, or lower --lr"
            )
        self.optimizer.step()
        self.schedule.step()
        return value

    def _forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the batch's logits and masks, (N, 1, H, W) each, on the device."""
        images, masks = (Tensor(to_device(array, self.device)) for array in (batch.images, batch.masks))
        return self.model(images), masks

    def _finish_epoch(self, train_loss: float, started: float) -> None:
        """Validate, write the epoch down, save, and keep the state if it is the best so far."""
        scores = self._validate()
        row = {"epoch": len(self.history) + 1, "lr": self.optimizer.lr, "train_loss": train_loss, **scores}
        best = all(row["validation_jaccard"] > earlier["validation_jaccard"] for earlier in self.history)
        self.history.append(row)
        self.random = self.loader.rng.bit_generator.state
        self.batches_done, self.loss_sum = 0, 0.0
        if best:
            self.save(BEST)
        self.save()
        self._write_history()
        self.say(
            f"epoch {row['epoch']:3}/{self.settings.epochs}  loss {train_loss:.4f}  validation: loss "
            f"{row['validation_loss']:.4f}  Jaccard {row['validation_jaccard']:.4f}  Dice "
            f"{row['validation_dice']:.4f}  {time.monotonic() - started:.0f} s{'  best' if best else ''}"
        )
        if self.stop:
            self._interrupt()

    def _validate(self) -> dict[str, float]:
        """Return the validation images' loss and mean scores at the training size."""
        self.model.eval()
        counts, loss = [], 0.0
        for batch in DataLoader(self.validation, self.settings.batch_size, collate=collate):
            with no_grad():
                logits, masks = self._forward(batch)
                loss += loss_of(logits, masks).item() * len(batch.names)
            predicted = logits.numpy() > 0.0  # a logit above 0 is a probability above one half
            counts += [confusion(*pair) for pair in zip(predicted, batch.masks > 0.5, strict=True)]
        means = summarize(counts, np.random.default_rng(0))["mean"]
        return {
            "validation_loss": loss / len(counts),
            **{f"validation_{name}": value for name, value in means.items()},
        }

    # What a person sees

    def _write_history(self) -> None:
        from r2unet import plots

        text = io.StringIO()
        table = csv.DictWriter(text, fieldnames=list(self.history[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(self.history)
        with written_whole(self.out / "history.csv") as file:
            file.write(text.getvalue().encode())
        plots.plot_curves(self.history, self.out / "curves.png")

    def _report(self) -> dict[str, Any]:
        """Score the best state at the training size, write report.json and overlays.png, return the
        scores."""
        import json

        from r2unet import plots

        self.model, _, _ = load_model(self.out / BEST)
        self.model.to(self.device)
        predictions = list(
            evaluate.predict_samples(self.model, self.validation, self.settings.batch_size, self.device)
        )
        scores = evaluate.report(predictions, self.mean_mask, np.random.default_rng(self.settings.seed))
        with written_whole(self.out / "report.json") as file:
            file.write(json.dumps(scores, indent=2).encode())
        plots.plot_overlays(evaluate.from_best_to_worst(predictions, rows=6), self.out / "overlays.png")
        return scores

    @contextmanager
    def _progress(self) -> Iterator[Any]:
        from tqdm import tqdm

        images = len(self.training)
        done = len(self.history) * images + self.batches_done * self.settings.batch_size
        with tqdm(
            total=images * self.settings.epochs,
            initial=done,
            unit=" images",
            disable=not self.bar,
            dynamic_ncols=True,
            mininterval=0.5,
        ) as progress:
            say = self.say
            self.say = lambda line: progress.write(line) if self.bar else say(line)
            try:
                yield progress
            finally:
                self.say = say

    # Stopping

    @contextmanager
    def _stopping_gently(self) -> Iterator[None]:
        """Let the first Ctrl-C finish the step that is running, so that what is saved is a whole step."""

        def ask(signum: int, frame: Any) -> None:
            if self.stop:
                raise KeyboardInterrupt
            self.stop = True

        try:
            before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not in the main thread, where Python lets nobody listen for signals
            before = {}
        try:
            yield
        finally:
            for s, handler in before.items():
                signal.signal(s, handler)

    def _interrupt(self) -> None:
        self.save()
        raise Interrupted(
            f"stopped in epoch {len(self.history) + 1} after {self.batches_done} of {len(self.loader)} "
            f"batches; all is saved, go on with: r2unet train --resume --out {self.out}"
        )

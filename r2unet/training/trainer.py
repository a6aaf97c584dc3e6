"""Training R2U-Net, so that it can be stopped anywhere and goes on as if it had not been.

A step is: a batch, the loss, its gradients, one move of the optimizer. The loss is binary cross-entropy
plus soft Dice: the first judges every pixel, the second the region, and small lesions count in it as much
as large ones. `r2unet.network.losses` has others.

What happens next depends on the weights, the optimizer's memory, the schedule's step, and the random
state at the epoch's start with the number of batches done since (`minidl.data` says why that suffices).
All of it is saved about every minute, at each epoch's end and on Ctrl-C, and never between the halves of
a step, so a run that was killed continues bit for bit on the path it would have taken.

On a GPU nothing in a step waits for its result: whoever looks at a number waits until it is computed, and the
GPU then waits for new work. So the losses stay there and are looked at every twenty steps, in one copy, and
before anything is saved: a state that is not finite never replaces a good one.

With `ema`, what is validated, kept as the best and predicted with is a moving average of the weights
(`minidl.ema`), while the steps go on from the weights themselves.
"""

from __future__ import annotations

import hashlib
import json
import math
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import chain, count, tee
from pathlib import Path
from typing import Any

import numpy as np

from minidl import Tensor, checkpoint, no_grad
from minidl.backend import Array, to_device, to_floats
from minidl.data import DataLoader, prefetched
from minidl.ema import EMA
from minidl.optim import AdamW, CosineLR, clip_grad_norm
from r2unet.data.augment import augment
from r2unet.data.sample import Batch, Sample, collate
from r2unet.errors import InputError
from r2unet.files import output_file
from r2unet.network.losses import LOSSES
from r2unet.scores import baselines, evaluate
from r2unet.scores.metrics import confusion, summarize
from r2unet.training import cost
from r2unet.training.run_folder import BEST, LAST, describing, load_model, new_model, stamp, write_history
from r2unet.training.settings import Settings

SAVE_SECONDS = 60.0
STEPS_UNSEEN = 20  # on a GPU; on the CPU looking costs nothing, and every step is looked at
MEAN_MASK_IMAGES = 500  # the mean of so many outlines changes no more

loss_of = LOSSES[Settings.loss]  # the one that is taken unless another is asked for


class Interrupted(Exception):
    """A training was asked to stop, and has saved its state; the text ends with the command to go on with.

    Whoever was told how to compute, by other options than those of `Settings`, adds them to that command.
    """


class Trainer:
    """One training run: its model, data and progress, and the files it writes into `out`.

    `say` receives a line of text for a person; `bar` draws progress on stderr. Raises InputError for a
    batch too small for batch norm.
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
        settings.check_batches(len(training))
        self.settings, self.out, self.device, self.say, self.bar = settings, out, device, say, bar
        self.training, self.validation = training, validation
        for_weights, for_batches = np.random.default_rng(settings.seed).spawn(2)
        self.model = new_model(settings, for_weights).to(device)
        self.loss_of = LOSSES[settings.loss]
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
        self.ema = EMA(self.model, settings.ema) if settings.ema else None
        # At even distances: the first images of ISIC 2017 hold larger lesions than the others.
        some = np.linspace(0, len(training) - 1, min(len(training), MEAN_MASK_IMAGES)).astype(int)
        self.mean_mask = baselines.MeanMask.fit(training[int(i)].mask for i in some).mask
        names = "\n".join(training[i].name for i in range(len(training)))
        self.names_sha256 = hashlib.sha256(names.encode()).hexdigest()  # to know them again
        self.history: list[dict[str, float]] = []
        self.random = for_batches.bit_generator.state  # as it was when this epoch began
        self.batches_done, self.loss_sum = 0, 0.0  # in this epoch
        self.unseen: list[tuple[Array, Array | float, list[str]]] = []  # loss, gradient's length, images
        self.stop = False

    # The state, and its way to the disk and back

    def state(self) -> dict[str, Any]:
        """Return all that decides how this training goes on; `model` holds the weights to predict with."""
        weights = {"model": self.model.state_dict()}
        if self.ema:
            weights = {"model": self.ema.state_dict()["average"], "trained": weights["model"]}
        return {
            **stamp(self.settings),
            **weights,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": self.random,
            "batches_done": self.batches_done,
            "loss_sum": self.loss_sum,
            "history": self.history,
            "mean_mask": self.mean_mask,
            "names_sha256": self.names_sha256,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up where `state` left off. Raises InputError if it is no state of this training and data."""
        with describing(self.out / LAST):
            self.model.load_state_dict(state["trained"] if self.ema else state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.ema:
                self.ema.load_state_dict({"average": state["model"], "steps": self.optimizer.steps})
            self.schedule.load_state_dict(state["schedule"])
            self.loader.rng.bit_generator.state = self.random = state["random"]
            self.history = [dict(row) for row in state["history"]]
            self.batches_done, self.loss_sum = int(state["batches_done"]), float(state["loss_sum"])
            steps = len(self.history) * len(self.loader) + self.batches_done
        if self.schedule.steps != steps or state.get("names_sha256", self.names_sha256) != self.names_sha256:
            raise InputError(
                f"--data {self.settings.data}: holds other images than when this training began; give it "
                "the same ones, or begin another with a new --out"
            )

    def save(self, name: str = LAST) -> None:
        """Write the state to a file of the run's folder, whole or not at all, if it is finite."""
        self._look()
        path = self.out / name
        try:
            self.out.mkdir(parents=True, exist_ok=True)
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
        # NumPy need not warn of what is not finite: it is looked for, and told with the images it came from.
        with self._stopping_gently(), self._progress() as progress, np.errstate(all="ignore"):
            while not self._finished():
                started = time.monotonic()
                train_loss = self._train_epoch(progress)
                self._finish_epoch(train_loss, started)
        if not (self.out / LAST).exists():  # killed between its last epoch's two checkpoints
            write_history(self.out, self.history)
            self.save()
        if len(self.history) < self.settings.epochs:
            self.say(f"no better validation Jaccard in {self.settings.patience} epochs: stopped early")
        return self._report()

    def _finished(self) -> bool:
        """Whether all epochs are done, or the last `patience` of them brought no better Jaccard."""
        done, patience = len(self.history), self.settings.patience
        if 0 < patience < done:
            jaccards = [row["validation_jaccard"] for row in self.history]
            if max(jaccards[-patience:]) <= max(jaccards[:-patience]):
                return True
        return done >= self.settings.epochs

    def _train_epoch(self, progress: Any) -> float:
        """Run this epoch's remaining batches; return the mean loss over all of its images."""
        progress.set_description(f"epoch {len(self.history) + 1}/{self.settings.epochs}")
        self.model.train()
        self.loader.rng.bit_generator.state = self.random
        for batch in prefetched(self.loader.batches(start=self.batches_done), self.device):
            self._step(batch)
            self.batches_done += 1
            if self.device == "cpu" or len(self.unseen) == STEPS_UNSEEN:
                progress.set_postfix(loss=f"{self._look():.3f}", refresh=False)
            progress.update(len(batch.names))
            if self.stop:
                self._interrupt()
            if time.monotonic() - self.saved_at > SAVE_SECONDS:
                self.save()
        self._look()
        return self.loss_sum / len(self.training)

    def _step(self, batch: Batch) -> None:
        """Move the weights once, by the gradient of one batch."""
        self.optimizer.zero_grad()  # before anything is computed: that may need their memory
        loss = self.loss_of(*self._forward(batch))
        loss.backward()
        length = clip_grad_norm(self.optimizer.parameters, self.settings.clip)
        self.optimizer.step()
        self.schedule.step()
        if self.ema:
            self.ema.update()
        self.unseen.append((loss.data, length, batch.names))

    def profile(self) -> str:
        """Take some steps, on batches as they come, and return the table of their cost; nothing is saved."""
        self.model.train()
        epochs = (prefetched(self.loader.batches(), self.device) for _ in count())
        return cost.profile(self._step, chain.from_iterable(epochs))

    def _look(self) -> float:
        """Look at the steps since the last time: add up their losses, and return the newest.

        Raises InputError for the first that is not finite.
        """
        numbers = to_floats([number for loss, length, _ in self.unseen for number in (loss, length)])
        first = self.batches_done - len(self.unseen) + 1
        value = 0.0
        for i, (_, _, names) in enumerate(self.unseen):
            value, length = numbers[2 * i : 2 * i + 2]
            self._check_finite("loss", value, names, first + i)
            self._check_finite("gradient's length", length, names, first + i)
            self.loss_sum += value * len(names)
        self.unseen.clear()
        return value

    def _forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the batch's logits and masks, (N, 1, H, W) each, on the device."""
        images, masks = (Tensor(to_device(array, self.device)) for array in (batch.images, batch.masks))
        return self.model(images), masks

    def _check_finite(self, what: str, value: float, names: list[str], step: int | None = None) -> None:
        """Stop before a state that no training recovers from is saved over a good one."""
        if not math.isfinite(value):
            where = f"epoch {len(self.history) + 1}, " + (f"step {step}, " if step else "")
            raise InputError(
                f"the {what} is {value} in {where}on {', '.join(names)}; look at these images, or train "
                "anew with a lower --lr"
            )

    def _finish_epoch(self, train_loss: float, started: float) -> None:
        """Validate, write the epoch down, save, and keep the state if it is the best so far."""
        with self.ema.applied() if self.ema else nullcontext():
            scores = self._validate()
        lr = self.schedule.base_lr * self.schedule.factor(self.schedule.steps - 1)  # of the epoch's last step
        row = {"epoch": len(self.history) + 1, "lr": lr, "train_loss": train_loss, **scores}
        best = all(row["validation_jaccard"] > earlier["validation_jaccard"] for earlier in self.history)
        self.history.append(row)
        self.random = self.loader.rng.bit_generator.state
        self.batches_done, self.loss_sum = 0, 0.0
        # The newest state last: whoever is killed before it does this epoch's end once more, and all of it.
        if best:
            self.save(BEST)
        write_history(self.out, self.history)
        self.save()
        self.say(
            f"epoch {row['epoch']:3}/{self.settings.epochs}  loss {train_loss:.4f}  validation: loss "
            f"{row['validation_loss']:.4f}  Jaccard {row['validation_jaccard']:.4f}  Dice "
            f"{row['validation_dice']:.4f}  {time.monotonic() - started:.0f} s{'  best' if best else ''}"
        )
        if self.stop and not self._finished():
            self._interrupt()

    def _validate(self) -> dict[str, float]:
        """Return the validation images' loss and mean scores at the training size."""
        self.model.eval()
        counts, total = [], 0.0
        batches, ahead = tee(DataLoader(self.validation, self.settings.batch_size, collate=collate))
        for batch, moved in zip(batches, prefetched(ahead, self.device), strict=True):
            with no_grad():
                logits, masks = self._forward(moved)
                loss = self.loss_of(logits, masks).item()
            self._check_finite("validation loss", loss, batch.names)
            total += loss * len(batch.names)
            predicted = logits.numpy() > 0.0  # a logit above 0 is a probability above one half
            counts += [confusion(*pair) for pair in zip(predicted, batch.masks > 0.5, strict=True)]
        means = summarize(counts, np.random.default_rng(0))["mean"]
        return {
            "validation_loss": total / len(counts),
            **{f"validation_{name}": value for name, value in means.items()},
        }

    # What a person sees

    def _report(self) -> dict[str, Any]:
        """Score the best state at the training size; write report.json and overlays.png."""
        from r2unet import plots

        self.model, _, _ = load_model(self.out / BEST)
        self.model.to(self.device)
        predictions = list(
            evaluate.predict_samples(self.model, self.validation, self.settings.batch_size, self.device)
        )
        scores = evaluate.report(predictions, self.mean_mask, np.random.default_rng(self.settings.seed))
        with output_file(self.out / "report.json") as file:
            file.write(json.dumps(scores, indent=2).encode())
        plots.plot_overlays(evaluate.from_best_to_worst(predictions, rows=6), self.out / "overlays.png")
        return scores

    def _progress(self) -> Any:
        """Return the bar: loss, images a second, time left."""
        from tqdm import tqdm

        images = len(self.training)
        done = min(self.batches_done * self.settings.batch_size, images)
        return tqdm(
            total=images * self.settings.epochs,
            initial=len(self.history) * images + done,
            unit=" images",
            disable=not self.bar,
            dynamic_ncols=True,
            mininterval=0.5,
        )

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
            f"stopped after {len(self.history)} epochs and {self.batches_done} of {len(self.loader)} "
            f"batches; all is saved, go on with: r2unet train --resume --out {shlex.quote(str(self.out))}"
        )

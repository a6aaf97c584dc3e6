"""The training loop: epochs of training steps, each followed by a validation, and checkpoints.

A step takes a batch, computes the loss and its gradients, and lets the optimizer update the weights. The
default loss is binary cross-entropy plus soft Dice (`r2unet.network.losses` has others). A network that
predicts a diagnosis also has targets for it (`r2unet.data.targets`), and is calibrated when the training ends
(`r2unet.training.calibrate`).

**Interruption.** The state (`r2unet.training.state`) is saved about once a minute, at the end of each epoch
and on Ctrl-C (`r2unet.training.interruption`), always between two steps. A run that is killed and resumed
writes the same files, bit for bit, as one that was never interrupted.

**GPU.** A step does not wait for the GPU. Losses are read every 20 steps, in one copy
(`r2unet.training.loss_log`), and before each save, when the weights are checked, too: a state that is not
finite never replaces a good one.

**Moving average.** With `ema`, validation and best.npz use a moving average of the weights (`minidl.ema`).
The optimizer still updates the weights themselves.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain, count, tee
from pathlib import Path
from typing import Any

import numpy as np

from minidl import Tensor, no_grad
from minidl.backend import to_device
from minidl.data import DataLoader, prefetched
from minidl.optim import clip_grad_norm
from r2unet.data.augment import augment
from r2unet.data.classes import CLASSES
from r2unet.data.sample import Batch, Sample, collate
from r2unet.data.targets import DiagnosisTargets, class_labels
from r2unet.diagnosis.roc import mean_auc
from r2unet.network.model import Answer
from r2unet.prediction.predict import Correction
from r2unet.scores.metrics import confusion, summarize
from r2unet.training import cost
from r2unet.training.calibrate import add_calibration
from r2unet.training.interruption import Interrupted, StopSignal
from r2unet.training.loss_log import LossLog, Step, check_finite
from r2unet.training.reporting import epoch_line, progress_bar, write_history, write_report
from r2unet.training.run_folder import BEST, HISTORY, LAST, KeptFile
from r2unet.training.settings import Settings, new_objective
from r2unet.training.state import TrainingState

SAVE_SECONDS = 60.0
STEPS_PER_READ = 20  # of the losses, on a GPU; on the CPU reading costs nothing and follows every step


class Trainer:
    """A training run: its state, its data, and the folder `out` for its files.

    `log` receives lines of text for the user. `bar` shows a progress bar on stderr. `on_epoch_end` receives
    the number of each finished epoch, counted from 1, and its duration in seconds with validation, or None
    if the epoch was interrupted and resumed. `start` are initial weights by name, of another network. Raises
    InputError if a batch is too small for batch norm, and if a class of the diagnosis has no image.
    """

    def __init__(
        self,
        settings: Settings,
        out: Path,
        training: Sequence[Sample],
        validation: Sequence[Sample],
        device: str = "cpu",
        threads: int = 1,
        log: Callable[[str], None] = print,
        bar: bool = False,
        on_epoch_end: Callable[[int, float | None], None] = lambda epoch, seconds: None,
        start: dict[str, np.ndarray] | None = None,
    ) -> None:
        settings.check_batches(len(training))
        self.settings, self.out, self.device = settings, out, device
        self.training, self.validation = training, validation
        self.log, self.bar, self.on_epoch_end = log, bar, on_epoch_end
        self.objective = new_objective(settings)
        self.targets = None
        if settings.task != "outline":
            classes = CLASSES[settings.classes]
            self.targets = DiagnosisTargets(
                training, classes, settings.class_weights, settings.label_smoothing
            )
            self.validation_labels = class_labels(validation, classes)
        self.state = TrainingState(settings, training, device, start)
        self.loader = DataLoader(
            training,
            settings.batch_size,
            shuffle=True,
            rng=self.state.batches_rng,
            transform=partial(augment, strength=settings.augment) if settings.augment else None,
            collate=partial(collate, targets=self.targets),
            threads=threads,
            probabilities=self.targets.sampling() if settings.balanced else None,
        )
        self.losses = LossLog()
        self.stop = StopSignal()
        self.best_file = KeptFile(out / BEST)
        self.last_save = time.monotonic()

    def load_state(self, state: dict[str, Any]) -> None:
        """Resume from the content of a checkpoint. Raises InputError if it belongs to another run."""
        newest = next((name for name in (LAST, BEST) if (self.out / name).exists()), LAST)
        self.state.load_state_dict(state, self.out / newest)

    def run(self) -> dict[str, Any]:
        """Train to the last epoch and return the report on the best one. Raises Interrupted on Ctrl-C."""
        state, epochs = self.state, self.settings.epochs
        bar = progress_bar(
            self.settings, len(self.training), len(state.history), state.batches_done, show=self.bar
        )
        # NumPy's warnings about overflow are off: the losses are checked, and the error names the images.
        with self.stop, bar, np.errstate(all="ignore"), self.best_file:
            while not state.finished():
                started, uninterrupted = time.monotonic(), state.batches_done == 0
                train_loss = self.train_epoch(bar)
                with state.averaged_weights():
                    scores = self.validate()
                best = state.end_epoch(train_loss, scores)
                # last.npz is saved last: a run that is killed before that repeats the end of the epoch.
                if best:
                    self.save(BEST)
                write_history(self.out, state.history)
                self.save(LAST)
                seconds = time.monotonic() - started
                self.log(epoch_line(state.history[-1], epochs, seconds, best))
                self.on_epoch_end(len(state.history), seconds if uninterrupted else None)
                if self.stop.requested and not state.finished():
                    self._interrupt()
            # Killed in the last epoch, between best.npz and last.npz; or deleted because it was damaged.
            if not all((self.out / name).exists() for name in (LAST, HISTORY)):
                write_history(self.out, state.history)
                self.save(LAST)
            self.restore_best()
        if len(state.history) < epochs:
            self.log(f"stopped early: no better validation Jaccard in {self.settings.patience} epochs")
        if self.settings.task != "outline":
            self.log("calibrating the diagnosis")
            add_calibration(self.out / BEST, self.training, self.device)
        return write_report(self.out, self.validation, state.mean_mask, self.device)

    def train_epoch(self, bar: Any) -> float:
        """Run the remaining batches of the epoch; return the mean loss over all its images."""
        state = self.state
        bar.set_description(f"epoch {len(state.history) + 1}/{self.settings.epochs}")
        state.train_mode()
        state.batches_rng.bit_generator.state = state.random
        for batch in prefetched(self.loader.batches(start=state.batches_done), self.device):
            self.train_step(batch)
            state.batches_done += 1
            if self.device == "cpu" or len(self.losses.unread) == STEPS_PER_READ:
                bar.set_postfix(loss=f"{self.read_losses():.3f}", refresh=False)
            if self.stop.requested:  # before the bar, because the terminal may be closed
                self._interrupt()
            bar.update(len(batch.names))
            if time.monotonic() - self.last_save > SAVE_SECONDS:
                self.save(LAST)
        self.read_losses()
        return state.loss_sum / len(self.training)

    def train_step(self, batch: Batch) -> None:
        """Update the weights once, with the gradient of one batch."""
        state = self.state
        state.optimizer.zero_grad()  # first, because the step may need the gradients' memory
        _, loss = self.forward(batch)
        loss.backward()
        gradient_norm = clip_grad_norm(state.optimizer.parameters, self.settings.clip)
        state.optimizer.step()
        state.schedule.step()
        if state.ema:
            state.ema.update()
        self.losses.append(Step(loss.data, gradient_norm, batch.names))

    def forward(self, batch: Batch) -> tuple[Answer, Tensor]:
        """Return the network's answer to a batch, and its loss."""
        images, masks = (Tensor(to_device(array, self.device)) for array in (batch.images, batch.masks))
        targets = None if batch.targets is None else Tensor(to_device(batch.targets, self.device))
        answer = self.state.model.answer(images)
        return answer, self.objective(answer, masks, targets)

    def validate(self) -> dict[str, float]:
        """Return the mean loss and the mean scores of the validation images, at the training size."""
        self.state.model.eval()
        counts, diagnoses, loss_sum = [], [], 0.0
        loader = DataLoader(
            self.validation, self.settings.batch_size, collate=partial(collate, targets=self.targets)
        )
        batches, to_prefetch = tee(loader)
        for batch, on_device in zip(batches, prefetched(to_prefetch, self.device), strict=True):
            with no_grad():
                answer, loss = self.forward(on_device)
            check_finite("validation loss", loss.item(), f"epoch {len(self.state.history) + 1}", batch.names)
            loss_sum += loss.item() * len(batch.names)
            if answer.outline is not None:
                predicted = answer.outline.numpy() > 0.0  # a logit above 0 is a probability above 0.5
                counts += [confusion(*pair) for pair in zip(predicted, batch.masks > 0.5, strict=True)]
            if answer.diagnosis is not None:
                diagnoses.append(answer.diagnosis.numpy())
        means = {"loss": loss_sum / len(self.validation)}
        if counts:
            means |= summarize(counts, np.random.default_rng(0))["mean"]
        if diagnoses:
            without_weights = Correction(log_weights=self.targets.log_weights(self.settings.balanced))
            probabilities = without_weights(np.concatenate(diagnoses).astype(np.float64))
            means["auc"] = mean_auc(probabilities, self.validation_labels)
        return {f"validation_{name}": value for name, value in means.items()}

    def read_losses(self) -> float:
        """Add the unread losses to the epoch's sum; return the newest. Raises InputError if not finite."""
        state = self.state
        steps = self.losses.read(len(state.history) + 1, last_step=state.batches_done)
        for step in steps:
            state.loss_sum += step.loss * len(step.images)
        return steps[-1].loss if steps else 0.0

    def save(self, name: str) -> None:
        """Save the state to a file in `out`. Raises InputError if it is not finite or cannot be written."""
        self.read_losses()
        if name == LAST and self.state.history:
            self.restore_best()
        self.state.save(self.out / name)
        if name == BEST:
            self.best_file.open()
        self.last_save = time.monotonic()

    def restore_best(self) -> None:
        """Write best.npz again if it was deleted: without it, a finished run could not write its report."""
        if self.best_file.restore():
            self.log(f"{self.best_file.path} was deleted; it is written again")
        elif not self.best_file.path.exists():
            self.log(f"{self.best_file.path} is missing; the newest state takes its place")
            self.save(BEST)

    def profile(self) -> str:
        """Run a few steps without saving anything; return the table of their cost."""
        self.state.train_mode()
        epochs = (prefetched(self.loader.batches(), self.device) for _ in count())
        return cost.profile(self.train_step, chain.from_iterable(epochs))

    def _interrupt(self) -> None:
        self.save(LAST)
        raise Interrupted(
            f"stopped after {len(self.state.history)} epochs and {self.state.batches_done} of "
            f"{len(self.loader)} batches; all progress is saved; resume with: "
            f"r2unet train --resume --out {shlex.quote(str(self.out))}"
        )

"""The training loop: epochs of training steps, each followed by a validation, and checkpoints.

A step takes a batch, computes the loss and its gradients, and lets the optimizer update the weights
(`r2unet.training.step`). The default loss is binary cross-entropy plus soft Dice (`r2unet.network.losses` has
others). A network that predicts a diagnosis also has targets for it (`r2unet.data.targets`), and is
calibrated when the training ends (`r2unet.training.calibrate`).

**Interruption.** The state (`r2unet.training.state`) is saved about once a minute, at the end of each epoch
and on Ctrl-C (`r2unet.training.interruption`), always between two steps. A run that is killed and resumed
writes the same files, bit for bit, as one that was never interrupted.

**GPU.** A step does not wait for the GPU. Losses are read every 20 steps, in one copy
(`r2unet.training.loss_log`), and before each save, when the weights are checked, too: a state that is not
finite never replaces a good one.

**Moving average.** With `ema`, validation and best.npz use a moving average of the weights (`minidl.ema`).
The optimizer still updates the weights themselves.

**Several processes** (`minidl.parallel`) share each batch of training and of validation. All have the same
state after every step, and process 0 alone prints and writes files. They stop after the same step: a signal
to one of them is known to all (`_stop_requested`).
"""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np

from minidl import no_grad
from minidl.backend import tf32
from minidl.data import DataLoader, prefetched
from minidl.parallel import Processes
from r2unet.data.classes import CLASSES
from r2unet.data.lesion_images import LesionImages
from r2unet.data.sample import Batch, Sample, collate
from r2unet.data.shared_samples import SharedSamples
from r2unet.data.targets import DiagnosisTargets, class_labels
from r2unet.training import cost
from r2unet.training.calibrate import add_calibration
from r2unet.training.checkpoints import InitialWeights
from r2unet.training.feed import choose_feed, describe_feed
from r2unet.training.interruption import Interrupted, StopSignal
from r2unet.training.loss_log import LossLog, Step, check_finite
from r2unet.training.refit import check_head
from r2unet.training.reporting import epoch_line, progress_bar, write_history, write_report
from r2unet.training.run_folder import BEST, HISTORY, LAST, KeptFile
from r2unet.training.settings import Settings
from r2unet.training.state import TrainingState
from r2unet.training.step import TrainingStep
from r2unet.training.validation import Validated, in_order, mean_scores

SAVE_SECONDS = 60.0
STEPS_PER_READ = 20  # of the losses, on a GPU; on the CPU reading costs nothing and follows every step


class Trainer:
    """A training run: its state, its data, and the folder `out` for its files.

    `log` receives lines of text for the user. `bar` shows a progress bar on stderr. `on_epoch_end` receives
    the number of each finished epoch, counted from 1, and its duration in seconds with validation, or None
    if the epoch was interrupted and resumed. `start` are initial weights of another network. `feed` says
    where batches are augmented, one of `r2unet.training.feed.FEEDS`. `workers` processes prepare them, or
    `threads` threads; a script with workers must start the training below `if __name__ == "__main__":`.
    `graph` is one of `settings.GRAPHS`. `processes` share each batch.

    Raises InputError if a batch is too small for batch norm or for the processes, if a class of the diagnosis
    has no image, if its head is too large to be refitted, for an impossible feed, and for graph "yes" where
    there are no graphs; ParallelError if the processes have other images.
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
        start: InitialWeights | None = None,
        feed: str = "auto",
        workers: int = 0,
        graph: str = "auto",
        processes: Processes | None = None,
    ) -> None:
        self.processes = processes = processes or Processes()
        settings.check_batches(len(training))
        settings.check_processes(processes.size, min(settings.batch_size, len(training)))
        self.settings, self.out, self.device = settings, out, device
        self.training, self.validation = training, validation
        self.log, self.bar, self.on_epoch_end = log, bar, on_epoch_end
        self.targets, self.validation_labels = None, None
        if settings.task != "outline":
            classes = CLASSES[settings.classes]
            self.targets = DiagnosisTargets(
                training, classes, settings.class_weights, settings.label_smoothing
            )
            self.validation_labels = class_labels(validation, classes)
        self.state = TrainingState(settings, training, device, start, processes)
        if settings.refit_head and settings.task != "outline":
            check_head(self.state.model)
        self.step = TrainingStep(settings, self.state, device, processes, graph, log)
        if processes.size > 1:
            names = (sample.name for sample in validation)
            processes.must_agree("images", self.state.names_sha256, self.state.mean_mask.tobytes(), *names)
        new_feed, reason = choose_feed(feed, training, settings.augment, device)
        if workers and not isinstance(training, LesionImages):
            training = SharedSamples(training)
        self.feed = new_feed(
            training,
            settings.batch_size,
            settings.augment,
            device,
            self.targets,
            shuffle=True,
            rng=self.state.batches_rng,
            threads=threads,
            workers=workers,
            probabilities=self.targets.sampling() if settings.balanced and self.targets else None,
            part=processes.part,
        )
        if device != "cpu" or workers:
            log(describe_feed(self.feed, reason))
        self.losses = LossLog(lambda names: list(chain.from_iterable(self._everyones(names))))
        self.stop = StopSignal()
        self.best_file = KeptFile(out / BEST)
        self.last_save = time.monotonic()

    def load_state(self, state: dict[str, Any]) -> None:
        """Resume from the content of a checkpoint. Raises InputError if it belongs to another run."""
        newest = next((name for name in (LAST, BEST) if (self.out / name).exists()), LAST)
        self.state.load_state_dict(state, self.out / newest)
        self.step.renew()

    def run(self) -> dict[str, Any]:
        """Train to the last epoch and return the report on the best one. Raises Interrupted on Ctrl-C.

        Of several processes, only process 0 returns the report; the others return an empty one.
        """
        state, epochs = self.state, self.settings.epochs
        bar = progress_bar(
            self.settings, len(self.training), len(state.history), state.batches_done, show=self.bar
        )
        # NumPy's warnings about overflow are off: the losses are checked, and the error names the images.
        precision = tf32(self.settings.tf32, self.device)
        kept = self.best_file if self.first else nullcontext()
        with self.stop, bar, precision, np.errstate(all="ignore"), kept, self.feed.loader:
            while not state.finished():
                started, uninterrupted = time.monotonic(), state.batches_done == 0
                train_loss = self.train_epoch(bar)
                with state.averaged_weights():
                    scores = self.validate()
                best = state.end_epoch(train_loss, scores)
                if self.first:
                    self.save_epoch(best)
                    seconds = time.monotonic() - started
                    self.log(epoch_line(state.history[-1], epochs, seconds, best))
                    self.on_epoch_end(len(state.history), seconds if uninterrupted else None)
                if not state.finished() and self._stop_requested():
                    self._interrupt()
            if not self.first:
                return {}
            # Killed in the last epoch, between best.npz and last.npz; or deleted because it was damaged.
            if not all((self.out / name).exists() for name in (LAST, HISTORY)):
                self.save_epoch(best=False)
            self.restore_best()
        if len(state.history) < epochs:
            self.log(f"stopped early: no better validation score in {self.settings.patience} epochs")
        if self.settings.task != "outline":
            refitting = "refitting and " if self.settings.refit_head else ""
            self.log(f"{refitting}calibrating the diagnosis")
            add_calibration(self.out / BEST, self.training, self.device)
        return write_report(self.out, self.validation, state.mean_mask, self.device)

    def save_epoch(self, best: bool) -> None:
        """Write the files at the end of an epoch."""
        # last.npz is saved last: a run that is killed before that repeats the end of the epoch.
        if best:
            self.save(BEST)
        write_history(self.out, self.state.history)
        self.save(LAST)

    def train_epoch(self, bar: Any) -> float:
        """Run the remaining batches of the epoch; return the mean loss over all its images."""
        state = self.state
        bar.set_description(f"epoch {len(state.history) + 1}/{self.settings.epochs}")
        state.train_mode()
        state.batches_rng.bit_generator.state = state.random
        start = state.batches_done
        for batch in self.divided(self.feed.batches(start), self.feed.loader, start):
            self.train_step(batch)
            state.batches_done += 1
            if self.device == "cpu" or len(self.losses.unread) == STEPS_PER_READ:
                bar.set_postfix(loss=f"{self.read_losses():.3f}", refresh=False)
            if self._stop_requested():  # before the bar, because the terminal may be closed
                self._interrupt()
            bar.update(self.processes.images)
            if self.first and time.monotonic() - self.last_save > SAVE_SECONDS and self._may_save():
                self.save(LAST)
        self.read_losses()
        return state.loss_sum / len(self.training)

    def divided(self, batches: Iterator[Batch], loader: DataLoader, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of a loader, from number `start` on, and tell `processes` the size of each."""
        images, size = len(loader.dataset), loader.batch_size
        for number, batch in enumerate(batches, start):
            self.processes.divide(min(size, images - number * size))
            yield batch

    def train_step(self, batch: Batch) -> None:
        """Update the weights once, with the gradient of one batch, and remember its loss."""
        loss, gradient_norm = self.step(batch)
        images = len(batch.names) if self.processes.size == 1 else self.processes.images
        self.losses.append(Step(loss, gradient_norm, batch.names, images))

    def validate(self) -> dict[str, float]:
        """Return the mean loss and the mean scores of the validation images, at the training size."""
        self.state.model.eval()
        loader = DataLoader(
            self.validation,
            self.settings.batch_size,
            collate=partial(collate, targets=self.targets),
            part=self.processes.part,
        )
        results, loss_sum, where = [], 0.0, f"epoch {len(self.state.history) + 1}"
        for batch in self.divided(prefetched(loader, self.device), loader):
            with no_grad():
                answer, loss = self.step.forward(batch)
            loss = self.processes.total(loss.item())  # of the whole batch
            if not math.isfinite(loss):
                names = chain.from_iterable(self._everyones(batch.names))
                check_finite("validation loss", loss, where, list(names))
            loss_sum += loss * self.processes.images
            results.append(Validated.of(answer, batch.masks) if self.processes.weight else Validated())
        log_weights = self.targets.log_weights(self.settings.balanced) if self.targets else None
        means = {"loss": loss_sum / len(self.validation)}
        means |= mean_scores(in_order(self.processes.collect(results)), log_weights, self.validation_labels)
        return {f"validation_{name}": value for name, value in means.items()}

    def read_losses(self) -> float:
        """Add the unread losses to the epoch's sum; return the newest. Raises InputError if not finite."""
        state = self.state
        steps = self.losses.read(len(state.history) + 1, last_step=state.batches_done)
        for step in steps:
            state.loss_sum += step.loss * step.images
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
        self.step.run = self.step.launches  # a graph cannot be divided into operations
        self.state.train_mode()
        epochs = (self.divided(self.feed.batches(), self.feed.loader) for _ in count())
        with tf32(self.settings.tf32, self.device), self.feed.loader:
            return cost.profile(self.train_step, chain.from_iterable(epochs))

    @property
    def first(self) -> bool:
        """Whether this is process 0, which prints and writes files."""
        return self.processes.rank == 0

    def _stop_requested(self) -> bool:
        """Return whether any process has received a signal to stop; the same answer in all processes."""
        return self.processes.total(self.stop.requested) > 0

    def _may_save(self) -> bool:
        """Return whether saving needs no other process: an unread loss that is not finite would."""
        return self.processes.size == 1 or not self.losses.unread

    def _everyones(self, names: list[str]) -> list[list[str]]:
        return self.processes.collect(names if self.processes.weight else [])

    def _interrupt(self) -> None:
        self.read_losses()
        if self.first:
            self.save(LAST)
        self.processes.wait()  # until it is saved
        raise Interrupted(
            f"stopped after {len(self.state.history)} epochs and {self.state.batches_done} of "
            f"{len(self.feed.loader)} batches; all progress is saved; resume with: "
            f"r2unet train --resume --out {shlex.quote(str(self.out))}"
        )

"""The state of a training run: everything that a checkpoint must hold so that it resumes bit for bit.

How training continues depends on

    the weights and running statistics, and with `ema` their moving average (`minidl.ema`),
    the optimizer's moments and step count,
    the step count of the learning-rate schedule,
    the random state at the start of the epoch, and the number of batches done since,
    the scores of earlier epochs (which epoch was best, and early stopping).

The random state at the start of an epoch determines all its batches (`minidl.data`): a resumed epoch draws
the same batches again and skips those that are done. A state may be saved after any complete step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from minidl.ema import EMA
from minidl.optim import AdamW, CosineLR
from r2unet.data.sample import Sample
from r2unet.errors import InputError
from r2unet.scores import baselines
from r2unet.training.checkpoints import checkpoint_errors, checkpoint_header, write_state
from r2unet.training.settings import Settings, new_model

MEAN_MASK_IMAGES = 500  # more masks hardly change their mean


def quality(row: dict[str, float]) -> float:
    """Return what the best epoch has most of: the validation Jaccard, the mean AUC, or their sum.

    A single answer has a single score. With both, neither alone may decide.
    """
    return row.get("validation_jaccard", 0.0) + row.get("validation_auc", 0.0)


class TrainingState:
    """The network, optimizer, learning-rate schedule and moving average, and the position in the run.

    `training` is the training set. The state records a hash of its image names, to recognise it on resuming,
    and its mean mask, a baseline for the scores. `start` are initial weights by name, of another network.
    """

    def __init__(
        self,
        settings: Settings,
        training: Sequence[Sample],
        device: str,
        start: dict[str, np.ndarray] | None = None,
    ) -> None:
        self.settings = settings
        weights_rng, self.batches_rng = np.random.default_rng(settings.seed).spawn(2)
        self.model = new_model(settings, weights_rng)
        if start:
            self.model.load_state_dict({**self.model.state_dict(), **start})
        self.model.to(device)
        if settings.freeze_encoder:
            for parameter in self.model.encoder_parameters():
                parameter.requires_grad = False
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.batches_per_epoch = -(-len(training) // settings.batch_size)
        self.optimizer = AdamW(trained, settings.lr, weight_decay=settings.weight_decay)
        self.schedule = CosineLR(
            self.optimizer,
            self.batches_per_epoch * settings.epochs,
            int(self.batches_per_epoch * settings.warmup_epochs),
        )
        self.ema = EMA(self.model, settings.ema) if settings.ema else None

        # The position in the run
        self.history: list[dict[str, float]] = []  # one row of scores per finished epoch
        self.random = self.batches_rng.bit_generator.state  # at the start of the current epoch
        self.batches_done, self.loss_sum = 0, 0.0  # in the current epoch; the sum is over images

        # Evenly spaced: the lesions in the first images of ISIC 2017 are larger than the others.
        chosen = np.linspace(0, len(training) - 1, min(len(training), MEAN_MASK_IMAGES)).astype(int)
        self.mean_mask = baselines.MeanMask.fit(training[int(i)].mask for i in chosen).mask
        names = "\n".join(training[i].name for i in range(len(training)))
        self.names_sha256 = hashlib.sha256(names.encode()).hexdigest()

    def end_epoch(self, train_loss: float, scores: dict[str, float]) -> bool:
        """Append the epoch to the history. Return whether its `quality` is the best so far."""
        lr = self.schedule.base_lr * self.schedule.factor(self.schedule.steps - 1)  # of the last step
        row = {"epoch": len(self.history) + 1, "lr": lr, "train_loss": train_loss, **scores}
        best = all(quality(row) > quality(earlier) for earlier in self.history)
        self.history.append(row)
        self.random = self.batches_rng.bit_generator.state
        self.batches_done, self.loss_sum = 0, 0.0
        return best

    def finished(self) -> bool:
        """Return whether all epochs are done, or the last `patience` epochs did not improve the `quality`."""
        done, patience = len(self.history), self.settings.patience
        if 0 < patience < done:
            qualities = [quality(row) for row in self.history]
            if max(qualities[-patience:]) <= max(qualities[:-patience]):
                return True
        return done >= self.settings.epochs

    def averaged_weights(self) -> AbstractContextManager[None]:
        """Return a context in which the network has the weights for prediction: with `ema`, their average."""
        return self.ema.applied() if self.ema else nullcontext()

    def state_dict(self) -> dict[str, Any]:
        """Return the content of a checkpoint. Its "model" is the weights for prediction."""
        weights = {"model": self.model.state_dict()}
        if self.ema:
            weights = {"model": self.ema.state_dict()["average"], "trained": weights["model"]}
        return {
            **checkpoint_header(self.settings),
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

    def load_state_dict(self, state: dict[str, Any], path: Path) -> None:
        """Resume from the content of the checkpoint `path`.

        Raises InputError if it does not belong to these settings and this training set.
        """
        with checkpoint_errors(path):
            self.model.load_state_dict(state["trained"] if self.ema else state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.ema:
                self.ema.load_state_dict({"average": state["model"], "steps": self.optimizer.steps})
            self.schedule.load_state_dict(state["schedule"])
            self.batches_rng.bit_generator.state = self.random = state["random"]
            self.history = [dict(row) for row in state["history"]]
            self.batches_done, self.loss_sum = int(state["batches_done"]), float(state["loss_sum"])
            steps = len(self.history) * self.batches_per_epoch + self.batches_done
        if self.schedule.steps != steps or state.get("names_sha256", self.names_sha256) != self.names_sha256:
            raise InputError(
                f"--data {self.settings.data}: the images are not those of this run; give the same images, "
                "or start another run with a new --out"
            )

    def save(self, path: Path) -> None:
        """Write a checkpoint, atomically. Raises InputError if the file cannot be written."""
        write_state(path, self.state_dict())

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
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from minidl.ema import EMA
from minidl.nn import Buffer
from minidl.optim import AdamW, CosineLR
from minidl.parallel import Processes, share_batches
from minidl.tensor import Parameter
from r2unet.data.sample import Sample
from r2unet.errors import InputError
from r2unet.scores import baselines
from r2unet.scores.metrics import METRICS
from r2unet.training.checkpoints import (
    InitialWeights,
    check_weights,
    checkpoint_errors,
    checkpoint_header,
    read_licence,
    write_state,
)
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
    and its mean mask, a baseline for the scores. `start` are initial weights of another network. With several
    `processes`, each has a state, and all states stay equal.
    """

    def __init__(
        self,
        settings: Settings,
        training: Sequence[Sample],
        device: str,
        start: InitialWeights | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.settings, self.licence = settings, start.licence if start else None
        weights_rng, self.batches_rng = np.random.default_rng(settings.seed).spawn(2)
        self.model = new_model(settings, weights_rng)
        if start:
            self.model.load_state_dict({**self.model.state_dict(), **start.arrays})
        share_batches(self.model, processes or Processes())
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
        self.names_sha256 = hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest()

    def advance(self) -> None:
        """Begin a step: compute the numbers that change from step to step, in Python."""
        self.optimizer.advance()
        if self.ema:
            self.ema.advance()

    def update(self) -> None:
        """Finish the step: update the weights and their moving average, on the device alone."""
        self.optimizer.update_parameters()
        if self.ema:
            self.ema.update_average()

    def leaves(self) -> list[Parameter | Buffer]:
        """Return the parameters and buffers of the network."""
        return [leaf for _, leaf in (*self.model.named_parameters(), *self.model.named_buffers())]

    def train_mode(self) -> None:
        """Set the network to training mode; a frozen encoder keeps its running statistics, too."""
        self.model.train()
        if self.settings.freeze_encoder:
            for block in self.model.encoder:
                block.eval()

    def end_epoch(self, train_loss: float, scores: dict[str, float]) -> bool:
        """Append the epoch to the history. Return whether its `quality` is the best so far."""
        lr = self.schedule.base_lr * self.schedule.factor(self.schedule.steps - 1)  # of the last step
        row = {"epoch": len(self.history) + 1, "lr": lr, "train_loss": train_loss, **scores}
        if self.settings.tf32:
            row["tf32"] = 1
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
            **({"licence": self.licence} if self.licence else {}),
        }

    def load_state_dict(self, state: dict[str, Any], path: Path) -> None:
        """Resume from the content of the checkpoint `path`.

        Raises InputError if it does not belong to these settings and this training set, or if a value is not
        one that training can have.
        """
        other_images = InputError(
            f"--data {self.settings.data}: the images are not those of this run; give the same images, "
            "or start another run with a new --out"
        )
        names = state.get("names_sha256", self.names_sha256)
        if not isinstance(names, str) or names != self.names_sha256:  # an array compares elementwise
            raise other_images
        with checkpoint_errors(path):
            # Training continues with the head that it has trained, which a refit at its end replaced.
            state = {**state, "model": {**state["model"], **state.get("trained_head", {})}}
            self._check_weights(state)
            self._check_position(state)
            self.model.load_state_dict(state["trained"] if self.ema else state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.ema:
                self.ema.load_state_dict({"average": state["model"], "steps": self.optimizer.steps})
            self.schedule.load_state_dict(state["schedule"])
            self.batches_rng.bit_generator.state = self.random = state["random"]
            if self.batches_rng.bit_generator.state != state["random"]:
                raise ValueError("its random state is not one of this generator")
            self.licence = read_licence(state)
            self.history = [dict(row) for row in state["history"]]
            self.batches_done, self.loss_sum = state["batches_done"], float(state["loss_sum"])
        if self.schedule.steps != len(self.history) * self.batches_per_epoch + self.batches_done:
            raise other_images

    def _check_weights(self, state: dict[str, Any]) -> None:
        """Raise ValueError unless weights and moments are finite, and variances and squares at least 0."""
        for name in ("model", "trained") if self.ema else ("model",):
            self.model.check_state_dict(state[name])
            check_weights(state[name])
        for slot in self.optimizer.slots:
            for array in state["optimizer"][slot]:
                if array.dtype.kind != "f" or not np.isfinite(array).all():
                    raise ValueError(f"the optimizer's {slot} is {array.dtype}, or contains NaN or infinity")
        if any((array < 0).any() for array in state["optimizer"]["square"]):
            raise ValueError("the optimizer's mean of squares contains a negative number")

    def _check_position(self, state: dict[str, Any]) -> None:
        """Raise ValueError unless the position, the learning rate and the scores are possible in this run."""
        history, steps, done = state["history"], state["schedule"]["steps"], state["batches_done"]
        counts = [steps, done, *(row["epoch"] for row in history)]
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError("a number of steps, batches or epochs is not a natural number")
        if state["optimizer"]["steps"] != steps or done > self.batches_per_epoch:
            raise ValueError(f"{steps} steps of the schedule, {done} batches and the optimizer disagree")
        if [row["epoch"] for row in history] != list(range(1, min(len(history), self.settings.epochs) + 1)):
            raise ValueError(f"the epochs of its history are not among 1, 2, ..., {self.settings.epochs}")
        if any(row.keys() != self._score_names() for row in history):
            raise ValueError("its history has other scores than this version computes")
        numbers = [state["loss_sum"], *(value for row in history for value in row.values())]
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in numbers):
            raise ValueError("a loss or a score is not a finite number")
        if state["schedule"]["base_lr"] != self.settings.lr:
            raise ValueError("its learning rate is not that of its settings")

    def _score_names(self) -> set[str]:
        """Return the columns of the history, which depend on the task."""
        scores = {"loss"}
        scores |= set(METRICS) if self.settings.task != "diagnosis" else set()
        scores |= {"auc"} if self.settings.task != "outline" else set()
        precision = {"tf32"} if self.settings.tf32 else set()
        return {*precision, "epoch", "lr", "train_loss", *(f"validation_{name}" for name in scores)}

    def save(self, path: Path) -> None:
        """Write a checkpoint, atomically.

        Raises InputError if the file cannot be written, or if a weight, a moment of the optimizer or a
        running statistic is not finite. A finite loss does not exclude that: a running variance can overflow,
        and the last step may have damaged the weights. The old file then stays.
        """
        state = self.state_dict()
        for name, array in arrays_in(state):
            if not np.isfinite(array).all():
                raise InputError(
                    f"{name} is not finite (NaN or infinity) after {len(self.history)} epochs and "
                    f"{self.batches_done} steps, so {path} is not written; train again with a lower --lr"
                )
        write_state(path, state)


def arrays_in(tree: Any, name: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Yield each array in a tree of dictionaries and lists with its name, such as optimizer.exp_avg.3."""
    if isinstance(tree, np.ndarray):
        yield name, tree
    elif isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from arrays_in(value, f"{name}.{key}".lstrip("."))

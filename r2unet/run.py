"""A training's folder: what a run was asked to do, and the files that it leaves.

    runs/NAME/last.npz       the newest state, from which --resume goes on
    runs/NAME/best.npz       the state with the best validation Jaccard: the weights to use
    runs/NAME/history.csv    a line an epoch
    runs/NAME/curves.png     the losses and scores by epoch
    runs/NAME/overlays.png   validation images with the true and the predicted outline
    runs/NAME/report.json    the best state's scores beside the trivial baselines'

Both checkpoints hold everything: settings, weights, optimizer, schedule, random state, history. Time and
place are not among it, so two runs with the same settings on the same machine leave the same bytes.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from minidl import checkpoint
from r2unet import __version__
from r2unet.errors import InputError
from r2unet.model import R2UNet

LAST, BEST = "last.npz", "best.npz"


@dataclasses.dataclass(frozen=True)
class Settings:
    """All that decides what a training computes. `data` is a folder, or None for generated lesions."""

    data: str | None = None
    size: int = 128  # pixels a side
    widths: tuple[int, ...] = (8, 16, 32, 64)  # channels of each level
    steps: int = 2  # the recurrence's t
    epochs: int = 40
    batch_size: int = 8
    lr: float = 1e-3  # AdamW's, after the warm-up
    weight_decay: float = 1e-2
    warmup_epochs: float = 1.0
    clip: float = 1.0  # the longest gradient a step may follow
    augment: float = 1.0  # strength; 0 is none
    images: int = 800  # how many lesions to generate for training, where there is no data
    seed: int = 0

    def check(self) -> Settings:
        """Return these settings, or raise InputError naming the option that cannot be."""
        if not self.widths or min(self.widths) < 1:
            raise InputError(f"--widths {self.widths}: give positive numbers, such as 8,16,32,64")
        multiple = 2 ** (len(self.widths) - 1)
        if self.size < 1 or self.size % multiple:
            nearest = max(multiple, round(self.size / multiple) * multiple)
            raise InputError(
                f"--size {self.size}: {len(self.widths)} levels halve the image {len(self.widths) - 1} "
                f"times, so it must divide by {multiple}; try {nearest}"
            )
        for name in ("epochs", "batch_size", "images"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least 1")
        for name in ("steps", "seed", "weight_decay", "augment"):
            if not getattr(self, name) >= 0:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: must not be negative")
        if not 0 < self.lr < float("inf"):
            raise InputError(f"--lr {self.lr}: must be a positive number, such as 1e-3")
        return self


def new_model(settings: Settings, rng: np.random.Generator) -> R2UNet:
    """Make the network that the settings describe, with fresh weights."""
    return R2UNet(3, 1, settings.widths, settings.steps, rng=rng)


def read_state(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of a training. Raises InputError if the file is missing, damaged or something
    else."""
    try:
        state = checkpoint.load(path)
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such checkpoint; `r2unet train` writes best.npz into its folder"
        ) from None
    except checkpoint.CheckpointError as fault:
        raise InputError(str(fault)) from None
    if state.get("program") != "r2unet":
        raise InputError(f"{path}: is a checkpoint, but not of an r2unet training")
    return state


def read_settings(state: dict[str, Any]) -> Settings:
    """Return the settings a checkpoint was trained with."""
    known = {field.name for field in dataclasses.fields(Settings)}
    values = {name: value for name, value in state["settings"].items() if name in known}
    return Settings(**{**values, "widths": tuple(values["widths"])})


def load_model(path: str | Path) -> tuple[R2UNet, Settings, dict[str, Any]]:
    """Return a trained network in evaluation mode, its settings, and all else that the checkpoint holds.

    Raises InputError if the file is no checkpoint, or its weights do not fit its settings.
    """
    state = read_state(path)
    try:
        settings = read_settings(state)
        model = new_model(settings, np.random.default_rng(0))
        model.load_state_dict(state["model"])
    except (KeyError, TypeError, ValueError) as fault:
        raise InputError(f"{path}: the checkpoint does not describe an R2U-Net ({fault})") from None
    return model.eval(), settings, state


def stamp(settings: Settings) -> dict[str, Any]:
    """Begin a checkpoint: which program wrote it, in which version, for which settings."""
    return {"program": "r2unet", "version": __version__, "settings": dataclasses.asdict(settings)}

"""The settings of a training run: their defaults and the values that are allowed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from minidl import Tensor
from r2unet.data.changes import MAX_STRENGTH
from r2unet.data.classes import CLASSES
from r2unet.data.targets import CLASS_WEIGHTS
from r2unet.errors import InputError
from r2unet.network import model
from r2unet.network.losses import DIAGNOSIS_GAMMAS, LOSSES, answer_loss
from r2unet.network.model import Answer

# The minimum and the maximum of each setting. A value outside is a typo, such as 8163264 for
# 8,16,32,64, which would otherwise fill the memory before it fails.
LIMITS = {
    "size": (1, 4096),
    "widths": (1, 4096),
    "steps": (0, 100),
    "epochs": (1, 100_000),
    "batch_size": (1, 4096),
    "lr": (1e-12, 100.0),
    "weight_decay": (0.0, 100.0),
    "warmup_epochs": (0.0, 100_000.0),
    "clip": (1e-12, 1e12),
    "augment": (0.0, MAX_STRENGTH),
    "ema": (0.0, 0.999999),
    "patience": (0, 100_000),
    "diagnosis_weight": (0.0, 1000.0),
    "label_smoothing": (0.0, 0.9),
    "images": (1, 1_000_000),
    "seed": (0, 2**63 - 1),
}

# The settings with a fixed set of values.
CHOICES = {
    "model": tuple(model.NETWORKS),
    **model.CHOICES,
    "loss": tuple(LOSSES),
    "classes": tuple(CLASSES),
    "diagnosis_loss": tuple(DIAGNOSIS_GAMMAS),
    "class_weights": CLASS_WEIGHTS,
    "balanced": (False, True),
    "refit_head": (False, True),
    "freeze_encoder": (False, True),
    "tf32": (False, True),
}

# Whether a training step is a CUDA graph; it is not a setting, because the results are the same to the bit.
GRAPHS = ("auto", "yes", "no")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that determines the result of a training run."""

    data: str | None = None  # folder of images; None for generated lesions
    labels: str | None = None  # table of diagnoses; None for those beside the images
    size: int = 128  # side of the images in pixels
    widths: tuple[int, ...] = (8, 16, 32, 64)  # channels per level
    model: str = "r2unet"
    steps: int = 2  # the number of recurrent steps, t
    share_weights: bool = True  # the same convolution in all steps
    tie_weights: bool = True  # w_r = w_f: one convolution for the input and the previous output
    skips: str = "concat"
    up: str = "transposed"
    norm: str = "per-step"
    checkpoint_blocks: bool = False  # activation checkpointing: less memory, more time, same numbers
    loss: str = "bce+dice"
    task: str = "outline"  # what the network predicts: the outline, the diagnosis, or both
    classes: str = "types-3"  # the question that the diagnosis answers (`r2unet.data.classes`)
    pooling: str = "both"  # where the diagnosis looks: over the lesion, over the image, or both
    pooled_levels: str = "bottleneck"  # of the encoder: the bottleneck, or all
    diagnosis_loss: str = "cross-entropy"
    diagnosis_weight: float = 0.3  # of the diagnosis' loss, next to the outline's (docs/results.md)
    class_weights: str = "sqrt"  # of the diagnosis' loss
    label_smoothing: float = 0.05
    balanced: bool = False  # draw all classes equally often
    refit_head: bool = False  # fit the diagnosis head anew when the training ends (`training.refit`)
    freeze_encoder: bool = False  # keep the encoder as it is at the start, with its running statistics
    epochs: int = 40
    batch_size: int = 8
    lr: float = 1e-3  # learning rate of AdamW, after the warm-up
    weight_decay: float = 1e-2
    warmup_epochs: float = 1.0
    clip: float = 1.0  # maximum gradient norm
    augment: float = 1.0  # strength of data augmentation; 0 for none
    ema: float = 0.0  # decay of the weights' moving average, for example 0.999; 0 for none
    tf32: bool = False  # matrix products by cuBLAS round to 10 bits of mantissa (`minidl.backend.precision`)
    patience: int = 0  # stop after this many epochs without a better validation score; 0 for never
    images: int = 800  # generated lesions for training, if there is no `data`
    seed: int = 0

    @property
    def multiple(self) -> int:
        """The number that `size` must be divisible by: every level below the first halves the image."""
        return model.size_multiple(self.widths)

    def network_options(self) -> dict[str, Any]:
        """Return the options of the network by the names of its constructor's arguments."""
        options = {name: getattr(self, name) for name in model.CHOICES}
        return {"steps": self.steps, "classes": len(CLASSES[self.classes]), **options}

    def check(self) -> Settings:
        """Return these settings. Raises InputError, naming the option, if one is invalid."""
        for name, (minimum, maximum) in LIMITS.items():
            value = getattr(self, name)
            values = value if isinstance(value, tuple) else (value,)
            kind = (int, float) if isinstance(getattr(Settings, name), float) else int
            if not values or not all(isinstance(v, kind) and minimum <= v <= maximum for v in values):
                raise InputError(f"{flag(name)} {as_text(value)}: must be from {minimum:g} to {maximum:g}")
        self._check_network()
        if self.data is not None and not (isinstance(self.data, str) and self.data):
            raise InputError("--data: is empty; give a folder, or omit the option for generated lesions")
        if self.labels is not None and not (isinstance(self.labels, str) and self.labels and self.data):
            raise InputError("--labels: needs a table, and with --data its images; give both, or omit it")
        if self.size % self.multiple:
            levels = (self.size & -self.size).bit_length()  # one more than the size can be halved
            nearest = max(1, round(self.size / self.multiple)) * self.multiple
            larger = f"--size {nearest}, or " if nearest <= LIMITS["size"][1] else ""
            raise InputError(
                f"--size {self.size}: {len(self.widths)} levels halve the image {len(self.widths) - 1} "
                f"times, so it must be divisible by {self.multiple}; try {larger}at most {levels} --widths"
            )
        return self

    def _check_network(self) -> None:
        """Raise InputError for an unknown model or loss, and for options that the network refuses."""
        for name in CHOICES.keys() - model.CHOICES.keys():
            if getattr(self, name) not in CHOICES[name]:
                raise InputError(
                    f"{flag(name)} {as_text(getattr(self, name))}: must be one of "
                    f"{', '.join(map(str, CHOICES[name]))}"
                )
        network, rng = model.NETWORKS[self.model], np.random.default_rng(0)
        try:
            network(widths=(1,), **self.network_options(), rng=rng)  # the smallest one with these options
        except model.OptionError as error:
            raise InputError(f"{flag(error.option)} {as_text(error.value)}: {error.reason}") from None

    def check_batches(self, images: int) -> None:
        """Raise InputError if the last batch of an epoch over `images` images is too small for batch norm."""
        last = images % self.batch_size or self.batch_size
        if last == 1 and self.size == self.multiple and self.norm != "group":
            raise InputError(
                f"{images} images in batches of {self.batch_size}: the last batch would be a single image "
                "with one value per channel on the deepest level, too few for batch norm; train with another "
                f"--batch-size, or --size {2 * self.size}"
            )

    def check_processes(self, count: int, images: int) -> None:
        """Raise InputError if `count` processes share batches of fewer images: some would always be idle."""
        if count > images:
            raise InputError(
                f"--processes {count}: more than the {images} images of a batch; start fewer processes, or "
                "train with a larger --batch-size"
            )


def new_model(settings: Settings, rng: np.random.Generator) -> model.UShape:
    """Return the network that the settings describe, with newly initialised weights."""
    network = model.NETWORKS[settings.model]
    return network(3, 1, settings.widths, **settings.network_options(), rng=rng)


def new_objective(settings: Settings) -> Callable[[Answer, Tensor, Tensor | None], Tensor]:
    """Return the function that training minimises, of a network's answer, the masks and the targets."""
    return partial(
        answer_loss,
        outline_loss=LOSSES[settings.loss],
        gamma=DIAGNOSIS_GAMMAS[settings.diagnosis_loss],
        weight=settings.diagnosis_weight,
    )


def flag(name: str) -> str:
    """Return the command-line option of a setting."""
    return "--" + name.replace("_", "-")


def as_text(value: Any) -> str:
    """Return a value as it is written on the command line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def as_options(settings: Settings) -> list[str]:
    """Return the options of `r2unet train` that give these settings, without those that are the default."""
    words = []
    for field in dataclasses.fields(Settings):
        value = getattr(settings, field.name)
        if value != field.default:
            text = as_text(value)
            # argparse takes a value that starts with "-" for an option, unless it is joined to its own
            option = flag(field.name)
            words += [f"{option}={text}"] if text.startswith("-") else [option, text]
    return words

"""What a training is asked to do: every setting, its default, and what it may be."""

from __future__ import annotations

import dataclasses
from typing import Any

from r2unet.data.augment import STRONGEST
from r2unet.errors import InputError
from r2unet.network import model
from r2unet.network.losses import LOSSES

# The least and the most of each setting. What lies beyond is a slip of the finger, such as 8163264 for
# 8,16,32,64, and would fill the memory before it fails.
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
    "augment": (0.0, STRONGEST),
    "ema": (0.0, 0.999999),
    "patience": (0, 100_000),
    "images": (1, 1_000_000),
    "seed": (0, 2**63 - 1),
}

# Settings that are one of a few.
CHOICES = {"model": tuple(model.NETWORKS), **model.CHOICES, "loss": tuple(LOSSES)}


@dataclasses.dataclass(frozen=True)
class Settings:
    """All that decides what a training computes. `data` is a folder, or None for generated lesions."""

    data: str | None = None
    size: int = 128  # pixels a side
    widths: tuple[int, ...] = (8, 16, 32, 64)  # channels of each level
    model: str = "r2unet"
    steps: int = 2  # the recurrence's t
    share_weights: bool = True  # one convolution for all steps
    skips: str = "concat"
    up: str = "transposed"
    norm: str = "per-step"
    checkpoint_blocks: bool = False  # less memory for more time, and the same numbers
    loss: str = "bce+dice"
    epochs: int = 40
    batch_size: int = 8
    lr: float = 1e-3  # AdamW's, after the warm-up
    weight_decay: float = 1e-2
    warmup_epochs: float = 1.0
    clip: float = 1.0  # the largest norm of the gradient that a step follows
    augment: float = 1.0  # strength; 0 is none
    ema: float = 0.0  # decay of the weights' moving average, such as 0.999; 0 is none
    patience: int = 0  # epochs without a better validation Jaccard after which to stop; 0 is never
    images: int = 800  # how many lesions to generate for training, where there is no data
    seed: int = 0

    @property
    def multiple(self) -> int:
        """What `size` must divide by: every level below the first halves the image."""
        return 2 ** (len(self.widths) - 1)

    def check(self) -> Settings:
        """Return these settings, or raise InputError naming the option that cannot be."""
        for name, (least, most) in LIMITS.items():
            value = getattr(self, name)
            values = value if isinstance(value, tuple) else (value,)
            kind = (int, float) if isinstance(getattr(Settings, name), float) else int
            if not values or not all(isinstance(v, kind) and least <= v <= most for v in values):
                raise InputError(f"{flag(name)} {as_text(value)}: want {least:g} to {most:g}")
        self._check_network()
        if self.data is not None and not (isinstance(self.data, str) and self.data):
            raise InputError("--data: is empty; give a folder, or leave it out for generated lesions")
        if self.size % self.multiple:
            levels = (self.size & -self.size).bit_length()  # as often as the size can be halved, and one
            nearest = max(1, round(self.size / self.multiple)) * self.multiple
            larger = f"--size {nearest}, or " if nearest <= LIMITS["size"][1] else ""
            raise InputError(
                f"--size {self.size}: {len(self.widths)} levels halve the image {len(self.widths) - 1} "
                f"times, so it must divide by {self.multiple}; try {larger}at most {levels} --widths"
            )
        return self

    def _check_network(self) -> None:
        """Raise InputError for a choice that there is not, or that would not change this network."""
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise InputError(
                    f"{flag(name)} {as_text(value)}: want one of {', '.join(map(as_text, choices))}"
                )
        network = model.NETWORKS[self.model]
        for name in ("steps", "share_weights"):
            value = getattr(self, name)
            if not network.recurrent and value != getattr(Settings, name):
                recurrent = ", ".join(name for name, n in model.NETWORKS.items() if n.recurrent)
                raise InputError(
                    f"{flag(name)} {as_text(value)}: {self.model} has no recurrence that it would change; "
                    f"leave it out, or give --model one of {recurrent}"
                )
        if network.attention and self.skips == "none":
            raise InputError(
                f"--skips none: the gates of {self.model} are on the skips; give concat or add, or another "
                "--model"
            )

    def check_batches(self, images: int) -> None:
        """Raise InputError if a batch of an epoch over so many images would be too small for batch norm."""
        last = images % self.batch_size or self.batch_size
        if last == 1 and self.size == self.multiple and self.norm != "group":
            raise InputError(
                f"{images} images in batches of {self.batch_size}: one would be alone, and its deepest level "
                "would have one value a channel, too few for batch norm; train with another --batch-size, "
                f"or --size {2 * self.size}"
            )


def flag(name: str) -> str:
    """Return what a setting is called on the command line."""
    return "--" + name.replace("_", "-")


def as_text(value: Any) -> str:
    """Return a setting's value as it is written on the command line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

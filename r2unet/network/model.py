"""R2U-Net and its relatives: one U-shape (Ronneberger et al. 2015), six networks.

    image (3)                                                  logits (1)
      |                                                           ^ 1x1 convolution
    [ 8 ] ------------- skip connection ----------> concat 8+8 -> [ 8 ]       H    x W
      | max-pool                                        ^ up-convolution
    [ 16 ] ------------ skip connection --> concat 16+16 -> [ 16 ]            H/2  x W/2
      |                                           ^
    [ 32 ] ----------------- skip -> concat 32+32 -> [ 32 ]                   H/4  x W/4
      |                                 ^
      +----------> [ 64 ] --------------+  bottleneck                         H/8  x W/8

The encoder (left) halves the image at every level: receptive fields double, positions become less precise.
The decoder (right) restores the resolution, and the skip connections supply the precise positions. They are
concatenated with the upsampled features, so the next block learns how to weigh the two sources; adding them
would fix the weights. Each [ ] is a block with that number of channels. The block determines the network:

    UNet             two convolutions                                    Ronneberger et al. 2015
    ResUNet          two convolutions with a shortcut                    Alom et al. 2018, ResU-Net
    RecurrentUNet    two recurrent convolutions                          Alom et al. 2018, RU-Net
    R2UNet           two recurrent convolutions with a shortcut          Alom et al. 2018, R2U-Net
    AttentionUNet    UNet with an attention gate on every skip           Oktay et al. 2018
    R2AttentionUNet  R2UNet with an attention gate on every skip

The output is one logit for every pixel: sigmoid(logit) is the probability that the pixel is lesion.

A network can also predict what the lesion is. `task` says what it predicts: the outline, the diagnosis, or
both. The diagnosis head (`diagnosis.py`) reads the bottleneck's features, or those of all levels of the
encoder, and the predicted outline. For the task "diagnosis" there is no decoder.

All networks use the same norms, padding and up-convolutions, so two of them differ only in the block or the
gates. Every option below changes one more thing. The defaults are R2U-Net as the paper draws it, with batch
norm added and one change: the paper's recurrent convolution has separate weights for its input and its
previous output,

    O(t) = w_f * x_f(t) + w_r * x_r(t-1) + b        (equation 1),

which this network ties, w_f = w_r, as LeeJunHyun's PyTorch code does. `tie_weights=False` separates them.
With up="nearest" and norm="shared" U-Net and R2U-Net have the layers and parameter counts of that code.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from minidl.init import xavier_normal
from minidl.nn import Conv2d, Module
from minidl.ops import add, concat, max_pool2d
from minidl.recompute import recomputed
from minidl.tensor import Parameter, Tensor
from r2unet.network.attention import AttentionGate, no_gate
from r2unet.network.blocks import (
    NORMS,
    UPSAMPLING,
    ConvBlock,
    RecurrentBlock,
    RecurrentResidualBlock,
    ResidualBlock,
)
from r2unet.network.diagnosis import LEVELS, POOLING, DiagnosisHead

# How a skip connection and the upsampled features x are combined, (N, C, H, W) each.
SKIPS = {
    "concat": lambda skip, x: concat((skip, x), axis=1),  # -> (N, 2C, H, W)
    "add": add,  # -> (N, C, H, W)
    "none": lambda skip, x: x,  # -> (N, C, H, W)
}
# The options of the recurrence, with their defaults.
RECURRENCE = {"steps": 2, "share_weights": True, "tie_weights": True}
# The options that are one of a few values; the first is the default.
CHOICES = {
    "share_weights": (True, False),
    "tie_weights": (True, False),
    "skips": tuple(SKIPS),
    "up": tuple(UPSAMPLING),
    "norm": NORMS,
    "checkpoint_blocks": (False, True),
    "task": ("outline", "diagnosis", "both"),
    "pooling": POOLING,
    "pooled_levels": LEVELS,
}


class Answer(NamedTuple):
    """What a network says about images; None where its task does not include the answer."""

    outline: Tensor | None  # logits (N, 1, H, W): sigmoid is the probability that a pixel is lesion
    diagnosis: Tensor | None  # logits (N, K): softmax is the probability of each class


class OptionError(ValueError):
    """An option that a network cannot have: its name, its value, and the reason with the remedy."""

    def __init__(self, option: str, value: Any, reason: str) -> None:
        super().__init__(f"{option} {value!r}: {reason}")
        self.option, self.value, self.reason = option, value, reason


def size_multiple(widths: Sequence[int]) -> int:
    """Return the number that H and W must be multiples of: every level but the first halves the image."""
    return 2 ** (len(widths) - 1)


class UShape(Module):
    """x (N, in_channels, H, W) -> logits (N, out_channels, H, W); H and W are multiples of `multiple`.

    `widths` are the channels of each level, from the image's resolution down; any number of levels.
    `attention` puts a gate on every skip connection. `steps` is the paper's t, `share_weights` uses the same
    weights at every step, `tie_weights` uses the same weights for input and previous output; these three
    are for the recurrent networks only. `skips`, `up` and `norm` are among `CHOICES`. `checkpoint_blocks`
    turns on activation checkpointing (`minidl.recompute`): about half the memory for training, more time, the
    same numbers. `task`, `pooling` and `pooled_levels` are among `CHOICES`, too; `classes` is the number of
    diagnoses, if the task includes the diagnosis. `rng` draws the weights (He et al. 2015).

    Raises OptionError for an invalid option or a meaningless combination, ValueError for invalid sizes.
    """

    block: type[Module]  # (N, C, H, W) -> (N, OC, H, W); every subclass sets its own

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        widths: Sequence[int] = (8, 16, 32, 64),
        steps: int = 2,
        *,
        attention: bool = False,
        share_weights: bool = True,
        tie_weights: bool = True,
        skips: str = "concat",
        up: str = "transposed",
        norm: str = "per-step",
        checkpoint_blocks: bool = False,
        task: str = "outline",
        pooling: str = "both",
        pooled_levels: str = "bottleneck",
        classes: int = 3,
        rng: np.random.Generator,
    ) -> None:
        if not widths or min(*widths, in_channels, out_channels) < 1 or steps < 0:
            raise ValueError(
                f"{type(self).__name__}: expected positive widths and channels and steps >= 0, got widths "
                f"{tuple(widths)}, {in_channels} channels in, {out_channels} out, and {steps} steps"
            )
        self.recurrent, self.attention = issubclass(self.block, RecurrentBlock), attention
        recurrence = {"steps": steps, "share_weights": share_weights, "tie_weights": tie_weights}
        others = {"skips": skips, "up": up, "norm": norm, "checkpoint_blocks": checkpoint_blocks}
        diagnosis = {"pooling": pooling, "pooled_levels": pooled_levels}
        self._check_options(**recurrence, **others, task=task, **diagnosis)
        self.task = task
        self.widths, self.steps = tuple(widths), steps
        self.share_weights, self.tie_weights = share_weights, tie_weights
        self.skips, self.norm, self.checkpoint_blocks = skips, norm, checkpoint_blocks
        self.multiple = size_multiple(widths)
        self.combine = SKIPS[skips]

        def new_block(before: int, after: int) -> Module:
            return self.block(before, after, norm=norm, rng=rng, **(recurrence if self.recurrent else {}))

        downward = list(pairwise((in_channels, *widths)))  # (3, 8), (8, 16), (16, 32), (32, 64)
        upward = list(pairwise(reversed(widths)))  # (64, 32), (32, 16), (16, 8)
        sources = 2 if skips == "concat" else 1
        self.encoder = [new_block(before, after) for before, after in downward]
        pooled = self.widths[-1:] if pooled_levels == "bottleneck" else self.widths
        if task == "diagnosis":
            self.diagnosis = DiagnosisHead(pooled, classes, "image", rng=rng)
            return
        self.up = [UPSAMPLING[up](before, after, norm, rng=rng) for before, after in upward]
        self.decoder = [new_block(sources * after, after) for _, after in upward]
        self.gates = [AttentionGate(after, norm, rng=rng) if attention else no_gate for _, after in upward]
        self.head = Conv2d(widths[0], out_channels, 1, rng=rng)
        self.head.weight = Parameter(xavier_normal(self.head.weight.shape, widths[0], out_channels, rng))
        if task == "both":
            self.diagnosis = DiagnosisHead(pooled, classes, pooling, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        if self.task == "diagnosis":
            raise ValueError(f'{type(self).__name__}: the task "diagnosis" has no outline; call answer(x)')
        return self.decode(self.encode(x))

    def answer(self, x: Tensor) -> Answer:
        """Return the outline and the diagnosis of images (N, in_channels, H, W), as far as the task goes."""
        features = self.encode(x)
        if self.task == "outline":
            return Answer(self.decode(features), None)
        pooled = features[-self.diagnosis.levels :]  # a copy: decoding removes the elements of its list
        outline = self.decode(features) if self.task == "both" else None
        return Answer(outline, self.diagnosis(pooled, outline))

    def encode(self, x: Tensor) -> list[Tensor]:
        """Return the features of every level, from x (N, in_channels, H, W) to the bottleneck, the last."""
        self.check_input(x)
        features = [self.run(self.encoder[0], x)]
        for block in self.encoder[1:]:
            x = max_pool2d(features[-1], 2)  # (N, C, H, W) -> (N, C, H/2, W/2)
            features.append(self.run(block, x))
        return features

    def decode(self, features: list[Tensor]) -> Tensor:
        """Return the logits (N, out_channels, H, W) of the features of every level, which it removes."""
        x, skips = features.pop(), features  # the bottleneck
        for up, gate, block in zip(self.up, self.gates, self.decoder, strict=True):
            x = up(x)  # (N, 2C, H/2, W/2) -> (N, C, H, W)
            skip = gate(x, skips.pop())
            x = self.combine(skip, x)  # -> (N, 2C, H, W)
            x = self.run(block, x)  # -> (N, C, H, W)
        return self.head(x)

    def encoder_parameters(self) -> list[Parameter]:
        """Return the parameters of the encoder, which both tasks share."""
        return [p for name, p in self.named_parameters() if name.startswith("encoder.")]

    def run(self, block: Module, x: Tensor) -> Tensor:
        """Return block(x); with `checkpoint_blocks` the backward pass recomputes the block's activations."""
        return recomputed(block, x) if self.checkpoint_blocks else block(x)

    def check_input(self, x: Tensor) -> None:
        """Raise ValueError unless x is (N, C, H, W) and every level can halve its height and width."""
        name = type(self).__name__
        if x.ndim != 4:
            raise ValueError(f"{name}: expected images (N, C, H, W), got {x.shape}")
        H, W = x.shape[2:]
        if H % self.multiple or W % self.multiple:
            levels = len(self.widths)
            raise ValueError(
                f"{name}: {levels} levels halve the image {levels - 1} times, so its height and width must "
                f"be multiples of {self.multiple}; got {H} x {W}; pad or resize it"
            )

    def _check_options(self, **options: Any) -> None:
        """Raise OptionError for a value outside `CHOICES` and for an option without effect or meaning."""
        name = next((key for key, network in NETWORKS.items() if network is type(self)), type(self).__name__)
        if self.attention not in (True, False):
            raise OptionError("attention", self.attention, "must be True or False")
        for option, choices in CHOICES.items():
            if options[option] not in choices:
                raise OptionError(option, options[option], f"must be one of {', '.join(map(str, choices))}")
        for option, default in RECURRENCE.items():
            if not self.recurrent and options[option] != default:
                reason = f"{name} has no recurrence; omit the option, or change the model to one of "
                raise OptionError(option, options[option], reason + ", ".join(recurrent_networks()))
        if not options["tie_weights"] and not options["share_weights"]:
            reason = "all steps share w_f and w_r; change only one of tie_weights and share_weights"
            raise OptionError("tie_weights", False, reason)
        if not options["tie_weights"] and options["steps"] == 0:
            raise OptionError("tie_weights", False, "without steps there is no w_r; choose at least 1 step")
        if options["task"] == "diagnosis" and options["pooling"] == "lesion":
            reason = "without an outline the diagnosis looks at the whole image; choose task both, or image"
            raise OptionError("pooling", "lesion", reason)
        if self.attention and options["skips"] == "none":
            reason = f"the gates of {name} are on the skips; choose concat or add, or another model"
            raise OptionError("skips", "none", reason)


class UNet(UShape):
    """U-Net: two convolutions in every block (Ronneberger et al. 2015; here with padding and norms)."""

    block = ConvBlock


class ResUNet(UShape):
    """ResU-Net: U-Net with a shortcut in every block (the baseline of Alom et al. 2018)."""

    block = ResidualBlock


class RecurrentUNet(UShape):
    """RU-Net: recurrent convolutions (Alom et al. 2018)."""

    block = RecurrentBlock


class R2UNet(UShape):
    """R2U-Net: recurrent convolutions with a shortcut in every block (Alom et al. 2018)."""

    block = RecurrentResidualBlock


class AttentionUNet(UNet):
    """U-Net with an attention gate on every skip connection (Oktay et al. 2018)."""

    def __init__(self, *sizes: Any, **options: Any) -> None:
        super().__init__(*sizes, attention=True, **options)


class R2AttentionUNet(R2UNet):
    """R2U-Net with an attention gate on every skip connection."""

    def __init__(self, *sizes: Any, **options: Any) -> None:
        super().__init__(*sizes, attention=True, **options)


NETWORKS = {
    "unet": UNet,
    "resunet": ResUNet,
    "recurrent-unet": RecurrentUNet,
    "r2unet": R2UNet,
    "attention-unet": AttentionUNet,
    "r2-attention-unet": R2AttentionUNet,
}


def recurrent_networks() -> list[str]:
    """Return the names of the networks with recurrent convolutions."""
    return [name for name, network in NETWORKS.items() if issubclass(network.block, RecurrentBlock)]

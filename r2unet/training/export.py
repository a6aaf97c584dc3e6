"""Exporting weights: a small file with only what prediction needs.

A checkpoint holds Adam's two moments for every weight and, with `ema`, two versions of the weights: three or
four numbers per weight, where prediction needs one. In half precision this number takes two bytes. It keeps
11 significant bits, so a weight changes by at most one part in 2,048, upwards or downwards. A weight below
6e-5, too small to matter, changes by at most 3e-8. The scales, biases and running statistics of norms keep
their precision: they are few, and a variance may exceed the range of half precision.

The exported file is a checkpoint (`minidl.checkpoint`) for `r2unet predict`, `evaluate` and `explain`. It may
also recommend post-processing: test-time augmentation, and clean-up of the mask.

**Another size.** The network sees images at the size in the file, which need not be that of the training. The
temperature of a diagnosis belongs to a size, and is fitted again with `calibrated`. The head of the diagnosis
can be refitted, too (`r2unet.training.refit`), also for other classes or for more levels of the encoder.

**The mean of several trainings.** Networks that were trained further from the same weights, with other data,
settings or seeds, often lie in one valley of the loss, where the mean of their weights can be better than
each of them: model soups (Wortsman et al. 2022). It costs no more to predict with than one of them. The
running statistics of batch norm belong to the weights with which they were collected, so the mean needs group
norm.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from r2unet.data.folders import paths
from r2unet.errors import InputError
from r2unet.network import interop
from r2unet.network.model import CHOICES, NETWORKS
from r2unet.training.calibrate import calibrate
from r2unet.training.checkpoints import (
    check_weights,
    checkpoint_errors,
    checkpoint_header,
    load_model,
    read_settings,
)
from r2unet.training.prediction_memory import images_at_once
from r2unet.training.refit import refit_head
from r2unet.training.run_folder import BEST, LAST, PATHS, load_training
from r2unet.training.settings import Settings, as_text, flag, new_model

PYTORCH_SIZE = 256  # LeeJunHyun's loader resizes to this width in pixels, whatever his --image_size is
# Of the diagnosis head. The last two change its probabilities by known factors, which prediction divides out.
HEAD_SETTINGS = ("classes", "pooling", "pooled_levels", "class_weights", "balanced")
# Copied where a checkpoint has them.
OPTIONAL_ENTRIES = ("mean_mask", "history", "prediction", "diagnosis", "licence")


def from_training(path: str | Path, size: int | None = None) -> dict[str, Any]:
    """Return the part of a training checkpoint that prediction needs.

    `size` replaces the side of the images in pixels. The paths of data sets and labels are shortened to the
    names of their folders and files, because they are private. Raises InputError if the file is not a
    checkpoint of r2unet, or if the network cannot halve images of this size.
    """
    model, settings, state = load_model(path)
    if size:
        check_multiple(size, model.multiple)
        settings = dataclasses.replace(settings, size=size)
    header = checkpoint_header(settings)
    for name in PATHS:
        if text := header["settings"][name]:
            header["settings"][name] = os.pathsep.join(path.name or text for path in paths(text))
    optional = {name: state[name] for name in OPTIONAL_ENTRIES if name in state}
    return {**header, "model": model.state_dict(), **optional}


def averaged(state: dict[str, Any], others: Sequence[Path], new_head: bool = False) -> dict[str, Any]:
    """Return the state with the mean of its weights and those of other checkpoints of the same network.

    With `new_head` the diagnosis head, which will be replaced, may differ, and is kept. The mean inherits the
    licences of all. The history of the training is left out, because its scores are not those of the mean.
    Raises InputError for a checkpoint of another network, and for batch norm.
    """
    if read_settings(state).norm != "group":
        raise InputError(
            "--average: the network has batch norm, whose running statistics would not fit the mean of the "
            "weights; train with --norm group"
        )
    own = _network(read_settings(state), new_head)
    sums = {name: array.astype(np.float64) for name, array in state["model"].items()}
    if new_head:
        sums = {name: total for name, total in sums.items() if not name.startswith("diagnosis.")}
    licences = [state.get("licence")]
    for path in others:
        model, settings, other = load_model(path)
        licences.append(other.get("licence"))
        for option, value in _network(settings, new_head).items():
            if value != own[option]:
                raise InputError(
                    f"{path}: --average: its {flag(option)} is {as_text(value)}, that of SOURCE "
                    f"{as_text(own[option])}; give checkpoints of the same network"
                )
        weights = model.state_dict()
        for name, total in sums.items():
            total += weights[name]
    means = {name: (total / (1 + len(others))).astype(np.float32) for name, total in sums.items()}
    state = {name: entry for name, entry in state.items() if name != "history"}
    if licence := "; ".join(dict.fromkeys(filter(None, licences))):
        state["licence"] = licence
    return {**state, "model": {**state["model"], **means}}


def _network(settings: Settings, new_head: bool) -> dict[str, Any]:
    """Return the settings that define the weights, with `new_head` without those of the diagnosis head."""
    names = ("model", "widths", "steps", *CHOICES, *HEAD_SETTINGS)
    ignored = {"checkpoint_blocks"}
    if new_head or settings.task == "outline":
        ignored |= {*HEAD_SETTINGS}
    if settings.task == "diagnosis":
        ignored.add("pooling")  # over the image in any case
    return {name: getattr(settings, name) for name in names if name not in ignored}


def from_pytorch(path: str | Path, steps: int | None = None, size: int = PYTORCH_SIZE) -> dict[str, Any]:
    """Return a network of LeeJunHyun's program, read by `interop.read_pytorch`, as a checkpoint of r2unet.

    `steps` is the number of recurrent steps t that it was trained with, `size` the side of its images in
    pixels.

    His images have values from -1 to 1 and ours from -2 to 2, so the weights of the first convolution are
    halved. This is exact, because both programs pad with zero, which is the same grey. Scores may still
    differ slightly: his images keep their aspect ratio, and ours are resized to squares.

    Raises InputError if the file cannot be read, if the network is recurrent and `steps` is missing (the file
    does not contain it), or if the network does not map three channels to one.
    """
    model = interop.read_pytorch(path, steps=2 if steps is None else steps)
    if model.recurrent and steps is None:
        raise InputError(
            f"{path}: the network is recurrent, and the file does not contain the number of steps; give "
            "--steps (LeeJunHyun's main.py uses 3 by default, his classes 2)"
        )
    first = model.encoder[0].project if model.recurrent else model.encoder[0].first.conv
    channels = first.weight.shape[1], model.head.weight.shape[0]
    if channels != (3, 1):
        raise InputError(
            f"{path}: the network has {channels[0]} input and {channels[1]} output channels, but predict "
            "needs 3 and 1; use it from Python, with r2unet.network.interop.read_pytorch"
        )
    check_multiple(size, model.multiple)
    with checkpoint_errors(path):
        check_weights(model.state_dict())
    first.weight.data *= 0.5
    name = next(name for name, network in NETWORKS.items() if network is type(model))
    network = {"model": name, "widths": model.widths, "up": "nearest", "norm": "shared", "steps": model.steps}
    settings = Settings(**network, size=size, data="(of LeeJunHyun's program)")
    return {**checkpoint_header(settings.check()), "model": model.state_dict()}


def check_multiple(size: int, multiple: int) -> None:
    """Raise InputError, naming a size that fits, if the network cannot halve images of this size."""
    if size % multiple:
        nearest = max(1, round(size / multiple)) * multiple
        raise InputError(
            f"--size {size}: must be divisible by {multiple} for this network; try --size {nearest}"
        )


def calibrated(
    state: dict[str, Any], data: str | None, head: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the state, of a network with a diagnosis, with its entry "diagnosis" computed anew, at its size.

    `data` are the folders of the training images; None for a network trained on generated lesions. The
    labels are those beside the images. With `head`, the diagnosis head is first replaced by one that is
    fitted to the images: it maps settings of the head, "classes" and "pooled_levels", to their new values.
    Raises InputError if the images cannot be used.
    """
    settings = read_settings(state)
    if data is None and settings.data is not None:
        raise InputError("--calibrate: needs the folder of the training images; add it: --calibrate DIR")
    if head is not None:
        state = {**state, "settings": {**state["settings"], **head}}
    batch = images_at_once(settings)
    settings = dataclasses.replace(settings, **(head or {}), data=data, labels=None, batch_size=batch)
    model = new_model(settings, np.random.default_rng(0)).eval()
    training = load_training(settings)
    if head is None:
        model.load_state_dict(state["model"])
        return {**state, "diagnosis": calibrate(model, settings, training)}
    before = {name: a for name, a in state["model"].items() if not name.startswith("diagnosis.")}
    model.load_state_dict(model.state_dict() | before)
    refit_head(model, settings, training)
    weights = {name: before.get(name, a) for name, a in model.state_dict().items()}
    return {**state, "model": weights, "diagnosis": calibrate(model, settings, training)}


def to_half(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state with the weights of convolutions, (OC, C, KH, KW) each, converted to float16.

    Raises InputError for a weight outside the range of float16.
    """
    with np.errstate(over="ignore"):
        weights = {name: a.astype(np.float16) if a.ndim == 4 else a for name, a in state["model"].items()}
    if not all(np.isfinite(a).all() for a in weights.values()):
        raise InputError(
            "--half: a weight is beyond 65,504, the largest number in half precision; omit --half"
        )
    return {**state, "model": weights}


def check_out(out: Path) -> None:
    """Raise InputError if a file written to `out` would replace a part of a training run."""
    if out.exists() and out.name in (LAST, BEST):
        raise InputError(f"--out {out}: this file is part of a training run; choose another name")

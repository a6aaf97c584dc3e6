"""Weights to hand on: a small file that holds what prediction needs, and nothing that training needed.

A training's checkpoint holds Adam's two moments beside every weight, and with an EMA the weights twice, so
three or four numbers where prediction needs one. In half precision that one takes two bytes: it keeps 11
significant bits, so each weight moves by at most one part in 2,048, some up and some down; those below 6e-5,
which hardly count, by 3e-8. The scales, biases and statistics of norms stay as they are; they are few, and a
variance may lie outside of half precision's range.

The file is a checkpoint like any other (`minidl.checkpoint`), for `r2unet predict`, `evaluate` and `explain`.
It also holds the advice of whoever exported it: whether to average eight views, and to clean up.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from minidl import checkpoint
from r2unet.errors import InputError
from r2unet.network import interop
from r2unet.network.model import NETWORKS
from r2unet.training.run_folder import BEST, LAST, check_finite, describing, load_model, stamp
from r2unet.training.settings import Settings

PYTORCH_SIZE = 256  # the width in pixels to which LeeJunHyun's loader resizes, whatever his --image_size says
KEPT = ("mean_mask", "history", "prediction")  # a baseline to judge beside, where it came from, the advice


def from_training(path: str | Path) -> dict[str, Any]:
    """Return the part of a training's checkpoint that prediction needs.

    Of the folder with the images only the name is kept: where it was is nobody else's business. Raises
    InputError where the file is no checkpoint.
    """
    model, settings, state = load_model(path)
    stamped = stamp(settings)
    if settings.data is not None:
        stamped["settings"]["data"] = Path(settings.data).name or settings.data
    return {**stamped, "model": model.state_dict(), **{name: state[name] for name in KEPT if name in state}}


def from_pytorch(path: str | Path, steps: int | None = None, size: int = PYTORCH_SIZE) -> dict[str, Any]:
    """Return LeeJunHyun's network, read by `interop.read_pytorch`, as a checkpoint of this program.

    His images run from -1 to 1 and ours from -2 to 2, so the weights that meet the image are halved. That is
    exact: both pad with zero, the grey in the middle. But his photographs kept their shape where ours
    become squares, so scores may differ a little from his. `steps` is the t it was trained with, `size` its
    pixels a side. Raises InputError for a file that cannot be read, for a recurrent network without its
    `steps`, which no file tells, and for one that does not turn three colours into one mask.
    """
    model = interop.read_pytorch(path, steps=2 if steps is None else steps)
    if model.recurrent and steps is None:
        raise InputError(
            f"{path}: is recurrent, and the file does not tell with how many steps; give --steps "
            "(LeeJunHyun's main.py takes 3 unless told otherwise, his classes 2)"
        )
    first = model.encoder[0].project if model.recurrent else model.encoder[0].first.conv
    channels = first.weight.shape[1], model.head.weight.shape[0]
    if channels != (3, 1):
        raise InputError(
            f"{path}: takes {channels[0]} channels and gives {channels[1]}, where predict wants 3 and 1; "
            "use it from Python, with r2unet.network.interop.read_pytorch"
        )
    if size % model.multiple:
        raise InputError(f"--size {size}: this network wants a size that divides by {model.multiple}")
    with describing(path):
        check_finite(model)
    first.weight.data *= 0.5
    name = next(name for name, network in NETWORKS.items() if network is type(model))
    network = {"model": name, "widths": model.widths, "up": "nearest", "norm": "shared", "steps": model.steps}
    settings = Settings(**network, size=size, data="(of LeeJunHyun's program)")
    return {**stamp(settings.check()), "model": model.state_dict()}


def halved(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state with the weights of convolutions, (OC, C, KH, KW) each, in half precision.

    Raises InputError for a weight beyond its range.
    """
    with np.errstate(over="ignore"):
        weights = {name: a.astype(np.float16) if a.ndim == 4 else a for name, a in state["model"].items()}
    if not all(np.isfinite(a).all() for a in weights.values()):
        raise InputError("--half: a weight lies beyond 65,504, half precision's largest number; leave it out")
    return {**state, "model": weights}


def write(state: dict[str, Any], source: Path, out: Path) -> None:
    """Write the state to a file. Raises InputError where that would replace its source, or a training."""
    if out.exists() and (out.name in (LAST, BEST) or source.samefile(out)):
        raise InputError(f"--out {out}: a training, or SOURCE itself, is in this file; choose another name")
    out.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save(out, state)

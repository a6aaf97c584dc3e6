"""Weights to hand on: a small file that holds what prediction needs, and nothing that training needed.

A training's checkpoint holds Adam's two moments beside every weight, and with an EMA the weights twice, so
three or four numbers where prediction needs one. In half precision that one takes two bytes: it keeps 11
significant bits, so each weight moves by at most one part in 2,048, some up and some down. The scales, biases
and statistics of norms stay as they are; they are few, and a variance may lie outside of half precision's
range, 6e-8 to 65,504.

The file is a checkpoint like any other (`minidl.checkpoint`), for `r2unet predict`, `evaluate` and `explain`.
It also says how its weights predict best: whether eight views and the clean-up helped where they were judged.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from r2unet import interop
from r2unet.errors import InputError
from r2unet.model import NETWORKS
from r2unet.run import load_model, stamp
from r2unet.settings import Settings

PYTORCH_SIZE = 256  # pixels that LeeJunHyun's program makes an image wide, whatever its --image_size says
KEPT = ("mean_mask", "history")  # of a training's state: a baseline to judge beside, and where it came from


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

    His images run from -1 to 1 and ours from -2 to 2, so the weights that meet the image are halved; exact,
    for both pad with zero, and it is the same grey. `steps` is the t it was trained with, `size` its pixels a
    side. Raises InputError for a file that cannot be read, for a recurrent network without its `steps`, which
    no file tells, and for one that does not turn three colours into one mask.
    """
    given = {} if steps is None else {"steps": steps}
    model = interop.read_pytorch(path, **given)
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
            "use it from Python, with r2unet.interop.read_pytorch"
        )
    first.weight.data *= 0.5
    name = next(name for name, network in NETWORKS.items() if network is type(model))
    settings = Settings(model=name, widths=model.widths, up="nearest", norm="shared", size=size, **given)
    return {**stamp(settings.check()), "model": model.state_dict()}


def halved(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state with the weights of convolutions, (OC, C, KH, KW) each, in half precision."""
    weights = {name: a.astype(np.float16) if a.ndim == 4 else a for name, a in state["model"].items()}
    return {**state, "model": weights}

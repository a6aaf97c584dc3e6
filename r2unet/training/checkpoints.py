"""The content of a checkpoint: what every checkpoint of this program contains, and how it is read.

    program, version, settings    the header
    model                         the weights for prediction, by name
    mean_mask, prediction         optional: a baseline for comparison; advice on post-processing
    diagnosis                     optional: temperature, class weights, baselines (`training.calibrate`)
    licence                       optional: the licence of the weights, if it is not this program's
    optimizer, random, ...        optional: the rest of the training state (`r2unet.training.state`)

The file format is `minidl.checkpoint`. Settings that an old checkpoint lacks have their default values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from minidl import checkpoint
from minidl.nn import Module
from r2unet import __version__
from r2unet.errors import InputError
from r2unet.files import write_error
from r2unet.network.model import UShape
from r2unet.training.settings import Settings, new_model

# The pretrained weights that are installed with the program.
ABOUT_WEIGHTS = {
    "isic2017": "outline and three types, from ISIC 2017 (CC0)",
    "ham10000": "outline and seven types, from HAM10000 and ISIC 2017 (CC BY-NC 4.0, not for commercial use)",
}
PRETRAINED = {name: Path(__file__).parents[1] / "weights" / f"{name}.npz" for name in ABOUT_WEIGHTS}
POST_PROCESSING = ("tta", "clean_up")  # steps after prediction that a checkpoint may recommend


def checkpoint_header(settings: Settings) -> dict[str, Any]:
    """Return the first entries of a checkpoint: the program, its version and the settings."""
    return {"program": "r2unet", "version": __version__, "settings": dataclasses.asdict(settings)}


def read_state(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint. Raises InputError if the file is missing, damaged or not a checkpoint of r2unet."""
    remedy = "give the best.npz that `r2unet train` wrote, or a file that `r2unet export` wrote"
    try:
        state = checkpoint.load(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such checkpoint; {remedy}") from None
    except checkpoint.CheckpointError as error:
        raise InputError(f"{error}; {remedy}") from None
    if not isinstance(state, dict) or state.get("program") != "r2unet":
        raise InputError(f"{path}: is a checkpoint of another program; {remedy}")
    return state


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically, and create its folder. Raises InputError if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.save(path, state)
    except OSError as error:
        raise write_error(path, error, "--out") from None


def read_settings(state: dict[str, Any]) -> Settings:
    """Return the settings in a checkpoint. Use it inside `checkpoint_errors`, which explains its errors."""
    known = {field.name for field in dataclasses.fields(Settings)}
    values = {name: value for name, value in state["settings"].items() if name in known}
    return Settings(**{**values, "widths": tuple(values["widths"])}).check()


@contextmanager
def checkpoint_errors(path: str | Path) -> Iterator[None]:
    """Turn errors caused by a checkpoint's content into an InputError that names the file."""
    try:
        yield
    except (InputError, KeyError, TypeError, ValueError, AttributeError) as error:
        first = str(error).split("; ")[0]  # a network of another size has hundreds of wrong shapes
        raise InputError(
            f"{path}: its parts do not fit together ({first}); give another checkpoint, or train again"
        ) from None


def check_finite_weights(model: Module) -> None:
    """Raise ValueError if a weight or a running statistic is not finite."""
    for name, array in model.state_dict().items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} contains NaN or infinity")


def load_model(path: str | Path = PRETRAINED["isic2017"]) -> tuple[UShape, Settings, dict[str, Any]]:
    """Return a trained network in evaluation mode, its settings, and the whole content of its checkpoint.

    The default is the pretrained network (docs/model-card.md). Raises InputError if the file is not a
    checkpoint of r2unet, or its weights do not fit its settings.
    """
    state = read_state(path)
    with checkpoint_errors(path):
        settings = read_settings(state)
        model = new_model(settings, np.random.default_rng(0))
        model.load_state_dict(state["model"])
        check_finite_weights(model)
        mean_mask, advice = np.asarray(state.get("mean_mask", [[0.0]])), state.get("prediction", {})
        if mean_mask.ndim != 2 or mean_mask.dtype.kind not in "fiub":
            raise ValueError("the mean mask is not an image")
        if not all(advice.get(name) in (None, True, False) for name in POST_PROCESSING):
            raise ValueError("its advice on post-processing is neither yes nor no")
    return model.eval(), settings, state


def initial_weights(
    path: str | Path, settings: Settings, log: Callable[[str], None] = lambda line: None
) -> dict[str, np.ndarray]:
    """Return the weights of a checkpoint that have the name and the shape of weights of a new network.

    The network that `settings` describe may differ from that of the checkpoint: a decoder or a diagnosis head
    that only one of them has is left out. Raises InputError if the encoders differ.
    """
    state = read_state(path)
    with checkpoint_errors(path):
        own = new_model(settings, np.random.default_rng(0)).state_dict()
        weights = {
            name: array
            for name, array in state["model"].items()
            if name in own and np.shape(array) == own[name].shape
        }
        new = [name for name in own if name not in weights]
        if any(name.startswith("encoder.") for name in new):
            raise InputError(
                f"{path}: --from: its encoder has other --widths, --norm or --model than this run"
            )
    log(f"{len(weights)} of {len(own)} arrays start from {path}; new: {', '.join(new) or 'none'}")
    return weights

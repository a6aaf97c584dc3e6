"""The content of a checkpoint: what every checkpoint of this program contains, and how it is read.

    program, version, settings    the header
    model                         the weights for prediction, by name
    mean_mask, prediction         optional: a baseline for comparison; advice on post-processing
    diagnosis                     optional: temperature, class weights, baselines (`training.calibrate`)
    licence                       optional: the licence of the weights, if it is not this program's
    trained_head                  optional: the weights of the diagnosis head before it was refitted
    optimizer, random, ...        optional: the rest of the training state (`r2unet.training.state`)

The file format is `minidl.checkpoint`. Settings that an old checkpoint lacks have their default values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minidl import checkpoint
from minidl.init import shapes_only
from r2unet import __version__
from r2unet.data.classes import CLASSES
from r2unet.errors import InputError
from r2unet.files import write_error
from r2unet.network.interop import load_state_dict
from r2unet.network.model import UShape
from r2unet.training.settings import Settings, as_text, flag, new_model

# The pretrained weights that are installed with the program.
ABOUT_WEIGHTS = {
    "isic2017": "outline and three types, from ISIC 2017 (CC0)",
    "ham10000": "outline and seven types, from HAM10000 and ISIC 2017 (CC BY-NC 4.0, not for commercial use)",
}
PRETRAINED = {name: Path(__file__).parents[1] / "weights" / f"{name}.npz" for name in ABOUT_WEIGHTS}
POST_PROCESSING = ("tta", "clean_up")  # steps after prediction that a checkpoint may recommend

ENCODER = ("model", "widths", "steps", "share_weights", "tie_weights", "norm")  # settings of its weights
VIEWS = {"one view": False, "eight views": True}  # each has its own temperature; whether there are several

# What unexpected content raises: a missing key, another type, a number that is too large, endless nesting.
CONTENT_ERRORS = (
    InputError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
LARGEST = 1e12  # number of a logistic regression: with these, the scores of any features are finite
MAX_SHOWN = 300  # characters of such an error
SETTING_TYPES = (bool, int, float, str, list, tuple)


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
        if is_state_dict(path):
            convert = "convert it with `r2unet export --pytorch`"
            raise InputError(f"{path}: is a state_dict of PyTorch; {convert}") from None
        raise InputError(f"{error}; {remedy}") from None
    program = state.get("program") if isinstance(state, dict) else None
    if not isinstance(program, str) or program != "r2unet":  # an array compares elementwise
        raise InputError(f"{path}: is a checkpoint of another program; {remedy}")
    return state


def is_state_dict(path: str | Path) -> bool:
    """Return whether a .npz or .safetensors file is whole and contains weights by name, as in PyTorch."""
    try:
        names = load_state_dict(path).keys()
    except InputError:
        return False
    return "tree" not in names and any(name.endswith(".weight") for name in names)  # a checkpoint has a tree


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
    if not all(value is None or isinstance(value, SETTING_TYPES) for value in values.values()):
        raise ValueError("a setting is neither a number nor a text")
    return Settings(**{**values, "widths": tuple(values["widths"])}).check()


@contextmanager
def checkpoint_errors(path: str | Path) -> Iterator[None]:
    """Turn errors caused by a checkpoint's content into an InputError that names the file."""
    try:
        yield
    except CONTENT_ERRORS as error:
        first = short_reason(error).split("; ")[0]  # a network of another size has hundreds of wrong shapes
        raise InputError(
            f"{path}: its parts do not fit together ({first}); give another checkpoint, or train again"
        ) from None


def short_reason(error: Exception) -> str:
    """Return the text of an error in one line of limited length, without what only a programmer can read."""
    text = str(error)
    if isinstance(error, AttributeError | TypeError):
        text = "a value is of another type"
    elif isinstance(error, OSError):
        text = error.strerror or text
    return " ".join(text.split())[:MAX_SHOWN]


def check_network(settings: Settings, weights: dict[str, np.ndarray]) -> None:
    """Raise ValueError unless the weights are those of the network that the settings describe.

    No memory is allocated for this network: the settings in a small file may describe a very large one.
    """
    with shapes_only():
        new_model(settings, np.random.default_rng(0)).check_state_dict(weights)


def check_weights(weights: dict[str, np.ndarray]) -> None:
    """Raise ValueError for a weight or running statistic that is not finite, or for a negative variance."""
    for name, array in weights.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} contains NaN or infinity")
        if name.endswith("running_var") and array.min() < 0:
            raise ValueError(f"{name} contains {array.min():g}, but a variance cannot be negative")


def load_model(path: str | Path = PRETRAINED["isic2017"]) -> tuple[UShape, Settings, dict[str, Any]]:
    """Return a trained network in evaluation mode, its settings, and the whole content of its checkpoint.

    The default is the pretrained network (docs/model-card.md). Raises InputError if the file is not a
    checkpoint of r2unet, or its weights do not fit its settings.
    """
    state = read_state(path)
    with checkpoint_errors(path):
        settings = read_settings(state)
        check_network(settings, state["model"])
        model = new_model(settings, np.random.default_rng(0))
        with np.errstate(over="ignore"):  # a number beyond float32 becomes infinity, which is an error below
            model.load_state_dict(state["model"])
        check_weights(model.state_dict())
        _check_optional_entries(state, len(CLASSES[settings.classes]))
    return model.eval(), settings, state


def _check_optional_entries(state: dict[str, Any], classes: int) -> None:
    """Raise one of CONTENT_ERRORS for a baseline, advice or correction that is invalid."""
    if "mean_mask" in state and set(np.unique(_numbers(state["mean_mask"], 2))) - {0, 1}:
        raise ValueError("the mean mask is not a mask of 0 and 1")
    if not all(state.get("prediction", {}).get(name) in (None, True, False) for name in POST_PROCESSING):
        raise ValueError("its advice on post-processing is neither yes nor no")
    read_licence(state)
    if "diagnosis" in state:
        _check_diagnosis(state["diagnosis"], classes)


def read_licence(state: dict[str, Any]) -> str | None:
    """Return the licence of a checkpoint's weights, if it stores one. Raises ValueError if it is no text."""
    licence = state.get("licence")
    if licence is not None and not isinstance(licence, str):
        raise ValueError("its licence is not a text")
    return licence


def _check_diagnosis(entry: dict[str, Any], classes: int) -> None:
    """Raise ValueError unless the entry "diagnosis" can correct the probabilities of this many classes."""
    if any(_numbers(entry[name], 1).shape != (classes,) for name in ("log_weights", "shares")):
        raise ValueError(f"its class weights or shares are not those of {classes} classes")
    if min(entry["shares"]) < 0 or not np.isclose(sum(entry["shares"]), 1, atol=1e-5):
        raise ValueError("its shares of the classes do not add up to 1")
    if not all(1e-6 < entry["temperature"][views] < 1e6 for views in VIEWS):
        raise ValueError("a temperature of its diagnosis is not positive")
    if regression := entry.get("regression"):
        features = len(_numbers(regression["mean"], 1))
        shapes = {"mean": (features,), "scale": (features,)}
        shapes |= {"weights": (classes, features), "biases": (classes,)}
        found = {name: np.asarray(array) for name, array in regression.items()}
        if {name: array.shape for name, array in found.items() if array.dtype.kind == "f"} != shapes:
            raise ValueError("its logistic regression does not fit its features and classes")
        biases = found["biases"]
        found["biases"] = biases[biases != -np.inf]  # -infinity for a class without training images
        bounded = all((np.abs(array) < LARGEST).all() for array in found.values())
        if not (bounded and (found["scale"] > 1 / LARGEST).all() and len(found["biases"])):
            raise ValueError("its logistic regression has a number that is too large, or a scale of 0")


def _numbers(array: Any, axes: int) -> np.ndarray:
    """Return an array of finite numbers with so many axes. Raises ValueError if it is anything else."""
    array = np.asarray(array)
    if array.ndim != axes or array.dtype.kind not in "fiub" or not np.isfinite(array).all():
        raise ValueError(f"expected {axes} axes of finite numbers, got {array.dtype} {array.shape}")
    return array


class InitialWeights(NamedTuple):
    """The weights of another network that a training starts from."""

    arrays: dict[str, np.ndarray]  # by name
    licence: str | None = None  # which the trained weights inherit


def initial_weights(
    path: str | Path, settings: Settings, log: Callable[[str], None] = lambda line: None
) -> InitialWeights:
    """Return the weights of a checkpoint that have the name and the shape of weights of a new network.

    The network that `settings` describe may differ from that of the checkpoint: a decoder or a diagnosis head
    that only one of them has is left out. Raises InputError if the encoders differ.
    """
    state = read_state(path)
    with checkpoint_errors(path):
        before = read_settings(state)
        check_network(before, state["model"])
        own = new_model(settings, np.random.default_rng(0)).state_shapes()
        check_weights(state["model"])
        weights = {name: a for name, a in state["model"].items() if own.get(name) == a.shape}
        if "diagnosis.linear.weight" not in weights:
            weights.pop("diagnosis.linear.bias", None)  # which belongs to its weights
        licence = read_licence(state)
    new = [name for name in own if name not in weights]
    if any(name.startswith("encoder.") for name in new):
        values = {n: getattr(before, n) for n in ENCODER if getattr(before, n) != getattr(settings, n)}
        options = " ".join(f"{flag(name)} {as_text(value)}" for name, value in values.items())
        raise InputError(
            f"{path}: --from: its encoder is not that of this run; give the options of its training, "
            f"{options}, or another checkpoint"
        )
    log(f"{len(weights)} of {len(own)} arrays start from {path}; new: {', '.join(new) or 'none'}")
    if licence:
        log(f"the trained weights inherit its licence: {licence}")
    return InitialWeights(weights, licence)

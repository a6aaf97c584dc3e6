"""A training's folder and the files that it leaves.

    runs/NAME/last.npz       the newest state, from which --resume goes on
    runs/NAME/best.npz       the state with the best validation Jaccard: the weights to use
    runs/NAME/history.csv    a line an epoch
    runs/NAME/curves.png     the losses and scores by epoch
    runs/NAME/overlays.png   validation images with the true and the predicted outline
    runs/NAME/report.json    the best state's scores beside the trivial baselines'

Both checkpoints hold everything: settings, weights, optimizer, schedule, random state, history. Time and
place are not among it, so two runs with the same settings on the same machine leave the same bytes.

Nothing is put into the folder before there is something to keep: a run that fails at once leaves no trace.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from minidl import checkpoint
from r2unet import __version__
from r2unet.data.isic import LesionImages, find_pairs
from r2unet.data.sample import Sample
from r2unet.data.synthetic import SyntheticLesions
from r2unet.errors import InputError
from r2unet.files import output_file
from r2unet.network.model import NETWORKS, UShape
from r2unet.training.settings import Settings, as_text, flag

LAST, BEST = "last.npz", "best.npz"
# The pretrained weights that are installed with the program.
PRETRAINED = Path(__file__).parents[1] / "weights" / "isic2017.npz"
POST_PROCESSING = ("tta", "clean_up")  # what a checkpoint may advise to do with the network's answer
MAY_CHANGE = ("data", "checkpoint_blocks")  # when a training goes on: data may move, memory be short
VALIDATION_SHARE = 5  # one generated lesion for validation to so many for training


def new_model(settings: Settings, rng: np.random.Generator) -> UShape:
    """Make the network that the settings describe, with fresh weights."""
    return NETWORKS[settings.model](
        3,
        1,
        settings.widths,
        settings.steps,
        share_weights=settings.share_weights,
        skips=settings.skips,
        up=settings.up,
        norm=settings.norm,
        checkpoint_blocks=settings.checkpoint_blocks,
        rng=rng,
    )


def load_datasets(
    settings: Settings, threads: int = 2, cache: Path | None = None, progress: bool = False
) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """Return the training and the validation images, decoded once; generated ones where there is no data."""
    if settings.data is None:
        held_out = max(1, settings.images // VALIDATION_SHARE)
        # Seeds side by side, not one data set cut in two: more images for training leave validation as it is.
        return (
            SyntheticLesions(settings.images, settings.size, seed=settings.seed),
            SyntheticLesions(held_out, settings.size, seed=settings.seed + 1_000_003),
        )
    pairs = [find_pairs(settings.data, split) for split in ("training", "validation")]
    return tuple(LesionImages(p, settings.size, threads, cache, progress) for p in pairs)


def read_state(path: str | Path) -> dict[str, Any]:
    """Read a training's checkpoint. Raises InputError if the file is missing, damaged or something else."""
    remedy = "give the best.npz that `r2unet train` wrote into its folder, or what `r2unet export` wrote"
    try:
        state = checkpoint.load(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such checkpoint; {remedy}") from None
    except checkpoint.CheckpointError as fault:
        raise InputError(f"{fault}; {remedy}") from None
    if not isinstance(state, dict) or state.get("program") != "r2unet":
        raise InputError(f"{path}: is a checkpoint, but not of this program; {remedy}")
    return state


@contextmanager
def describing(path: str | Path) -> Iterator[None]:
    """Turn what goes wrong while a checkpoint's content is used into an InputError naming the file."""
    try:
        yield
    except (InputError, KeyError, TypeError, ValueError, AttributeError) as fault:
        first = str(fault).split("; ")[0]  # a network of another size differs in a hundred names
        raise InputError(
            f"{path}: its parts do not fit together ({first}); give another checkpoint, or train again"
        ) from None


def read_settings(state: dict[str, Any]) -> Settings:
    """Return the settings a checkpoint was trained with; use it inside `describing`."""
    known = {field.name for field in dataclasses.fields(Settings)}
    values = {name: value for name, value in state["settings"].items() if name in known}
    return Settings(**{**values, "widths": tuple(values["widths"])}).check()


def begin(out: Path, given: dict[str, Any], resume: bool) -> tuple[Settings, dict[str, Any] | None]:
    """Return a training's settings and, if `out` holds one to go on with, its state.

    What is not given is the default, or what the training began with. Raises InputError where a training
    would be overwritten, or where something given would change one that goes on; its data may have moved.
    """
    found = next((out / name for name in (LAST, BEST) if (out / name).exists()), None)
    if found is None:
        return Settings(**given).check(), None
    if not resume:
        raise InputError(f"--out {out}: holds a training already; go on with --resume, or choose another")
    state = read_state(found)
    with describing(found):
        before = read_settings(state)
    for name, value in given.items():
        if name not in MAY_CHANGE and value != getattr(before, name):
            raise InputError(
                f"{flag(name)} {as_text(value)}: this training began with {as_text(getattr(before, name))}; "
                "leave the option out to go on, or begin another with a new --out"
            )
    return dataclasses.replace(before, **{k: v for k, v in given.items() if k in MAY_CHANGE}), state


def check_writable(name: str, out: Path) -> None:
    """Raise InputError, naming the option, unless files can be put into `out`: before hours of work."""
    there = out
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        raise InputError(f"{name} {out}: {there} is a file; choose a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{name} {out}: no permission to write into {there}; choose another folder")


def load_model(path: str | Path = PRETRAINED) -> tuple[UShape, Settings, dict[str, Any]]:
    """Return a trained network in evaluation mode, its settings, and all else that the checkpoint holds.

    Without a path it is the network that comes with the program, told of in docs/model-card.md. Raises
    InputError if the file is no checkpoint, or its weights do not fit its settings.
    """
    state = read_state(path)
    with describing(path):
        settings = read_settings(state)
        model = new_model(settings, np.random.default_rng(0))
        model.load_state_dict(state["model"])
        check_finite(model)
        mean_mask, advice = np.asarray(state.get("mean_mask", [[0.0]])), state.get("prediction", {})
        if mean_mask.ndim != 2 or mean_mask.dtype.kind not in "fiub":
            raise ValueError("the mean mask is no image")
        if not all(advice.get(name) in (None, True, False) for name in POST_PROCESSING):
            raise ValueError("its advice on prediction is not a yes or a no")
    return model.eval(), settings, state


def check_finite(model: UShape) -> None:
    """Raise ValueError for a network with a weight or a running statistic that is not finite."""
    for name, array in model.state_dict().items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} is not finite everywhere")


def stamp(settings: Settings) -> dict[str, Any]:
    """Begin a checkpoint: which program wrote it, in which version, for which settings."""
    return {"program": "r2unet", "version": __version__, "settings": dataclasses.asdict(settings)}


def write_history(out: Path, history: list[dict[str, float]]) -> None:
    """Write the epochs so far as history.csv and curves.png. Raises InputError if they cannot be written."""
    from r2unet import plots

    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=list(history[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(history)
    with output_file(out / "history.csv") as file:
        file.write(text.getvalue().encode())
    plots.plot_curves(history, out / "curves.png")

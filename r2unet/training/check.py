"""Checks whether checkpoints, weights and run folders are whole: checksums, shapes, and finite numbers.

A file is read exactly as a command reads it, and every array in it is examined, also those that this command
would not need. So what is whole here can be predicted with, and resumed from.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np

from minidl.init import shapes_only
from r2unet.data.check import Finding
from r2unet.errors import InputError
from r2unet.network.interop import load_state_dict, read_pytorch
from r2unet.training.checkpoints import (
    CONTENT_ERRORS,
    check_network,
    check_weights,
    checkpoint_errors,
    load_model,
    short_reason,
)
from r2unet.training.run_files import read_history, read_report
from r2unet.training.run_folder import BEST, HISTORY, LAST, REPORT
from r2unet.training.settings import Settings, as_text, new_model
from r2unet.training.state import arrays_in

RUN_FILES = (LAST, BEST, REPORT)  # any of them makes a folder that of a training run


def check_weights_file(path: Path) -> Finding:
    """Read a checkpoint, exported weights, or PyTorch's weights (.npz or .safetensors)."""
    if path.suffix.lower() == ".npz" and not _is_state_dict(path):
        return check_checkpoint(path)
    what = "weights of PyTorch"
    try:
        model = read_pytorch(path)
        with checkpoint_errors(path):
            check_weights(model.state_dict())
    except InputError as error:
        return Finding(path, what, str(error))
    return Finding(path, f"{what}: {type(model).__name__} with {as_text(tuple(model.widths))} channels")


def check_checkpoint(path: Path, remedy: str | None = None) -> Finding:
    """Read a checkpoint or exported weights; `remedy` replaces the usual advice."""
    what = "a checkpoint"
    try:
        _, settings, state = load_model(path)
        with checkpoint_errors(path):
            _check_arrays(state, settings)
            what = _describe(settings, state)
    except InputError as error:
        fault, _, usual = str(error).rpartition("; ")
        return Finding(path, what, f"{fault}; {remedy or usual}")
    return Finding(path, what)


def check_run(folder: Path, remedy: str | None = None) -> list[Finding]:
    """Check the files of a training run, finished or not; `remedy` is the command that resumes it."""
    resume = remedy or f"`r2unet train --resume --out {shlex.quote(str(folder))}`"
    last, best = folder / LAST, folder / BEST
    findings = []
    if last.exists():
        findings.append(check_checkpoint(last, f"{resume} resumes from {BEST} instead, if that is whole"))
    if best.exists():
        findings.append(
            check_checkpoint(best, f"delete this file; {resume} puts the newest state in its place")
        )
    elif last.exists() and (folder / REPORT).exists():
        fault = f"{best}: is missing; {resume} puts the newest state in its place"
        findings.append(Finding(best, "a checkpoint", fault))
    for name, what, read in (
        (HISTORY, "the scores of every epoch", read_history),
        (REPORT, "the scores of the best epoch", read_report),
    ):
        if (folder / name).exists():
            findings.append(_check_scores(folder / name, what, read, resume))
    return findings


def _check_scores(path: Path, what: str, read: Any, resume: str) -> Finding:
    try:
        read(path)
    except (OSError, *CONTENT_ERRORS) as error:
        fault = f"{path}: is damaged ({short_reason(error)}); delete this file; {resume} writes it again"
        return Finding(path, what, fault)
    return Finding(path, what)


def _is_state_dict(path: Path) -> bool:
    """Return whether a .npz file is whole and has no tree: every checkpoint has one."""
    try:
        return "tree" not in load_state_dict(path)
    except InputError:
        return False


def _check_arrays(state: dict[str, Any], settings: Settings) -> None:
    """Raise one of CONTENT_ERRORS for an array of a training state that is not finite or of a wrong shape."""
    for name, array in arrays_in(state):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{name} contains NaN or infinity")
    if "trained" in state:  # "model" is then their moving average
        check_network(settings, state["trained"])
    if "trained_head" in state:  # with which a training continues, if "model" has a refitted head
        check_network(settings, {**state["model"], **state["trained_head"]})
    if "optimizer" in state:
        with shapes_only():
            model = new_model(settings, np.random.default_rng(0))
            frozen = {id(p) for p in model.encoder_parameters()} if settings.freeze_encoder else set()
            shapes = [p.data.shape for p in model.parameters() if id(p) not in frozen]
        for slot in ("mean", "square"):
            if [array.shape for array in state["optimizer"][slot]] != shapes:
                raise ValueError(f"the optimizer's {slot} does not have the shapes of the weights")


def _describe(settings: Settings, state: dict[str, Any]) -> str:
    """Return what a whole checkpoint is, in a few words."""
    network = f"{settings.model} with {as_text(settings.widths)} channels, {settings.task}"
    if "optimizer" not in state:
        return f"weights for prediction: {network}"
    return f"a training state after {len(state['history'])} of {settings.epochs} epochs: {network}"

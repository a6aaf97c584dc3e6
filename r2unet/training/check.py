"""Checks whether checkpoints, weights and run folders are whole: checksums, shapes, and finite numbers.

A file is read exactly as a command reads it, and every array in it is examined, also those that this command
would not need. So what is whole here can be predicted with, and resumed from.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minidl.init import shapes_only
from r2unet.data.check import Finding
from r2unet.errors import InputError
from r2unet.network.interop import read_pytorch
from r2unet.training.checkpoints import (
    CONTENT_ERRORS,
    check_network,
    check_weights,
    checkpoint_errors,
    is_state_dict,
    load_model,
    short_reason,
)
from r2unet.training.run_files import check_diagnoses, check_parts, read_history, read_report
from r2unet.training.run_folder import BEST, HISTORY, LAST, REPORT, other_settings
from r2unet.training.settings import Settings, as_text, new_model
from r2unet.training.state import arrays_in

RUN_FILES = (LAST, BEST, REPORT)  # any of them makes a folder that of a training run


def check_weights_file(path: Path) -> Finding:
    """Read a checkpoint, exported weights, or PyTorch's weights (.npz or .safetensors)."""
    if path.suffix.lower() == ".npz" and not is_state_dict(path):
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
    return _read_checkpoint(path, remedy).finding


class _Checkpoint(NamedTuple):
    """What was found of a checkpoint and, if it is whole, what the other files of its run must agree with."""

    finding: Finding
    settings: Settings | None = None
    history: list[dict[str, float]] | None = None


NO_CHECKPOINT = _Checkpoint(Finding(Path(), ""))


def _read_checkpoint(path: Path, remedy: str | None = None) -> _Checkpoint:
    what = "a checkpoint"
    try:
        _, settings, state = load_model(path)
        with checkpoint_errors(path):
            _check_arrays(state, settings)
            what = _describe(settings, state)
    except InputError as error:
        fault, _, usual = str(error).rpartition("; ")
        return _Checkpoint(Finding(path, what, f"{fault}; {remedy or usual}"))
    history = state.get("history")
    return _Checkpoint(Finding(path, what), settings, history if isinstance(history, list) else None)


def check_run(folder: Path, remedy: str | None = None) -> list[Finding]:
    """Check the files of a training run; `remedy` is the command that resumes it.

    A finished run has all RUN_FILES. An unfinished one may lack those that its last.npz does not imply.
    """
    resume = remedy or f"`r2unet train --resume --out {shlex.quote(str(folder))}`"
    last, best = folder / LAST, folder / BEST
    finished = (folder / REPORT).exists()
    if finished and not last.exists() and not best.exists():
        return [Finding(last, "a checkpoint", f"{last}: is missing, and so is {BEST}; train again")]
    advice = {
        LAST: f"{resume} resumes from {BEST} instead, if that is whole",
        BEST: f"delete this file; {resume} puts the newest state in its place",
    }
    found = {p: _read_checkpoint(p, advice[p.name]) for p in (last, best) if p.exists()}
    findings = {path: checkpoint.finding for path, checkpoint in found.items()}
    if finished and last not in found:
        findings[last] = _missing(last, "a checkpoint", f"{resume} repeats the epochs after {BEST}")
    newest, other = found.get(last, NO_CHECKPOINT), found.get(best, NO_CHECKPOINT)
    if best not in found and (finished or newest.history):
        findings[best] = _missing(best, "a checkpoint", f"{resume} puts the newest state in its place")
    if newest.settings and other.settings and (how := other_settings(newest.settings, other.settings)):
        fault = f"{best}: is of another run than {LAST} ({how}); {advice[BEST]}"
        findings[best] = Finding(best, other.finding.what, fault)
    if finished or newest.history or (folder / HISTORY).exists():
        findings[folder / HISTORY] = check_history(folder, resume, newest.history)
    if finished:
        settings = newest.settings or other.settings
        findings[folder / REPORT] = check_report(folder, resume, settings and settings.task)
    return list(findings.values())


def check_history(folder: Path, resume: str, expected: list[dict[str, float]] | None = None) -> Finding:
    """Check the scores of every epoch; `expected` are those in last.npz, which may be an epoch behind."""

    def read(path: Path) -> None:
        rows = read_history(path)
        if expected and rows[: len(expected)] != expected:
            raise ValueError(f"its rows are not those of the {len(expected)} epochs in {LAST}")

    return _check_scores(folder / HISTORY, "the scores of every epoch", read, resume)


def check_report(folder: Path, resume: str, task: str | None = None) -> Finding:
    """Check the scores of the best epoch; `task` is that of the network, if it is known."""

    def read(path: Path) -> None:
        report = read_report(path)
        check_diagnoses(report.get("diagnosis"))
        if task:
            check_parts(report, task)

    return _check_scores(folder / REPORT, "the scores of the best epoch", read, resume)


def _check_scores(path: Path, what: str, read: Callable[[Path], None], resume: str) -> Finding:
    if not path.exists():
        return _missing(path, what, f"{resume} writes it again")
    try:
        read(path)
    except (OSError, *CONTENT_ERRORS) as error:
        fault = f"{path}: is damaged ({short_reason(error)}); delete this file; {resume} writes it again"
        return Finding(path, what, fault)
    return Finding(path, what)


def _missing(path: Path, what: str, remedy: str) -> Finding:
    return Finding(path, what, f"{path}: is missing; {remedy}")


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

"""The folder of a training run: its files, its images, and how a run is started or resumed.

    runs/NAME/last.npz       the newest state, for --resume
    runs/NAME/best.npz       the state with the best validation score: the weights to use
    runs/NAME/history.csv    one line per epoch
    runs/NAME/curves.png     losses and scores by epoch
    runs/NAME/overlays.png   validation images with the true and the predicted outline
    runs/NAME/report.json    scores of the best state and of the trivial baselines

Both checkpoints hold the complete state: settings, weights, optimizer, schedule, random state and history.
They contain neither times nor paths, so two runs with the same settings on the same machine write identical
files.

One process at a time may train into a folder (`r2unet.training.lock`). A run that fails before the first file
is saved leaves no trace.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from minidl.files import sync_folder
from r2unet.data.folders import find_pairs
from r2unet.data.lesion_images import LesionImages
from r2unet.data.pairs import Pair
from r2unet.data.sample import Sample
from r2unet.data.synthetic import SyntheticLesions
from r2unet.errors import InputError, warn
from r2unet.files import open_input, output_file, write_error
from r2unet.training.checkpoints import check_network, checkpoint_errors, read_settings, read_state
from r2unet.training.settings import Settings, as_text, flag

LAST, BEST = "last.npz", "best.npz"
HISTORY, REPORT = "history.csv", "report.json"
PATHS = ("data", "labels")  # the files may have moved since a run was started
RESUME_MAY_CHANGE = (*PATHS, "checkpoint_blocks")  # and memory may be short
TRAINING_PER_VALIDATION = 5  # generated lesions for training per generated lesion for validation


class KeptFile:
    """A file whose content survives its deletion while it is kept open, until the end of a `with` block.

    An open file that is deleted keeps its content until it is closed, which costs no memory.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._file = path, None

    def __enter__(self) -> KeptFile:
        if self.path.exists():
            self.open()
        return self

    def __exit__(self, *error: object) -> None:
        if self._file:
            self._file.close()

    def open(self) -> None:
        """Keep the file that now has the path, in place of an older one."""
        if self._file:
            self._file.close()
        if os.name == "posix":  # Windows can neither delete nor replace an open file
            self._file = open_input(self.path)

    def restore(self) -> bool:
        """Write the file again if it was deleted. Return whether it was written."""
        if self._file is None or self.path.exists():
            return False
        self._file.seek(0)
        with output_file(self.path) as file:
            shutil.copyfileobj(self._file, file)
        return True


def generate_datasets(settings: Settings, stored: bool = True) -> tuple[SyntheticLesions, SyntheticLesions]:
    """Return the training and the validation set of generated lesions; if `stored`, they stay in memory."""
    # Two seeds, not one data set split in two: the validation set does not depend on `images`.
    count, size, seed = settings.images, settings.size, settings.seed
    return (
        SyntheticLesions(count, size, seed, stored),
        SyntheticLesions(max(1, count // TRAINING_PER_VALIDATION), size, seed + 1_000_003, stored),
    )


def load_datasets(
    settings: Settings, threads: int = 2, cache: Path | None = None, progress: bool = False
) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """Return the training and the validation set: image files or, without `data`, generated lesions."""
    if settings.data is None:
        return generate_datasets(settings)
    # Both splits are found before any image is decoded, so that a missing folder is reported at once.
    pairs = [find_files(settings, split) for split in ("training", "validation")]
    training, validation = (LesionImages(p, settings.size, threads, cache, progress) for p in pairs)
    return training, validation


def load_training(settings: Settings) -> Sequence[Sample]:
    """Return the training set alone, as `load_datasets` does."""
    if settings.data is None:
        return generate_datasets(settings)[0]
    return LesionImages(find_files(settings, "training"), settings.size)


def find_files(settings: Settings, split: str) -> list[Pair]:
    """Find the image files of a split, with masks and diagnoses as far as the task needs them."""
    return find_pairs(
        settings.data,
        split,
        settings.labels,
        labelled=settings.task != "outline",
        masks_needed=settings.task != "diagnosis",
    )


def start_or_resume(
    out: Path, given: dict[str, Any], resume: bool, write: bool = True
) -> tuple[Settings, dict[str, Any] | None]:
    """Return the settings of a run and, if `out` contains a run to resume, its state.

    A damaged last.npz is renamed to last.npz.damaged, and the state is that of best.npz: training is
    deterministic, so the result is the same, and only time is lost. Without `write` it is an error instead.

    Settings that are not given have their default values or, on resuming, the values of that run. Raises
    InputError if a run would be overwritten, or if a given setting differs from that run's. Only
    RESUME_MAY_CHANGE may differ.
    """
    names = [name for name in (LAST, BEST) if (out / name).exists()]
    if not names:
        return Settings(**given).check(), None
    if not resume:
        raise InputError(
            f"--out {out}: already contains a training run; add --resume, or choose another folder"
        )
    fault = None  # of last.npz, if there is a best.npz to resume from
    try:
        before, state = _read_run(out / names[0])
    except InputError as error:
        fault = str(error).rpartition("; ")[0]  # without the remedy for a checkpoint to predict with
        if names != [LAST, BEST]:
            raise InputError(f"{fault}; delete this file, and --resume starts again") from None
        before, state = _read_instead(out, fault)
    if fault is None and names == [LAST, BEST]:
        _check_same_run(out, before)
    for name, value in given.items():
        if name not in RESUME_MAY_CHANGE and value != getattr(before, name):
            raise InputError(
                f"{flag(name)} {as_text(value)}: this run was started with "
                f"{as_text(getattr(before, name))}; omit the option to resume, or start another "
                "run with a new --out"
            )
    if fault:
        if not write:
            raise InputError(f"{fault}; resume without --profile, which moves this file aside")
        _move_aside(out / LAST, fault)
    changed = {name: value for name, value in given.items() if name in RESUME_MAY_CHANGE}
    return dataclasses.replace(before, **changed), state


def _read_run(path: Path) -> tuple[Settings, dict[str, Any]]:
    """Read a state of a run, and its settings. Raises InputError if it is damaged."""
    state = read_state(path)
    with checkpoint_errors(path):
        settings = read_settings(state)
        check_network(settings, state["model"])
    return settings, state


def _check_same_run(out: Path, settings: Settings) -> None:
    """Raise InputError if best.npz is of a run with other settings, which the report would describe."""
    try:
        other = _read_run(out / BEST)[0]
    except InputError:
        return  # it may be replaced before it is needed
    if difference := other_settings(settings, other):
        raise InputError(
            f"{out / BEST}: is of another run than {LAST} ({difference}); delete this file, and --resume "
            "puts the newest state in its place"
        )


def other_settings(settings: Settings, other: Settings) -> str:
    """Return how the settings of best.npz, `other`, differ from those of last.npz, "" if one run has both."""
    for name, value in dataclasses.asdict(settings).items():
        found = getattr(other, name)
        if name not in RESUME_MAY_CHANGE and found != value:
            return f"its {flag(name)} is {as_text(found)}, not {as_text(value)}"
    return ""


def _read_instead(out: Path, fault: str) -> tuple[Settings, dict[str, Any]]:
    """Read best.npz instead of a damaged last.npz. Raises InputError if it is not damaged, or if both are."""
    try:
        open_input(out / LAST).close()
    except OSError:  # no permission, or not a regular file: the content may be in order
        raise InputError(f"{fault}; correct that, and --resume again") from None
    try:
        return _read_run(out / BEST)
    except InputError as error:
        other = str(error).rpartition("; ")[0]
        raise InputError(f"{fault}, and {other}; delete both, and --resume starts again") from None


def _move_aside(path: Path, fault: str) -> None:
    """Rename a damaged last.npz to a new name, after saying so: nothing is deleted."""
    aside = next(name for name in _names_aside(path) if not os.path.lexists(name))
    warn(
        f"{fault}; renaming it to {aside.name} and resuming from {BEST}, which repeats the epochs since then "
        "and gives the same result"
    )
    try:
        os.rename(path, aside)
        sync_folder(path.parent)
    except OSError as error:
        raise write_error(aside, error, "--out") from None


def _names_aside(path: Path) -> Iterator[Path]:
    """Yield last.npz.damaged, last.npz.damaged2, ..."""
    for number in count(1):
        yield path.with_name(f"{path.name}.damaged{'' if number == 1 else number}")

"""The folder of a training run: its files, its images, and how a run is started or resumed.

    runs/NAME/last.npz       the newest state, for --resume
    runs/NAME/best.npz       the state with the best validation Jaccard: the weights to use
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from r2unet.data.folders import find_pairs
from r2unet.data.lesion_images import LesionImages
from r2unet.data.pairs import Pair
from r2unet.data.sample import Sample
from r2unet.data.synthetic import SyntheticLesions
from r2unet.errors import InputError
from r2unet.files import output_file
from r2unet.training.checkpoints import check_network, checkpoint_errors, read_settings, read_state
from r2unet.training.settings import Settings, as_text, flag

LAST, BEST = "last.npz", "best.npz"
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
            self._file = open(self.path, "rb")  # noqa: SIM115

    def restore(self) -> bool:
        """Write the file again if it was deleted. Return whether it was written."""
        if self._file is None or self.path.exists():
            return False
        self._file.seek(0)
        with output_file(self.path) as file:
            shutil.copyfileobj(self._file, file)
        return True


def load_datasets(
    settings: Settings, threads: int = 2, cache: Path | None = None, progress: bool = False
) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """Return the training and the validation set: image files or, without `data`, generated lesions."""
    if settings.data is None:
        # Two seeds, not one data set split in two: the validation set does not depend on `images`.
        return (
            SyntheticLesions(settings.images, settings.size, seed=settings.seed),
            SyntheticLesions(
                max(1, settings.images // TRAINING_PER_VALIDATION),
                settings.size,
                seed=settings.seed + 1_000_003,
            ),
        )
    # Both splits are found before any image is decoded, so that a missing folder is reported at once.
    pairs = [find_files(settings, split) for split in ("training", "validation")]
    training, validation = (LesionImages(p, settings.size, threads, cache, progress) for p in pairs)
    return training, validation


def find_files(settings: Settings, split: str) -> list[Pair]:
    """Find the image files of a split, with masks and diagnoses as far as the task needs them."""
    return find_pairs(
        settings.data,
        split,
        settings.labels,
        labelled=settings.task != "outline",
        masks_needed=settings.task != "diagnosis",
    )


def start_or_resume(out: Path, given: dict[str, Any], resume: bool) -> tuple[Settings, dict[str, Any] | None]:
    """Return the settings of a run and, if `out` contains a run to resume, its state.

    Settings that are not given have their default values or, on resuming, the values of that run. Raises
    InputError if a run would be overwritten, or if a given setting differs from that run's. Only
    RESUME_MAY_CHANGE may differ.
    """
    found = next((out / name for name in (LAST, BEST) if (out / name).exists()), None)
    if found is None:
        return Settings(**given).check(), None
    if not resume:
        raise InputError(
            f"--out {out}: already contains a training run; add --resume, or choose another folder"
        )
    try:
        state = read_state(found)
        with checkpoint_errors(found):
            before = read_settings(state)
            check_network(before, state["model"])
    except InputError as error:
        then = "resumes from best.npz" if (out / BEST).exists() and found.name == LAST else "starts again"
        fault = str(error).rpartition("; ")[0]  # without the remedy for a checkpoint to predict with
        raise InputError(f"{fault}; delete this file, and --resume {then}") from None
    for name, value in given.items():
        if name not in RESUME_MAY_CHANGE and value != getattr(before, name):
            raise InputError(
                f"{flag(name)} {as_text(value)}: this run was started with "
                f"{as_text(getattr(before, name))}; omit the option to resume, or start another "
                "run with a new --out"
            )
    changed = {name: value for name, value in given.items() if name in RESUME_MAY_CHANGE}
    return dataclasses.replace(before, **changed), state

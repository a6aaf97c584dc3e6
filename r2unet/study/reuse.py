"""Reuse: copy runs that another study has finished, instead of repeating them.

Several studies often share a row, for example the network with the given settings. Two runs with the
same data and the same settings, including the seed, give the same result.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from r2unet.files import copy_folder
from r2unet.study.plan import FINISHED, Plan, read_plan
from r2unet.training.checkpoints import checkpoint_errors, read_settings, read_state
from r2unet.training.run_folder import BEST, PATHS
from r2unet.training.settings import Settings


def finished_runs(studies: Sequence[Path]) -> dict[Settings, Path]:
    """Return the folder of each finished run in these studies' folders, by its settings.

    Raises InputError for a folder that contains no study.
    """
    finished: dict[Settings, Path] = {}
    for study in studies:
        shared = read_plan(study, "--reuse").shared
        for report in sorted(study.glob(f"*/seed-*/{FINISHED}")):
            state = read_state(report.parent / BEST)
            with checkpoint_errors(report.parent / BEST):
                settings = read_settings(state)
            # The plan's paths, because the files may have moved after the run.
            settings = dataclasses.replace(settings, data=shared.data, labels=shared.labels)
            finished.setdefault(_with_real_paths(settings), report.parent)
    return finished


def copy_finished(
    out: Path, plan: Plan, finished: dict[Settings, Path], log: Callable[[str], None] = print
) -> None:
    """Copy the finished runs that this study needs and has not started."""
    copied = 0
    for task in plan.tasks(out):
        if (source := finished.get(_with_real_paths(task.settings))) and not task.folder.exists():
            copy_folder(source, task.folder)
            log(f"{task.title}: copied from {source}")
            copied += 1
    if finished and not copied:
        log("--reuse: nothing copied; no run there has the data and settings of a new run here")


def _with_real_paths(settings: Settings) -> Settings:
    """Return settings whose paths are canonical, so that equal folders compare equal."""
    paths = {name: getattr(settings, name) for name in PATHS}
    return dataclasses.replace(settings, **{name: p and os.path.realpath(p) for name, p in paths.items()})

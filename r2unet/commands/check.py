"""`r2unet check`: say of files and folders whether they are whole, what they are, and what to do if not."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from r2unet.commands.values import given_path
from r2unet.data.check import CACHE_SUFFIX, Finding, check_cache, check_image, check_images
from r2unet.data.images import SUFFIXES
from r2unet.errors import InputError, visible
from r2unet.files import open_input, visible_files

HELP = "check that checkpoints, caches, runs, studies and masks are whole"
DETAILS = (
    "Every byte is read: checksums, shapes, whether numbers are finite. Nothing is changed. Exit code 0: "
    "all are whole; 1: at least one is not, and its line says what to do."
)
WEIGHTS = (".npz", ".safetensors")
KNOWN = (
    "a checkpoint or weights (.npz, .safetensors), a cache (.npy), an image or a mask, or a folder of these, "
    "of a training run or of a study"
)


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("paths", nargs="+", type=given_path, metavar="FILE", help=KNOWN)


def run(options: argparse.Namespace) -> int:
    checks = [_check_of(path) for path in options.paths]  # a wrong path is reported before long work
    faults = 0
    for check in checks:
        for finding in check():
            faults += bool(finding.error)
            state = "NOT WHOLE" if finding.error else "whole"
            print(visible(f"{state:9}  {finding.error or f'{finding.path}: {finding.what}'}"), flush=True)
    return 1 if faults else 0


def _check_of(path: Path) -> Callable[[], Iterable[Finding]]:
    """Return the function that checks a path. Raises InputError if there is none, or the path is missing."""
    from r2unet.study.check import check_study
    from r2unet.study.plan import PLAN
    from r2unet.training.check import RUN_FILES, check_run, check_weights_file

    if not path.is_dir():
        try:
            open_input(path).close()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from None
        suffix = path.suffix.lower()
        if suffix in WEIGHTS:
            return lambda: [check_weights_file(path)]
        if suffix == CACHE_SUFFIX:
            return lambda: [check_cache(path)]
        if suffix in SUFFIXES:
            return lambda: [check_image(path)]
        raise InputError(f"{path}: is of an unknown kind; give {KNOWN}")
    if (path / PLAN).exists():
        return lambda: check_study(path)
    if any((path / name).exists() for name in RUN_FILES):
        return lambda: check_run(path)
    if any(file.suffix.lower() in (*WEIGHTS, CACHE_SUFFIX, *SUFFIXES) for file in visible_files(path)):
        return lambda: _check_files(path)
    raise InputError(f"{path}: contains nothing to check; give {KNOWN}")


def _check_files(folder: Path) -> Iterator[Finding]:
    """Check every file of a known kind in a folder: caches, then weights, then images."""
    from r2unet.training.check import check_weights_file

    files = visible_files(folder)
    yield from (check_cache(file) for file in files if file.suffix.lower() == CACHE_SUFFIX)
    yield from (check_weights_file(file) for file in files if file.suffix.lower() in WEIGHTS)
    if any(file.suffix.lower() in SUFFIXES for file in files):
        yield from check_images(folder)

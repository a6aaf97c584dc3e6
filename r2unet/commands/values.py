"""Converters from the text of an option to its value; argparse reports the errors that they raise."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from minidl.threads import physical_cores
from r2unet.training.settings import LIMITS

MAX_PROCESSES = 64
FIGURE_SUFFIXES = (".png", ".pdf", ".svg")


def number(kind: type, minimum: float, maximum: float) -> Callable[[str], Any]:
    """Return a converter to a number of type `kind` from `minimum` to `maximum`."""

    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not minimum <= value <= maximum:
            word = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"must be {word} from {minimum:g} to {maximum:g}, got {text!r}")
        return value

    return convert


def processes(text: str) -> int:
    """Convert a number of processes; "auto" is the number of physical cores."""
    if text == "auto":
        return min(physical_cores(), MAX_PROCESSES)
    try:
        return number(int, 1, MAX_PROCESSES)(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}; or auto, the number of physical cores") from None


def workers(text: str) -> int | str:
    """Convert a number of worker processes; "auto" stays, because it depends on the device."""
    if text == "auto":
        return text
    try:
        return number(int, 0, MAX_PROCESSES)(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}; or auto") from None


def widths(text: str) -> tuple[int, ...]:
    """Convert "8,16,32,64" to (8, 16, 32, 64)."""
    return _numbers(text, "widths", "8,16,32,64")


def seeds(text: str) -> tuple[int, ...]:
    """Convert "0,1,2" to (0, 1, 2); refuse a seed that appears twice."""
    values = _numbers(text, "seed", "0,1,2")
    if len(set(values)) < len(values):
        raise argparse.ArgumentTypeError(f"must be different seeds, got {text!r}")
    return values


def _numbers(text: str, setting: str, example: str) -> tuple[int, ...]:
    """Convert whole numbers separated by commas, each within the limits of a setting."""
    try:
        return tuple(map(number(int, *LIMITS[setting]), text.split(",")))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}; write them as {example}") from None


def given_path(text: str) -> Path:
    """Convert a path; refuse the empty text, such as that of a shell variable without a value."""
    if not text:
        raise argparse.ArgumentTypeError("must be a path, got ''; write . for this folder")
    return Path(text)


def picture(text: str) -> Path:
    """Convert the name of a figure to write to its path; refuse a format that cannot be written."""
    return new_file(text, FIGURE_SUFFIXES)


def new_file(text: str, endings: Sequence[str] = ()) -> Path:
    """Convert the name of a file to write to its path; refuse a folder and, given `endings`, any other."""
    path = Path(text)
    if path.name in ("", "..") or path.is_dir():
        raise argparse.ArgumentTypeError(f"must be the name of a file, got the folder {text!r}")
    if endings and path.suffix.lower() not in endings:
        raise argparse.ArgumentTypeError(f"must be a name ending in {', '.join(endings)}, got {text!r}")
    return path

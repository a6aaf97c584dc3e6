"""What an option's word may be: converters from text that argparse calls, which refuse what cannot be."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from r2unet.training.settings import LIMITS

PICTURES = (".png", ".pdf", ".svg")


def number(kind: type, least: float, most: float) -> Callable[[str], Any]:
    """Return a converter for an option: a number of `kind` from `least` to `most`."""

    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            word = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"want {word} from {least:g} to {most:g}, got {text!r}")
        return value

    return convert


def widths(text: str) -> tuple[int, ...]:
    """Convert "8,16,32,64" to (8, 16, 32, 64)."""
    try:
        return tuple(map(number(int, *LIMITS["widths"]), text.split(",")))
    except argparse.ArgumentTypeError as fault:
        raise argparse.ArgumentTypeError(f"{fault}; write them as 8,16,32,64") from None


def seeds(text: str) -> tuple[int, ...]:
    """Convert "0,1,2" to (0, 1, 2)."""
    try:
        values = tuple(map(number(int, *LIMITS["seed"]), text.split(",")))
    except argparse.ArgumentTypeError as fault:
        raise argparse.ArgumentTypeError(f"{fault}; write them as 0,1,2") from None
    if len(set(values)) < len(values):
        raise argparse.ArgumentTypeError(f"{text}: a seed is there twice, and would give the same training")
    return values


def picture(text: str) -> Path:
    """Convert the name of a picture to be drawn, of a kind that can be."""
    if Path(text).suffix.lower() not in PICTURES:
        raise argparse.ArgumentTypeError(f"want a name ending in {', '.join(PICTURES)}, got {text!r}")
    return Path(text)


def new_file(text: str) -> Path:
    """Convert the name of a file to be written."""
    path = Path(text)
    if path.name in ("", "..") or path.is_dir():
        raise argparse.ArgumentTypeError(f"want the name of a file, got {text!r}, which is a folder")
    return path

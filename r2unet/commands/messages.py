"""What the commands say to a person: the one line of a fault, the table of scores, what memory was for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from r2unet.errors import InputError


def complain(fault: object, code: int = 2) -> int:
    """Print one line on stderr, also where a file's name has two, and return the exit code."""
    print("r2unet: error:", " ".join(str(fault).splitlines()), file=sys.stderr)
    return code


def print_scores(scores: dict[str, Any]) -> None:
    """Print the table to stdout, and to stderr what the model does not beat."""
    from r2unet.scores.evaluate import as_table, warnings

    print(as_table(scores), flush=True)
    for warning in warnings(scores):
        print(warning, file=sys.stderr)


@contextmanager
def enough_memory(option: str, images: int, size: int, device: str, remedy: str) -> Iterator[None]:
    """Turn a lack of memory, the computer's or the GPU's, into an InputError that says what it was for."""
    try:
        yield
    except MemoryError:
        where = " on the GPU" if device == "cuda" else ""
        batch = (
            f"{images} images at once of {size} x {size} pixels" if images > 1 else f"{size} x {size} pixels"
        )
        raise InputError(f"{option}: not enough memory{where} for {batch}; {remedy}") from None

"""How far apart several processes and one process are after an epoch in float64, as a table.

    python -m tests.r2unet.training.agreement_of_processes

The epoch is that of `shared_batches`: batches of 4, 4 and 1 images, so that with two processes or more the
last batch leaves some without an image. A difference is relative, |x - y| / |y|, where x has the numbers of
all arrays of a kind in a row, and y those of one process without MPI. Of the gradients it is the largest of
the three steps.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.report import table
from minidl.parallel import Processes
from tests.mpi import run_processes
from tests.r2unet.training import shared_batches

NORMS = ("per-step", "shared", "group")
COUNTS = (1, 2, 3, 4)
STEPS = 3  # of the epoch
KINDS = ("gradients", "weights", "running statistics", "loss and scores")

Arrays = Mapping[str, np.ndarray]


def kind_of(name: str) -> str:
    """Return the kind of an array of `shared_batches`; the empty text for the optimizer's and others."""
    if name.startswith("gradient "):
        return "gradients"
    if name.startswith("model."):
        return "running statistics" if "running" in name else "weights"
    return "loss and scores" if name == "loss" or name.startswith("validation") else ""


def differences(found: Arrays, alone: Arrays, case: str) -> dict[str, float]:
    """Return the relative difference of each kind of array that the case has."""
    groups: dict[tuple[str, int], list[str]] = {}
    names = [name.partition("/")[2] for name in alone if name.startswith(f"{case}/")]
    gradients = sum(name.startswith("gradient ") for name in names)
    for name in names:
        step = int(name.split()[1]) * STEPS // gradients if kind_of(name) == "gradients" else 0
        groups.setdefault((kind_of(name), step), []).append(f"{case}/{name}")
    largest: dict[str, float] = {}
    for (kind, _), group in groups.items():
        if kind:
            x, y = (np.concatenate([arrays[name].ravel() for name in group]) for arrays in (found, alone))
            apart = float(np.linalg.norm(x - y) / np.linalg.norm(y))
            largest[kind] = max(largest.get(kind, 0.0), apart)
    return largest


def main() -> None:
    alone = shared_batches.all_cases(Processes())
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in COUNTS:
            file = Path(folder) / f"{count}.npz"
            run_processes(count, Path(shared_batches.__file__), file)
            found[count] = dict(np.load(file))
    rows = []
    for norm in NORMS:
        for count in COUNTS:
            apart = differences(found[count], alone, norm)
            cells = [f"{apart[kind]:.1e}" if kind in apart else "none" for kind in KINDS]
            rows.append((norm, str(count), *(cell.replace("0.0e+00", "0") for cell in cells)))
    print(table(("norm", "processes", *KINDS), rows))


if __name__ == "__main__":
    main()

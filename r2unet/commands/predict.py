"""`r2unet predict`: write a mask for every image, and a table of diagnoses."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from minidl.backend import resolve_device
from minidl.profiler import profiled
from r2unet.commands.messages import (
    DISCLAIMER,
    explain_memory_error,
    print_error,
    print_licence,
    warn_uncalibrated,
)
from r2unet.commands.options import (
    add_checkpoint,
    add_device,
    add_post_processing,
    add_processes,
    add_size,
)
from r2unet.commands.values import given_path
from r2unet.commands.workers import check_processes, load_network, new_predictor, results_of
from r2unet.data.classes import COLUMNS, malignant_classes
from r2unet.errors import InputError, visible
from r2unet.files import check_outputs, check_writable, write_rows

if TYPE_CHECKING:
    from r2unet.prediction.photographs import Predictor, Result

HELP = "write a mask and the probabilities of the diagnoses for every image"
DETAILS = (
    "Masks are PNG files, the probabilities are in diagnoses.csv, both in the format of the ISIC challenge. "
    f"An unreadable file does not stop the others: it is reported at the end, with exit code 2. {DISCLAIMER}"
)
TABLE = "diagnoses.csv"


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "paths", nargs="+", type=given_path, metavar="PATH", help="images of any size, or folders of images"
    )
    add_checkpoint(p)
    text = "folder for the masks (default %(default)s)"
    p.add_argument("--out", type=given_path, default=Path("predictions"), metavar="DIR", help=text)
    add_post_processing(p)
    p.add_argument(
        "--overlay",
        action="store_true",
        help="also draw the outline on each image, and its diagnosis with a heat map of what drove it",
    )
    add_size(p)
    add_device(p)
    add_processes(p)
    p.add_argument(
        "--profile",
        action="store_true",
        help="also print the time of each stage, and the time, memory and implementation of each operation "
        "of the network; slower, in one process",
    )


def run(options: argparse.Namespace) -> int:
    from r2unet.prediction.photographs import find_photographs, output_paths

    device = resolve_device(options.device)
    check_processes(options, device)
    loaded = _, settings, state = load_network(options)
    files = find_photographs(options.paths)
    check_writable("--out", options.out)
    outputs = [path for file in files for path in output_paths(file, options.out, options.overlay)]
    check_outputs("--out", [*outputs, options.out / TABLE], [*files, options.checkpoint])
    size = settings.size
    remedy = "lower it" + (", or use --device cpu" if device == "cuda" else "")
    print_licence(state)
    warn_uncalibrated(options.checkpoint, settings, state)
    with explain_memory_error(f"--size {size}", 1, size, device, remedy):
        predictor = new_predictor(options, device, loaded)
        with profiled() if options.profile else nullcontext() as operations:
            errors = _predict(predictor, files, options, device, COLUMNS[settings.classes])
    written, what = len(files) - len(errors), "diagnoses" if settings.task == "diagnosis" else "masks"
    out = visible(str(options.out))
    print(f"{written} of {len(files)} {what} are in {out}; not a diagnosis, not a medical device")
    if operations:
        print(f"\n{predictor.stages.table(len(files))}\n\n{operations.table(len(files))}")
    for error in errors:
        print_error(error)
    return 2 if errors else 0


def _predict(
    predictor: Predictor,
    files: Sequence[Path],
    options: argparse.Namespace,
    device: str,
    columns: Sequence[str],
) -> list[InputError]:
    """Predict all files, print each result, and write a table with these columns; return the errors."""
    classes, errors, rows = predictor.classes, [], []
    new_work = partial(new_predictor, options, device)
    try:
        with results_of(predictor, files, options, new_work) as results:
            for file, result in zip(files, results, strict=True):
                if isinstance(result, InputError):
                    errors.append(result)
                    continue
                if result.diagnosis is not None:  # first: whatever has been printed is in the table, too
                    rows.append([file.stem, *(f"{p:#.9g}" for p in result.diagnosis)])
                print(f"{visible(str(file))}: {summary(result, classes)}", flush=True)
    finally:  # also after Ctrl-C, for the images that are done
        if rows:
            write_rows(options.out / TABLE, [("image", *columns), *rows])
    return errors


def summary(result: Result, classes: tuple[str, ...]) -> str:
    """Return what was predicted for an image as text: "12.0% lesion; nevus 81%, malignant 12%"."""
    parts = [] if result.lesion is None else [f"{result.lesion:.1%} lesion"]
    if result.diagnosis is not None:
        best = int(result.diagnosis.argmax())
        malignant = result.diagnosis[malignant_classes(classes)].sum()
        parts.append(
            f"{classes[best].replace('_', ' ')} {result.diagnosis[best]:.0%}, malignant {malignant:.0%} "
            "(probabilities of a teaching model)"
        )
    return "; ".join(parts)

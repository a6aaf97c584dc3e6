"""User-facing output that several commands share: errors, progress, scores, the memory of a training step."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from minidl.connect import reports
from minidl.tensor import Tensor
from r2unet.data.classes import CLASSES, malignant_classes
from r2unet.errors import InputError, visible, visible_lines, warn
from r2unet.files import write_text
from r2unet.network.model import UShape
from r2unet.training.settings import Settings, new_model, new_objective

DISCLAIMER = "For learning and research; not a medical device."


def print_error(error: object, code: int = 2) -> int:
    """Print an error on stderr in one line, even if a file name has a line break; return the exit code."""
    if reports():  # one of several processes does
        with suppress(OSError):  # the terminal may be closed
            print("r2unet: error:", visible(" ".join(str(error).splitlines())), file=sys.stderr)
    return code


def describe_tf32(device: str) -> str:
    """Return the effect of --tf32 on the device, in one line."""
    if device == "cuda":
        return "with TF32: cuBLAS rounds float32 to 10 bits of mantissa in matrix products"
    return f"--tf32 has no effect here: {device} computes no product by cuBLAS"


def line_printer(progress_bar: bool) -> Callable[[str], None]:
    """Return a function that prints a line at once, above the progress bar if there is one."""
    if not progress_bar:
        return lambda line: print(visible(line), flush=True)
    from tqdm import tqdm

    return lambda line: tqdm.write(visible(line))


def print_scores(scores: dict[str, Any]) -> None:
    """Print the tables of scores to stdout, and warnings about baselines that score better to stderr."""
    from r2unet.diagnosis.evaluate import as_text
    from r2unet.diagnosis.evaluate import baseline_warnings as diagnosis_warnings
    from r2unet.scores.evaluate import as_table, baseline_warnings

    outline = {name: values for name, values in scores.items() if name != "diagnosis"}
    if outline:
        print(visible_lines(as_table(outline)), flush=True)
        for warning in baseline_warnings(outline):
            warn(warning)
    if scores.get("diagnosis"):
        print(visible_lines(as_text(scores["diagnosis"])), flush=True)
        for warning in diagnosis_warnings(scores["diagnosis"]):
            warn(warning)


def print_licence(state: dict[str, Any]) -> None:
    """Print the licence of a checkpoint's weights on stderr, if it stores one."""
    if licence := state.get("licence"):
        warn(f"licence of the weights: {licence}")


def warn_uncalibrated(checkpoint: Path, settings: Settings, state: dict[str, Any]) -> None:
    """Warn if a checkpoint has a diagnosis without the correction that the end of a training stores."""
    if settings.task != "outline" and "diagnosis" not in state:
        warn(
            f"warning: {checkpoint}: its probabilities are not calibrated, and the class weights of the "
            "training are still in them; use best.npz of a finished training, or add the calibration with "
            "r2unet export --calibrate"
        )


def warn_left_out(left_out: int, images: int, settings: Settings) -> None:
    """Warn of images that are used neither to learn the diagnosis nor to score it."""
    if left_out:
        warn(
            f"warning: {left_out} of {images} images have no diagnosis, or none of the network's classes "
            f"({', '.join(CLASSES[settings.classes])}); the diagnosis is neither learned nor scored on them"
        )


def warn_types_unknown(classes: tuple[str, ...], scored: tuple[str, ...]) -> None:
    """Say that a network's classes are not scored, because the labels say only benign or malignant."""
    if scored != classes:
        summed = ", ".join(classes[k] for k in malignant_classes(classes))
        warn(
            "the labels say only benign or malignant, so the types are unknown here and are not scored; the "
            f"probability of malignant is the sum over {summed}"
        )


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file. Raises InputError if it cannot be written."""
    write_text(path, json.dumps(content, indent=2))


def training_memory(settings: Settings) -> str:
    """Return one line with the memory that a training step takes on the CPU."""
    from r2unet.training.cost import describe_memory, estimate_memory, resident_bytes

    program, rng = resident_bytes(), np.random.default_rng(0)
    objective, classes = new_objective(settings), len(CLASSES[settings.classes])

    def loss(model: UShape, images: Tensor, masks: Tensor) -> Tensor:
        targets = Tensor(np.zeros((len(images.data), classes), np.float32))
        return objective(model.answer(images), masks, targets)

    memory = estimate_memory(lambda: new_model(settings, rng), loss, settings.multiple)
    return describe_memory(memory, settings.batch_size, settings.size, program)


@contextmanager
def explain_memory_error(option: str, images: int, size: int, device: str, remedy: str) -> Iterator[None]:
    """Convert a MemoryError, on the CPU or the GPU, into an InputError that names what needed the memory."""
    try:
        yield
    except MemoryError:
        where = " on the GPU" if device == "cuda" else ""
        batch = (
            f"a batch of {images} images of {size} x {size} pixels"
            if images > 1
            else f"{size} x {size} pixels"
        )
        raise InputError(f"{option}: not enough memory{where} for {batch}; {remedy}") from None


def memory_remedy(device: str) -> str:
    """Return the remedy for a MemoryError where the checkpoint determines the image size and the network."""
    return "use --device cpu" if device == "cuda" else "close other programs, or give a smaller --size"

"""Scores of a folder of predicted masks, by the rules of the ISIC challenge's tool, isic-challenge-scoring.

    truth/ISIC_0000193_segmentation.png  +  predictions/ISIC_0000193_segmentation_prediction.png  ->  scores

The seven digits, anywhere in the file name, match a prediction to its true mask. In both masks, values above
128 are lesion. The masks are compared pixel by pixel at the image's original size. Each image is scored, and
the result is the mean over the images (`r2unet.scores.metrics` has the definitions).

The challenge rejects a submission in which an image is missing or occurs twice, and so does this module. It
also rejects a prediction without a true mask, which the challenge would ignore: two folders that do not
belong together should not produce a score.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from r2unet.data.images import SUFFIXES, read_mask
from r2unet.data.tables import isic_number
from r2unet.errors import InputError
from r2unet.files import open_input, visible_files
from r2unet.scores.metrics import METRICS, confusion, stack, summarize

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"  # the first bytes of every PNG file


class MaskPair(NamedTuple):
    """The true and the predicted mask of one image."""

    name: str  # ISIC_0000193
    truth: Path
    prediction: Path


def find_mask_pairs(truth: Path, predictions: Path) -> list[MaskPair]:
    """Match each true mask with the prediction whose name contains its seven digits.

    Raises InputError, naming the file, for a true mask without a number, for a missing, duplicate or
    unmatched prediction, and for a folder that cannot be read or contains no masks.
    """
    unmatched = [path for path in _masks(predictions) if not path.stem.lower().endswith("_overlay")]
    pairs: list[MaskPair] = []
    for path in _masks(truth):
        number = isic_number(path.stem)
        if number is None:
            raise InputError(f"{path}: the name does not contain ISIC_ and seven digits; rename or remove it")
        if duplicates := [pair.truth.name for pair in pairs if pair.name == f"ISIC_{number}"]:
            raise InputError(f"{path}: {duplicates[0]} is of the same image; remove one of the two")
        found = [prediction for prediction in unmatched if number in prediction.stem]
        if not found:
            raise InputError(f"{path}: no prediction in {predictions} has {number} in its name; add it")
        if len(found) > 1:
            raise InputError(f"{found[1]}: {found[0].name} is of the same image; remove one of the two")
        unmatched.remove(found[0])
        pairs.append(MaskPair(f"ISIC_{number}", path, found[0]))
    if unmatched:
        more = f" (and {len(unmatched) - 1} more)" if len(unmatched) > 1 else ""
        raise InputError(f"{unmatched[0]}{more}: no mask in {truth} is of this image; remove the prediction")
    return pairs


def score_folders(truth: Path, predictions: Path) -> dict[str, Any]:
    """Return the scores of `metrics.summarize`, and those of every image as "by_image" {name: scores}.

    Raises InputError, naming the file, if a mask has more than one channel, a prediction is not a PNG file,
    or the two masks of an image differ in size.
    """
    pairs = find_mask_pairs(truth, predictions)
    counts = stack([confusion(*_read(pair)) for pair in pairs])  # four arrays (images,)
    columns = {name: metric(counts) for name, metric in METRICS.items()}
    by_image = {
        pair.name: {name: float(values[i]) for name, values in columns.items()}
        for i, pair in enumerate(pairs)
    }
    return {**summarize(counts, np.random.default_rng(0)), "by_image": by_image}


def _masks(folder: Path) -> list[Path]:
    """Return the masks in a folder, sorted, without the other files of the challenge's archives."""
    files = [path for path in visible_files(folder) if path.suffix.lower() in SUFFIXES]
    masks = [path for path in files if not path.stem.lower().endswith("_superpixels")]
    if not masks:
        raise InputError(f"{folder}: contains no masks; give the folder that contains the .png files")
    return masks


def _read(pair: MaskPair) -> tuple[np.ndarray, np.ndarray]:
    """Read the predicted and the true mask, (H, W) uint8 each."""
    prediction, truth = read_mask(pair.prediction), read_mask(pair.truth)
    with open_input(pair.prediction) as file:
        if file.read(len(PNG_SIGNATURE)) != PNG_SIGNATURE:
            raise InputError(
                f"{pair.prediction}: is not a PNG file, which the challenge requires; save it as PNG"
            )
    if prediction.shape != truth.shape:
        (height, width), (true_height, true_width) = prediction.shape, truth.shape
        raise InputError(
            f"{pair.prediction}: is {width} x {height} pixels and {pair.truth.name} {true_width} x "
            f"{true_height}; predict at the image's original size"
        )
    return prediction, truth

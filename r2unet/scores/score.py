"""Scores of two folders of masks, by the rules of the ISIC challenge's tool, isic-challenge-scoring.

    truth/ISIC_0000193_segmentation.png  +  predictions/ISIC_0000193_segmentation_prediction.png  ->  scores

The seven digits match a prediction to its truth, wherever they stand in its name. Both masks are lesion
where they are above 128, and are compared pixel by pixel at the image's original size; each image is scored,
and the mean over the images is the score of the whole (`r2unet.scores.metrics` has the definitions).

The challenge refuses a submission that lacks an image or holds one twice, and so does this file. It also
refuses what the challenge would ignore, a prediction without a truth: two folders that do not belong together
should not give a number.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from r2unet.data.diagnoses import isic_number
from r2unet.data.images import SUFFIXES, read_mask
from r2unet.data.isic import visible_files
from r2unet.errors import InputError
from r2unet.scores.metrics import METRICS, confusion, stack, summarize

PNG = b"\x89PNG\r\n\x1a\n"  # the first bytes of every PNG


class MaskPair(NamedTuple):
    """The two masks of one image."""

    name: str  # ISIC_0000193
    truth: Path
    prediction: Path


def find_mask_pairs(truth: Path, predictions: Path) -> list[MaskPair]:
    """Match each true mask with the prediction whose name holds its seven digits.

    Raises InputError naming the file for a truth without a number, a missing, second or left-over
    prediction, and a folder that cannot be read or holds no mask.
    """
    left = [path for path in _masks(predictions) if not path.stem.lower().endswith("_overlay")]
    pairs: list[MaskPair] = []
    for path in _masks(truth):
        number = isic_number(path.stem)
        if number is None:
            raise InputError(f"{path}: its name has no ISIC_ and seven digits: rename or remove it")
        if twins := [pair.truth.name for pair in pairs if pair.name == f"ISIC_{number}"]:
            raise InputError(f"{path}: {twins[0]} is of the same image: remove one of the two")
        found = [prediction for prediction in left if number in prediction.stem]
        if not found:
            raise InputError(f"{path}: no prediction in {predictions} has {number} in its name: add one")
        if len(found) > 1:
            raise InputError(f"{found[1]}: {found[0].name} is of the same image: remove one of the two")
        left.remove(found[0])
        pairs.append(MaskPair(f"ISIC_{number}", path, found[0]))
    if left:
        more = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
        raise InputError(f"{left[0]}{more}: no mask in {truth} is of the same image: remove the prediction")
    return pairs


def score_folders(truth: Path, predictions: Path) -> dict[str, Any]:
    """Score all images of two folders as `metrics.summarize` does, and by each: "by_image" {name: scores}.

    Raises InputError naming the file where a mask is no single channel, a prediction no PNG, or the two
    masks of an image differ in size.
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
    """Return the masks in a folder, in order; what else the challenge's archives hold is passed over."""
    files = [path for path in visible_files(folder) if path.suffix.lower() in SUFFIXES]
    masks = [path for path in files if not path.stem.lower().endswith("_superpixels")]
    if not masks:
        raise InputError(f"{folder}: holds no masks; give the folder of the .png files themselves")
    return masks


def _read(pair: MaskPair) -> tuple[np.ndarray, np.ndarray]:
    """Read the prediction and the truth, (H, W) uint8 each."""
    with open(pair.prediction, "rb") as file:
        if file.read(len(PNG)) != PNG:
            raise InputError(f"{pair.prediction}: is no PNG, which the challenge asks for: save it as one")
    prediction, truth = read_mask(pair.prediction), read_mask(pair.truth)
    if prediction.shape != truth.shape:
        (height, width), (true_height, true_width) = prediction.shape, truth.shape
        raise InputError(
            f"{pair.prediction}: is {width} x {height} pixels and {pair.truth.name} {true_width} x "
            f"{true_height}: predict at the image's original size"
        )
    return prediction, truth

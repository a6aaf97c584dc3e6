"""From image files to predictions: finds the images, predicts each, and writes masks and pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from r2unet.data.images import SUFFIXES, read_image, write_image, write_mask
from r2unet.data.tables import isic_number
from r2unet.errors import InputError
from r2unet.files import NameTooLongError
from r2unet.network.model import UShape
from r2unet.prediction import clean_up as cleanup
from r2unet.prediction.diagnosis_picture import DiagnosedImage, plot_diagnosis
from r2unet.prediction.heat_map import heat_map
from r2unet.prediction.outline import overlay_image
from r2unet.prediction.predict import NO_CORRECTION, THRESHOLD, Correction, predict_lesion

MASK_SUFFIX = "_segmentation_prediction.png"
OVERLAY_SUFFIX = "_overlay.png"
DIAGNOSIS_SUFFIX = "_diagnosis.png"
NO_PHOTOGRAPH = ("_superpixels.png", "_segmentation.png", MASK_SUFFIX, OVERLAY_SUFFIX, DIAGNOSIS_SUFFIX)


def find_photographs(paths: Iterable[str | Path]) -> list[Path]:
    """Return the files among the paths and the images in the folders among them, in order, each once.

    Raises InputError for a path that does not exist, for a folder without images, and for two files with
    the same stem, because their masks would overwrite each other.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if _is_photograph(p))
            if not inside:
                raise _no_photographs(path)
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise InputError(f"{path}: no such file or folder; check the path")
    stems: dict[str, Path] = {}
    for path in dict.fromkeys(found):
        # Many file systems do not distinguish A.png from a.png.
        if (twin := stems.setdefault(path.stem.casefold(), path)) != path:
            raise InputError(f"{path}: has the same name as {twin}, and so would its mask; rename one")
    return list(stems.values())


def _is_photograph(path: Path) -> bool:
    """Return whether a file is an image to predict, neither hidden nor a mask or overlay."""
    name = path.name.lower()
    return name.endswith(SUFFIXES) and not name.endswith(NO_PHOTOGRAPH) and not name.startswith(".")


def _no_photographs(folder: Path) -> InputError:
    """Return the error about a folder without images to predict."""
    masks = [path.name for path in folder.iterdir() if path.name.lower().endswith(NO_PHOTOGRAPH)]
    if masks:
        return InputError(
            f"{folder}: contains only masks or drawings, such as {min(masks)}; give the folder of the images"
        )
    return InputError(f"{folder}: contains no images; supported formats are {', '.join(SUFFIXES)}")


def output_paths(file: Path, out: Path, overlay: bool) -> list[Path]:
    """Return the files that `predict_files` may write for an image."""
    endings = (MASK_SUFFIX, OVERLAY_SUFFIX, DIAGNOSIS_SUFFIX) if overlay else (MASK_SUFFIX,)
    return [out / f"{file.stem}{ending}" for ending in endings]


def read_photograph(file: Path) -> np.ndarray:
    """Read an image to predict: (H, W, 3) uint8. Raises InputError if it cannot be read."""
    # The EXIF orientation is ignored for images of the ISIC archive, because their masks ignore it, too.
    return read_image(file, exif=isic_number(file.stem) is None)


class Result(NamedTuple):
    """What was predicted for a file; None for what the network's task does not include."""

    lesion: float | None  # the share of the pixels that are lesion
    diagnosis: np.ndarray | None  # the probabilities of the classes (K,)


def predict_files(
    model: UShape,
    size: int,
    files: Iterable[Path],
    out: Path,
    device: str = "cpu",
    overlay: bool = False,
    tta: bool = False,
    clean_up: bool = False,
    correction: Correction = NO_CORRECTION,
    classes: Sequence[str] = (),
) -> Iterator[tuple[Path, Result | InputError]]:
    """Write the predictions for every file; yield each file with its `Result`.

    The mask is `STEM_segmentation_prediction.png` in the folder `out`, mode L, 0 or 255, in the size of its
    image, as the ISIC challenge requires. `overlay` also writes `STEM_overlay.png`, the image with the mask's
    outline, and for a network that predicts the probabilities of `classes` `STEM_diagnosis.png`. `tta` and
    `correction` are as in `predict`; `clean_up` keeps one lesion without holes. A file that cannot be read or
    predicted, or whose mask would have too long a name, is yielded with an InputError, and the remaining
    files are still predicted. Raises InputError if `out` cannot be written.
    """

    def write(file: Path, image: np.ndarray, mask: np.ndarray | None, diagnosis: np.ndarray | None) -> Result:
        if mask is not None:
            mask = cleanup.clean_up(mask) if clean_up else mask
            write_mask(out / f"{file.stem}{MASK_SUFFIX}", mask)
            if overlay:
                write_image(out / f"{file.stem}{OVERLAY_SUFFIX}", overlay_image(image, mask))
        if overlay and diagnosis is not None:
            explained = int(diagnosis.argmax())
            heat = heat_map(model, image, size, explained, device)
            drawn = DiagnosedImage(file.name, image, mask, heat, explained, diagnosis, tuple(classes))
            plot_diagnosis(drawn, out / f"{file.stem}{DIAGNOSIS_SUFFIX}")
        return Result(None if mask is None else float(mask.mean()), diagnosis)

    for file in files:
        try:
            image = read_photograph(file)
        except InputError as error:
            yield file, error
            continue
        try:
            answer = predict_lesion(model, image, size, device, tta, correction)
        except InputError as error:
            yield file, InputError(f"{file}: {error}")
            continue
        mask = None if answer.outline is None else (answer.outline > THRESHOLD).astype(np.uint8)
        answer = answer._replace(outline=None)  # it takes four times the memory of the mask
        try:
            result = write(file, image, mask, answer.diagnosis)
        except NameTooLongError as error:  # any other error in writing would stop the other files, too
            result = error
        yield file, result

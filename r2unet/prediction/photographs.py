"""From image files to predictions: finds the images, predicts each, and writes masks and pictures.

A photograph is decoded and shrunk once for all eight views of test-time augmentation. The heat map of a
diagnosis is computed from the features of the first view, so it needs no forward pass of its own. Pictures
are drawn on a copy of at most 1024 pixels a side: compressing a PNG of several megapixels would take longer
than everything else together.

The photograph is decoded in full, although decoding a JPEG at a fraction of its size (`r2unet.data.images`)
would be quicker: the network's input would differ by rounding, so a few pixels of a mask at the border of
the lesion would change, and with them the scores at the original size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from r2unet.data.images import (
    SUFFIXES,
    bounded_size,
    read_image,
    resize_image,
    resize_probability,
    write_image,
    write_mask,
)
from r2unet.data.tables import isic_number
from r2unet.errors import InputError
from r2unet.files import NameTooLongError
from r2unet.network.model import UShape
from r2unet.prediction import clean_up as cleanup
from r2unet.prediction.diagnosis_picture import DiagnosedImage, plot_diagnosis
from r2unet.prediction.heat_map import HeadInputs, as_heat, head_evidence, head_inputs
from r2unet.prediction.outline import overlay_image
from r2unet.prediction.predict import NO_CORRECTION, THRESHOLD, Correction, predict_lesion
from r2unet.prediction.stages import Stages

MASK_SUFFIX = "_segmentation_prediction.png"
OVERLAY_SUFFIX = "_overlay.png"
DIAGNOSIS_SUFFIX = "_diagnosis.png"
PICTURE_SIDE = 1024  # pixels, at most: as many as a screen has room for
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
        twin = stems.setdefault(path.stem.casefold(), path)
        if twin != path and not twin.samefile(path):
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
    """Return the files that a `Predictor` may write for an image."""
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


@dataclass(frozen=True)
class Predictor:
    """Predicts an image file and writes the mask and, with `overlay`, pictures into the folder `out`.

    `tta` and `correction` are as in `predict`; `clean_up` keeps one lesion without holes. `classes` are those
    of the network's diagnosis.
    """

    model: UShape
    size: int  # the network sees images of (size, size) pixels
    out: Path
    device: str = "cpu"
    overlay: bool = False
    tta: bool = False
    clean_up: bool = False
    correction: Correction = NO_CORRECTION
    classes: Sequence[str] = ()
    stages: Stages = field(default_factory=Stages)

    def __call__(self, file: Path) -> Result | InputError:
        """Predict a file and write the results; return an error that concerns this file alone.

        Raises InputError if `out` cannot be written.
        """
        try:
            with self.stages("read"):
                image = read_photograph(file)
        except InputError as error:
            return error
        heat_map_needed = self.overlay and self.model.task != "outline"
        try:
            with head_inputs(self.model) if heat_map_needed else nullcontext() as inputs:
                prediction = predict_lesion(
                    self.model, image, self.size, self.device, self.tta, self.correction, self.stages
                )
        except InputError as error:
            return InputError(f"{file}: {error}")
        mask = None
        if prediction.outline is not None:
            with self.stages("threshold and clean-up"):
                mask = (prediction.outline > THRESHOLD).astype(np.uint8)
                mask = cleanup.clean_up(mask) if self.clean_up else mask
            prediction = prediction._replace(outline=None)  # it takes four times the memory of the mask
        try:
            return self._write(file, image, mask, prediction.diagnosis, inputs)
        except NameTooLongError as error:  # any other error in writing would stop the other files, too
            return error

    def _write(
        self,
        file: Path,
        image: np.ndarray,
        mask: np.ndarray | None,
        diagnosis: np.ndarray | None,
        inputs: HeadInputs | None,
    ) -> Result:
        """Write the mask and the pictures; `inputs` are those of the diagnosis head, if it is drawn."""
        if mask is not None:
            with self.stages("write the mask"):
                write_mask(self.out / f"{file.stem}{MASK_SUFFIX}", mask)
        if self.overlay:
            self._draw(file, image, mask, diagnosis, inputs)
        return Result(None if mask is None else float(mask.mean()), diagnosis)

    def _draw(
        self,
        file: Path,
        image: np.ndarray,
        mask: np.ndarray | None,
        diagnosis: np.ndarray | None,
        inputs: HeadInputs | None,
    ) -> None:
        """Write the pictures, which share one smaller copy of the image and of the mask."""
        with self.stages("draw the outline"):
            size = bounded_size(image, PICTURE_SIDE)
            picture = resize_image(image, size)
            share = None if mask is None else resize_probability(mask, size)  # of each pixel
            drawn = None if share is None else overlay_image(picture, share)
        if drawn is not None:
            with self.stages("write the outline"):
                write_image(self.out / f"{file.stem}{OVERLAY_SUFFIX}", drawn)
        if diagnosis is not None:
            with self.stages("draw and write the diagnosis"):
                explained = int(diagnosis.argmax())
                features = [level.data for level in inputs.features]
                cells = head_evidence(self.model.diagnosis, features, inputs.outline, explained)
                heat = as_heat(cells, self.size / self.model.multiple, size)
                shown = None if share is None else (share > THRESHOLD).astype(np.uint8)
                diagnosed = DiagnosedImage(
                    file.name, picture, shown, heat, explained, diagnosis, tuple(self.classes)
                )
                plot_diagnosis(diagnosed, self.out / f"{file.stem}{DIAGNOSIS_SUFFIX}")


def predict_files(
    model: UShape, size: int, files: Iterable[Path], out: Path, **options: Any
) -> Iterator[tuple[Path, Result | InputError]]:
    """Write the predictions for every file; yield each file with its `Result`. Options are of `Predictor`.

    The mask is `STEM_segmentation_prediction.png` in the folder `out`, mode L, 0 or 255, in the size of its
    image, as the ISIC challenge requires. `overlay` also writes `STEM_overlay.png`, the image with the mask's
    outline, at most 1024 pixels a side, and for a network that predicts the probabilities of `classes`
    `STEM_diagnosis.png`. A file that cannot be read or predicted, or whose mask would have too long a name,
    is yielded with an InputError, and the remaining files are still predicted. Raises InputError if `out`
    cannot be written.
    """
    predictor = Predictor(model, size, out, **options)
    for file in files:
        yield file, predictor(file)

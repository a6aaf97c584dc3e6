"""An image with its mask and its diagnosis, and what finding them in any data set needs.

A folder of images and a folder of masks are read as dictionaries with the same keys, the seven digits of an
ISIC name or a plain name. `match` joins the two, and adds the labels of a table.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from r2unet.data.diagnoses import Label
from r2unet.data.images import SUFFIXES
from r2unet.data.tables import image_key, isic_number
from r2unet.errors import InputError
from r2unet.files import visible_files

SPLITS = ("training", "validation", "test", "all")


class Pair(NamedTuple):
    """The image file and the mask file of one lesion."""

    image: Path
    mask: Path | None  # None: the image has no mask, and only its diagnosis can be used
    name: str  # the image's stem
    diagnosis: str | None  # None where the data set does not include it
    lesion: str = ""  # the lesion's identity, where several images can show it


def match(
    images: dict[str, Path], masks: dict[str, Path], labels: dict[str, Label], masks_needed: bool = True
) -> list[Pair]:
    """Pair the images with their masks and labels.

    Raises InputError for a mask without an image and, with `masks_needed`, for an image without a mask.
    """
    if masks_needed:
        _refuse([images[key] for key in images if key not in masks], "this image has no mask; add its mask")
    _refuse([masks[key] for key in masks if key not in images], "this mask has no image; add its image")
    pairs = []
    for key, image in images.items():
        label = labels.get(image_key(image.name))
        diagnosis, lesion = (label.diagnosis, label.lesion) if label else (None, "")
        pairs.append(Pair(image, masks.get(key), image.stem, diagnosis, lesion))
    return pairs


def _refuse(files: list[Path], fault: str) -> None:
    """Raise InputError, naming the first of these files, if there is any."""
    if files:
        more = f" (and {len(files) - 1} more)" if len(files) > 1 else ""
        raise InputError(f"{files[0]}{more}: {fault} or remove it")


def check_labelled(pairs: Iterable[Pair], remedy: str) -> None:
    """Raise InputError, with the remedy, if an image has no diagnosis."""
    unlabelled = [pair.image for pair in pairs if pair.diagnosis is None]
    _refuse(unlabelled, f"this image has no diagnosis; {remedy}")


def check_rows(labels: dict[str, Label], images: Iterable[Path]) -> None:
    """Raise InputError if a row of the labels belongs to none of the images."""
    keys = {image_key(image.name) for image in images}
    alone = [label.where for key, label in labels.items() if key not in keys]
    if alone:
        more = f" (and {len(alone) - 1} more rows)" if len(alone) > 1 else ""
        raise InputError(
            f"{alone[0]}{more}: no image of this name was found; add the image or remove the row"
        )


def files_by_key(folder: Path, key: Callable[[str], str | None] = isic_number) -> dict[str, Path]:
    """Map the key of each image file in a folder, made from the file's stem, to its path.

    Raises InputError for a name without a key, two files of the same key, and a folder without images.
    """
    found: dict[str, Path] = {}
    for path in visible_files(folder):
        if path.suffix.lower() not in SUFFIXES or path.stem.lower().endswith("_superpixels"):
            continue
        name = key(path.stem)
        if name is None:
            raise InputError(f"{path}: the name does not contain ISIC_ and seven digits; rename or remove it")
        if name in found:
            raise InputError(f"{path}: is of the same lesion as {found[name].name}; remove one of the two")
        found[name] = path
    if not found:
        raise InputError(f"{folder}: contains no images; unpack the download into it")
    return found


def held_out(name: str, share: float, start: float = 0.0) -> bool:
    """Return whether a hash of the name, scaled to [0, 1), is from `start` to below `start` + `share`."""
    digest = hashlib.sha256(name.casefold().encode(errors="surrogateescape")).digest()
    return start <= int.from_bytes(digest[:8], "big") / 2**64 < start + share


def check_root(root: Path, names: Iterable[str], is_root: Callable[[Path], bool]) -> None:
    """Raise InputError if a root does not exist or is one level too deep or too high.

    `names` are the folders of the data set, and `is_root` tells whether a folder contains them.
    """
    if not os.path.isdir(root):
        found = "this is a file" if os.path.exists(root) else "there is no such folder"
        raise InputError(f"{root}: {found}; give the folder that contains the data set's folders")
    if is_root(root):
        return
    if root.resolve().name in names:
        parent = root.resolve().parent
        raise InputError(
            f"{root}: this is one folder of a data set; give the folder that contains it, {parent}"
        )
    for child in visible_files(root, folders=True):
        if is_root(child):
            raise InputError(f"{root}: the data set is one folder deeper; give {child}")

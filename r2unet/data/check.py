"""Checks whether image files and caches of decoded images are whole, without using them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from r2unet.data.images import SUFFIXES, read_image, read_mask
from r2unet.data.lesion_images import cache_shape
from r2unet.errors import InputError
from r2unet.files import visible_files

MASK_NAME = re.compile(r"_(segmentation|mask|segmentation_prediction)$", re.IGNORECASE)
CACHE_SUFFIX = ".npy"


class Finding(NamedTuple):
    """What a file is, and what is wrong with it: "" or an error that names the file, and how to mend it."""

    path: Path
    what: str
    error: str = ""


def check_image(path: Path) -> Finding:
    """Decode an image or, by its name, a mask."""
    read, what = (read_mask, "a mask") if MASK_NAME.search(path.stem) else (read_image, "an image")
    try:
        height, width = read(path).shape[:2]
    except InputError as error:
        return Finding(path, what, str(error))
    return Finding(path, f"{what} of {width} x {height} pixels")


def check_images(folder: Path) -> list[Finding]:
    """Decode all images and masks in a folder. Return their faults or, without one, one finding for all."""
    findings = [check_image(path) for path in visible_files(folder) if path.suffix.lower() in SUFFIXES]
    if faults := [finding for finding in findings if finding.error]:
        return faults
    masks = sum(finding.what.startswith("a mask") for finding in findings)
    return [Finding(folder, f"a folder of {len(findings) - masks} images and {masks} masks")]


def check_cache(path: Path) -> Finding:
    """Compare a cache of decoded images with its checksum."""
    try:
        images, size = cache_shape(path)[:2]
    except InputError as error:
        return Finding(path, "a cache of decoded images", str(error))
    return Finding(path, f"a cache of {images} decoded images of {size} x {size} pixels")

"""ISIC challenge folders: finds the image, the mask and the diagnosis of every lesion.

    root/
      ISIC-2017_Training_Data/ISIC_0000001.jpg                             the image
      ISIC-2017_Training_Part1_GroundTruth/ISIC_0000001_segmentation.png   its mask
      ISIC-2017_Training_Part3_GroundTruth.csv                             the diagnoses (see diagnoses.py)

The challenges of 2016, 2017 and 2018 name their folders differently, but all of them number their images
with seven digits. These digits alone match an image to its mask and its diagnosis. Data sets of different
years are never pooled, because they share images: a network could be tested on an image it was trained on.

Where there is no official validation folder, a fifth of the training images is held out. An image is held out
if a hash of its name, scaled to [0, 1), is below 0.2. The choice thus depends on neither a seed nor the order
of the images, and adding images never moves another image from one split to the other.
"""

import hashlib
import os
import re
from pathlib import Path
from typing import NamedTuple

from r2unet.data.diagnoses import isic_number, read_diagnoses
from r2unet.data.images import SUFFIXES
from r2unet.errors import InputError
from r2unet.files import visible_files

SPLITS = ("training", "validation", "test", "all")
HELD_OUT = 0.2
MASK_ENDING = re.compile(r"_(segmentation|mask)$", re.IGNORECASE)


class Pair(NamedTuple):
    """The image file and the mask file of one lesion."""

    image: Path
    mask: Path
    name: str  # the image's stem
    diagnosis: str | None  # None where the data set does not include it


class Layout(NamedTuple):
    """The folders of one split of one release, relative to the root."""

    release: str
    split: str
    images: str
    masks: str
    diagnoses: str | None


# Each release's name for a split, then the names of its image folder, mask folder and table of diagnoses.
RELEASES = {
    "ISIC 2016": (
        {"training": "Training", "test": "Test"},
        "ISBI2016_ISIC_Part1_{}_Data",
        "ISBI2016_ISIC_Part1_{}_GroundTruth",
        "ISBI2016_ISIC_Part3_{}_GroundTruth.csv",
    ),
    "ISIC 2017": (
        {"training": "Training", "validation": "Validation", "test": "Test_v2"},
        "ISIC-2017_{}_Data",
        "ISIC-2017_{}_Part1_GroundTruth",
        "ISIC-2017_{}_Part3_GroundTruth.csv",
    ),
    "ISIC 2018": (
        {"training": "Training", "validation": "Validation", "test": "Test"},
        "ISIC2018_Task1-2_{}_Input",
        "ISIC2018_Task1_{}_GroundTruth",
        "ISIC2018_Task3_{}_GroundTruth.csv",
    ),
}
LAYOUTS = tuple(
    Layout(release, split, *(name.format(word) for name in names))
    for release, (words, *names) in RELEASES.items()
    for split, word in words.items()
)
PLAIN = Layout("plain", "training", "images", "masks", None)


def find_pairs(root: str | Path, split: str = "training") -> list[Pair]:
    """Find the image, mask and diagnosis of each lesion of a split, sorted by name.

    `root` contains the folders of ISIC 2016, 2017 or 2018, or the plain folders `images/` and `masks/`.
    `split` is "training", "validation", "test" or "all". Raises InputError if folders are missing, or if
    images and masks do not match one to one.
    """
    if split not in SPLITS:
        raise InputError(f"split {split!r}: must be one of {', '.join(SPLITS)}")
    root = Path(root)
    layouts = {layout.split: layout for layout in _find_layouts(root)}
    if split == "all":
        pairs = [pair for layout in layouts.values() for pair in _match(root, layout)]
    elif split in layouts and (split != "training" or "validation" in layouts):
        pairs = _match(root, layouts[split])
    elif split != "test" and "training" in layouts:
        training = _match(root, layouts["training"])
        pairs = [pair for pair in training if _is_held_out(pair.name) == (split == "validation")]
    else:
        raise InputError(f"{root}: there is no {split} split, only {', '.join(layouts)}; add its folders")
    if not pairs:
        raise InputError(
            f"{root}: too few images to hold out a fifth, so {split} is empty; add images, or its folders"
        )
    return sorted(pairs, key=lambda pair: pair.name.casefold())


def _is_held_out(name: str) -> bool:
    digest = hashlib.sha256(name.casefold().encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < HELD_OUT


def _find_layouts(root: Path) -> list[Layout]:
    """Return the layouts in `root`. Raises InputError unless they are of exactly one release."""
    if not os.path.isdir(root):
        found = "this is a file" if os.path.exists(root) else "there is no such folder"
        raise InputError(f"{root}: {found}; give the folder that contains the data set's folders")
    layouts = _layouts_in(root)
    if not layouts:
        raise InputError(f"{root}: {_hint(root)}")
    releases = sorted({layout.release for layout in layouts})
    if len(releases) > 1:
        raise InputError(
            f"{root}: contains {' and '.join(releases)}, which share images and must not be pooled; "
            "put each into its own folder"
        )
    return layouts


def _layouts_in(root: Path) -> list[Layout]:
    def exists(layout: Layout) -> bool:
        # For a folder without read permission os.path.isdir returns False, where Path.is_dir raises.
        return os.path.isdir(root / layout.images) or os.path.isdir(root / layout.masks)

    return list(filter(exists, LAYOUTS)) or list(filter(exists, [PLAIN]))


def _hint(root: Path) -> str:
    """Return how to correct a root without a known layout: often it is one level too deep or too high."""
    known = {name for layout in (*LAYOUTS, PLAIN) for name in (layout.images, layout.masks)}
    if root.resolve().name in known:
        return f"this is one folder of a data set; give the folder that contains it, {root.resolve().parent}"
    for child in visible_files(root, folders=True):
        if _layouts_in(child):
            return f"the data set is one folder deeper; give {child}"
    return f"no data set found; {_expected()}"


def _expected() -> str:
    """List the known layouts for an error message."""
    folders = [names[0].format("Training") for _, *names in RELEASES.values()]
    return f"expected images/ and masks/, or an ISIC folder such as {', '.join(folders)}"


def _match(root: Path, layout: Layout) -> list[Pair]:
    """Pair the images and masks of one split, one to one."""
    images = _files_by_key(root / layout.images, layout)
    masks = _files_by_key(root / layout.masks, layout)
    for files, others, kind, other in ((images, masks, "image", "mask"), (masks, images, "mask", "image")):
        if alone := [files[key] for key in files if key not in others]:
            more = f" (and {len(alone) - 1} more)" if len(alone) > 1 else ""
            raise InputError(f"{alone[0]}{more}: this {kind} has no {other}; add its {other} or remove it")
    diagnoses = read_diagnoses(root / layout.diagnoses) if layout.diagnoses else {}
    return [Pair(image, masks[key], image.stem, diagnoses.get(key)) for key, image in images.items()]


def _files_by_key(folder: Path, layout: Layout) -> dict[str, Path]:
    """Map the key that matches an image to its mask, ISIC's seven digits or a plain name, to the file."""
    if not os.path.isdir(folder):
        raise InputError(f"{folder}: this folder of {layout.release} is missing; put it next to the others")
    found: dict[str, Path] = {}
    for path in visible_files(folder):
        if path.suffix.lower() not in SUFFIXES or path.stem.lower().endswith("_superpixels"):
            continue
        # A plain mask has the name of its image, with or without an ending.
        key = MASK_ENDING.sub("", path.stem).casefold() if layout is PLAIN else isic_number(path.stem)
        if key is None:
            raise InputError(f"{path}: the name does not contain ISIC_ and seven digits; rename or remove it")
        if key in found:
            raise InputError(f"{path}: is of the same lesion as {found[key].name}; remove one of the two")
        found[key] = path
    if not found:
        raise InputError(f"{folder}: contains no images; unpack the download into it ({_expected()})")
    return found

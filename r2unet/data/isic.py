"""ISIC challenge folders: finds the image, the mask and the diagnosis of every lesion.

    root/
      ISIC-2017_Training_Data/ISIC_0000001.jpg                             the image
      ISIC-2017_Training_Part1_GroundTruth/ISIC_0000001_segmentation.png   its mask
      ISIC-2017_Training_Part3_GroundTruth.csv                             the labels (see diagnoses.py)

The challenges of 2016, 2017 and 2018 name their folders differently, but all of them number their images
with seven digits. These digits alone match an image to its mask and its diagnosis. Data sets of different
years are never pooled, because they share images: a network could be tested on an image it was trained on.

Task 3 of 2018 has diagnoses and no masks. Its training images are HAM10000, which shows many lesions several
times; a further table says which images show the same lesion.

Plain folders `images/` and `masks/` may have a table `labels.csv` beside them, in any of the formats.

Where there is no official validation folder, a fifth of the training images is held out. An image is held out
if a hash of its lesion's identity or, where it is unknown, of its name, scaled to [0, 1), is below 0.2. The
choice thus depends on neither a seed nor the order of the images, and adding images never moves another image
from one split to the other.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from r2unet.data.diagnoses import Label, read_labels
from r2unet.data.pairs import (
    SPLITS,
    Pair,
    check_labelled,
    check_root,
    check_rows,
    files_by_key,
    held_out,
    match,
)
from r2unet.data.tables import find_table, image_key, isic_number, read_table
from r2unet.errors import InputError

HELD_OUT = 0.2
MASK_ENDING = re.compile(r"_(segmentation|mask)$", re.IGNORECASE)


class Layout(NamedTuple):
    """The folders and tables of one split of one release, relative to the root."""

    release: str
    split: str
    images: str
    masks: str | None
    labels: str
    patients: str | None = None  # age and sex
    lesions: str | None = None  # which images show the same lesion


# Each release's name for a split, then the rest of its Layout, with {} for that name.
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
        "ISIC-2017_{}_Data_metadata.csv",
    ),
    "ISIC 2018": (
        {"training": "Training", "validation": "Validation", "test": "Test"},
        "ISIC2018_Task1-2_{}_Input",
        "ISIC2018_Task1_{}_GroundTruth",
        "ISIC2018_Task3_{}_GroundTruth.csv",
    ),
    "ISIC 2018 task 3": (
        {"training": "Training", "validation": "Validation", "test": "Test"},
        "ISIC2018_Task3_{}_Input",
        None,
        "ISIC2018_Task3_{}_GroundTruth.csv",
        None,
        "ISIC2018_Task3_{}_LesionGroupings.csv",
    ),
}
LAYOUTS = tuple(
    Layout(release, split, *(name and name.format(word) for name in names))
    for release, (words, *names) in RELEASES.items()
    for split, word in words.items()
)
PLAIN = Layout("plain", "training", "images", "masks", "labels.csv")
FOLDERS = {name for layout in (*LAYOUTS, PLAIN) for name in (layout.images, layout.masks) if name}


def find_pairs(
    root: str | Path,
    split: str = "training",
    labels: dict[str, Label] | None = None,
    labelled: bool = False,
    masks_needed: bool = True,
) -> list[Pair]:
    """Find the image, mask and diagnosis of each lesion of a split, sorted by name.

    `root` contains the folders of ISIC 2016, 2017 or 2018, or the plain folders `images/` and `masks/`.
    `split` is "training", "validation", "test" or "all". `labels` replace the table beside the images. Raises
    InputError if folders are missing, or if images and masks do not match one to one. An image without a
    diagnosis, and a row of that table without an image, is an error only if `labelled`; an image without a
    mask only if `masks_needed`.
    """
    if split not in SPLITS:
        raise InputError(f"split {split!r}: must be one of {', '.join(SPLITS)}")
    root = Path(root)
    layouts = {layout.split: layout for layout in _find_layouts(root, masks_needed)}

    def pairs_of(layout: Layout) -> list[Pair]:
        return _pairs_of(root, layout, labels, labelled, masks_needed)

    if split == "all":
        pairs = [pair for layout in layouts.values() for pair in pairs_of(layout)]
    elif split in layouts and (split != "training" or "validation" in layouts):
        pairs = pairs_of(layouts[split])
    elif split != "test" and "training" in layouts:
        training = pairs_of(layouts["training"])
        _check_lesions(root, layouts["training"], training)
        pairs = [
            pair
            for pair in training
            if held_out(pair.lesion or pair.name, HELD_OUT) == (split == "validation")
        ]
    else:
        raise InputError(f"{root}: there is no {split} split, only {', '.join(layouts)}; add its folders")
    if not pairs:
        raise InputError(
            f"{root}: too few images to hold out a fifth, so {split} is empty; add images, or its folders"
        )
    return sorted(pairs, key=lambda pair: pair.name.casefold())


def patient_tables(root: Path) -> list[Path]:
    """Return the tables of age and sex, beside the folders or, as the archives unpack them, inside them."""
    layouts = [layout for layout in layouts_in(root) if layout.patients]
    found = [find_table(root, f"{layout.images}/{layout.patients}", layout.patients) for layout in layouts]
    return list(filter(None, found))


def layouts_in(root: Path) -> list[Layout]:
    """Return the layouts of the challenges in a folder or, if there are none, the plain one."""

    def exists(layout: Layout) -> bool:
        # For a folder without read permission os.path.isdir returns False, where Path.is_dir raises.
        return any(os.path.isdir(root / name) for name in (layout.images, layout.masks) if name)

    return list(filter(exists, LAYOUTS)) or list(filter(exists, [PLAIN]))


def expected() -> str:
    """List the known folders for an error message."""
    folders = [names[0].format("Training") for _, *names in RELEASES.values()]
    return f"expected images/ and masks/, or a folder such as {', '.join(folders)} or HAM10000_images"


def _find_layouts(root: Path, masks_needed: bool) -> list[Layout]:
    """Return the layouts in `root`. Raises InputError unless they are of exactly one release."""
    check_root(root, FOLDERS, lambda folder: bool(layouts_in(folder)))
    layouts = layouts_in(root)
    if not layouts:
        raise InputError(f"{root}: no data set found; {expected()}")
    if masks_needed:
        with_masks = [layout for layout in layouts if layout.masks]
        if not with_masks:
            raise InputError(
                f"{root}: {layouts[0].release} has no masks, so no outline can be learned from it; "
                "use --task diagnosis, or a data set with masks"
            )
        layouts = with_masks
    releases = sorted({layout.release for layout in layouts})
    if len(releases) > 1:
        raise InputError(
            f"{root}: contains {' and '.join(releases)}, which must not be pooled, because the challenges "
            "share images; put each into its own folder"
        )
    return layouts


def _pairs_of(
    root: Path, layout: Layout, labels: dict[str, Label] | None, labelled: bool, masks_needed: bool
) -> list[Pair]:
    """Return the pairs of one split."""
    key = _plain_key if layout is PLAIN else isic_number
    images = files_by_key(_existing(root / layout.images, layout), key)
    masks: dict[str, Path] = {}
    if layout.masks and (masks_needed or os.path.isdir(root / layout.masks)):
        masks = files_by_key(_existing(root / layout.masks, layout), key)
    if labels is None:
        table = find_table(root, layout.labels)
        labels = read_labels(table) if table else {}
    pairs = match(images, masks, labels, masks_needed)
    if labelled:
        if layout.release != "ISIC 2018":  # its table is that of task 3, which has other images
            check_rows(labels, images.values())
        check_labelled(pairs, f"add its row to {root / layout.labels}, give a table with --labels,")
    if layout.lesions and (table := find_table(root, layout.lesions)):
        rows = read_table(table)
        lesions = {key: row.cells.get("lesion_id", "") for key, row in rows.items()}
        pairs = [pair._replace(lesion=lesions.get(image_key(pair.name), "")) for pair in pairs]
    return pairs


def _check_lesions(root: Path, layout: Layout, pairs: list[Pair]) -> None:
    """Raise InputError if images must be held out by lesion and the lesion of one is unknown."""
    unknown = [pair.image for pair in pairs if not pair.lesion]
    if layout.lesions and unknown:
        raise InputError(
            f"{unknown[0]}: several images show the same lesion, and no row says which one this is, so none "
            f"can be held out; add {root / layout.lesions}, or the official validation folder"
        )


def _plain_key(stem: str) -> str:
    """Return a name without the ending of masks: a plain mask has the name of its image, with it or not."""
    return MASK_ENDING.sub("", stem).casefold()


def _existing(folder: Path, layout: Layout) -> Path:
    """Return a folder. Raises InputError if it does not exist."""
    if not os.path.isdir(folder):
        raise InputError(f"{folder}: this folder of {layout.release} is missing; put it next to the others")
    return folder

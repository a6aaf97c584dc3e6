"""Finds the images of a data set, or of several that are used together.

    find_pairs("ISIC2017", "training")              a data set of the ISIC challenges, or plain folders
    find_pairs("HAM10000:ISIC2017", "training")     two data sets, joined by ":" as in PATH (";" on Windows)

HAM10000 shares no image with ISIC 2016 or 2017. The ISIC challenges share images with each other, and
HAM10000 is the training set of ISIC 2018. So no image may be in two of the data sets that are joined, in
any split: a network could otherwise be tested on an image it was trained on.

The labels are those of the tables beside the images or, all of them, those of the tables in `labels`.
"""

from __future__ import annotations

import os
from pathlib import Path

from r2unet.data import ham10000, isic
from r2unet.data.diagnoses import Label, read_labels
from r2unet.data.pairs import Pair, check_labelled, check_rows
from r2unet.data.tables import image_key
from r2unet.errors import InputError


def find_pairs(
    data: str | Path,
    split: str = "training",
    labels: str | Path | None = None,
    labelled: bool = False,
    masks_needed: bool = True,
) -> list[Pair]:
    """Find the image, mask and diagnosis of each image of a split of all data sets in `data`.

    `labels` are tables of diagnoses that replace those beside the images. Raises InputError as
    `isic.find_pairs` and `ham10000.find_pairs` do, if an image is in two data sets, and if a row of `labels`
    belongs to no image. An image without a diagnosis, and a row beside the images that belongs to none of
    them, is an error only if `labelled`; an image without a mask only if `masks_needed`.
    """
    table = _read_tables(labels) if labels is not None else None
    roots = _named(data, "folder of images")
    if table is not None or len(roots) > 1:
        data_sets = [_find(root, "all", table, False, masks_needed) for root in roots]
        _check_distinct(data_sets)
        check_rows(table or {}, (pair.image for pairs in data_sets for pair in pairs))
    # The data set knows the name of the table beside its images, and names it if a label is missing there.
    beside = labelled and table is None
    pairs = [pair for root in roots for pair in _find(root, split, table, beside, masks_needed)]
    if labelled and table is not None:
        check_labelled(pairs, f"add its row to {labels}")
    return pairs


def paths(text: str | Path) -> list[Path]:
    """Return the paths that a text names: one, or several joined by the separator of PATH."""
    text = str(text)
    if os.path.exists(text):  # its name may contain the separator
        return [Path(text)]
    return [Path(part) for part in text.split(os.pathsep) if part]


def _named(text: str | Path, kind: str) -> list[Path]:
    """Return the paths that a text names. Raises InputError if it names none."""
    if not (named := paths(text)):
        raise InputError(f"{str(text)!r}: names no {kind}; give the path of one")
    return named


def _find(
    root: Path, split: str, labels: dict[str, Label] | None, labelled: bool, masks_needed: bool
) -> list[Pair]:
    """Find the pairs of one data set, of HAM10000 or of ISIC."""
    if not ham10000.is_root(root):
        if not isic.layouts_in(root):
            ham10000.check_not_inside(root)
        return isic.find_pairs(root, split, labels, labelled, masks_needed)
    others = [layout.release for layout in isic.layouts_in(root) if layout is not isic.PLAIN]
    if others:
        raise InputError(
            f"{root}: contains HAM10000 and {others[0]}; put each into its own folder, and join the two in "
            f"--data with {os.pathsep!r}"
        )
    return ham10000.find_pairs(root, split, labels, labelled, masks_needed)


def _read_tables(text: str | Path) -> dict[str, Label]:
    """Read tables of labels as one. Raises InputError if an image is in two of them."""
    labels: dict[str, Label] = {}
    for path in _named(text, "table of labels"):
        for key, label in read_labels(path).items():
            if key in labels:
                raise InputError(f"{label.where}: is also in {labels[key].where}; remove one of the two")
            labels[key] = label
    return labels


def _check_distinct(data_sets: list[list[Pair]]) -> None:
    """Raise InputError if two data sets contain the same image."""
    found: dict[str, Path] = {}
    for pairs in data_sets:
        images = {image_key(pair.image.name): pair.image for pair in pairs}
        if shared := sorted(images.keys() & found.keys()):
            raise InputError(
                f"{images[shared[0]]}: an image of this name is also in {found[shared[0]].parent}; join only "
                "data sets that share no image, and rename different images of the same name"
            )
        found |= images

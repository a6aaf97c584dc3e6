"""HAM10000: 10,015 dermoscopy images of 7,470 lesions of seven types (Tschandl et al. 2018).

    root/
      HAM10000_images/ISIC_0024307.jpg         or in HAM10000_images_part_1/ and HAM10000_images_part_2/
      HAM10000_segmentations_lesion_tschandl/ISIC_0024307_segmentation.png
      HAM10000_metadata.csv                    lesion_id, image_id, dx, dx_type, age, sex, localization

Harvard Dataverse names the table HAM10000_metadata or HAM10000_metadata.tab.

Several images can show the same lesion. If one of them were in the training set and another in the
validation set, a network could recognise the lesion instead of its type. The split is therefore one of
lesions: a lesion belongs to the validation set if a hash of its `lesion_id`, scaled to [0, 1), is below
0.15. The choice depends on neither a seed nor the other lesions.
"""

from __future__ import annotations

import os
from pathlib import Path

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
from r2unet.data.tables import find_table, image_key
from r2unet.errors import InputError

IMAGES = ("HAM10000_images", "HAM10000_images_part_1", "HAM10000_images_part_2")
MASKS = "HAM10000_segmentations_lesion_tschandl"
METADATA = ("HAM10000_metadata.csv", "HAM10000_metadata.tab", "HAM10000_metadata")
VALIDATION = 0.15  # of the lesions


def is_root(folder: Path) -> bool:
    """Return whether a folder has the layout of HAM10000."""
    return any(os.path.isdir(folder / name) for name in (*IMAGES, MASKS))


def check_not_inside(root: Path) -> None:
    """Raise InputError if a root is one level too deep or too high for HAM10000, or does not exist."""
    check_root(root, (*IMAGES, MASKS), is_root)


def find_pairs(
    root: Path,
    split: str = "training",
    labels: dict[str, Label] | None = None,
    labelled: bool = False,
    masks_needed: bool = True,
) -> list[Pair]:
    """Find the image, mask, diagnosis and lesion of each image of a split, sorted by name.

    `split` is "training", "validation" or "all". `labels` replace the diagnoses of the metadata. Raises
    InputError for an image of unknown lesion (unless the split is "all") and as `isic.find_pairs` does.
    """
    if split not in SPLITS:
        raise InputError(f"split {split!r}: must be one of {', '.join(SPLITS)}")
    if split == "test":
        raise InputError(f"{root}: HAM10000 has no test split; choose training, validation or all")
    table = find_table(root, *METADATA)
    metadata = read_labels(table) if table else {}
    images, masks = _images(root), _masks(root, masks_needed)
    pairs = match(images, masks, metadata if labels is None else labels, masks_needed)
    if labelled:
        check_rows(metadata, images.values())
        check_labelled(pairs, f"add its row to {root / METADATA[0]}, give a table with --labels,")
    # Those of the metadata are preferred to those of other labels, so that the split is always the same.
    lesions = {key: label.lesion for key, label in metadata.items()}
    pairs = [pair._replace(lesion=lesions.get(image_key(pair.name)) or pair.lesion) for pair in pairs]
    if split != "all":
        _check_lesions(root, pairs)
        pairs = [pair for pair in pairs if held_out(pair.lesion, VALIDATION) == (split == "validation")]
    if not pairs:
        raise InputError(f"{root}: no lesion falls into the {split} split; add images")
    return sorted(pairs, key=lambda pair: pair.name.casefold())


def _images(root: Path) -> dict[str, Path]:
    """Return the images of all folders. Raises InputError if two folders contain the same image."""
    images: dict[str, Path] = {}
    for folder in filter(os.path.isdir, (root / name for name in IMAGES)):
        for key, path in files_by_key(folder).items():
            if key in images:
                raise InputError(f"{path}: is the same image as {images[key]}; remove one of the two")
            images[key] = path
    if not images:
        raise InputError(f"{root / IMAGES[0]}: this folder of HAM10000 is missing; put it next to {MASKS}")
    return images


def _masks(root: Path, needed: bool) -> dict[str, Path]:
    """Return the masks. Raises InputError if they are needed and their folder is missing."""
    if os.path.isdir(root / MASKS):
        return files_by_key(root / MASKS)
    if needed:
        raise InputError(
            f"{root / MASKS}: this folder of HAM10000 is missing; unpack {MASKS}.zip from Harvard Dataverse "
            "there, or use --task diagnosis, which needs no masks"
        )
    return {}


def _check_lesions(root: Path, pairs: list[Pair]) -> None:
    """Raise InputError for an image of unknown lesion, which can be in neither of two splits of lesions."""
    if unknown := [pair.image for pair in pairs if not pair.lesion]:
        more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        raise InputError(
            f"{unknown[0]}{more}: {root / METADATA[0]} does not say which lesion this is, but "
            "the data set is split by lesion; download the table again"
        )

"""ISIC challenge folders -> pairs of files -> a data set of samples.

    root/                                     find_pairs               LesionImages
      ISIC-2017_Training_Data/*.jpg        ->  Pair(image, mask,    ->  Sample(image, mask,
      ISIC-2017_Training_Part1_GroundTruth/         name, diagnosis)          name, diagnosis)
      ISIC-2017_Training_Part3_GroundTruth.csv

The challenges of 2016, 2017 and 2018 name their folders differently and agree on one thing: the seven digits
of an image's number. They alone match an image to its mask and its diagnosis. Years are never pooled, because
the same photograph appears in several: a network tested on one could have been trained on the answer.

Where a root has no official validation folder, a fifth of the training images is held out. An image belongs
to that fifth if a hash of its name, read as a number between 0 and 1, is below 0.2. So the choice depends on
nothing else, neither a seed nor the order, and adding images never moves another across.

An epoch asks for every image again, and decoding is most of the cost of asking. So each file is decoded once
and shrunk, its original is dropped, and all epochs read the shrunken bytes, from memory or from one file.
"""

import hashlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np

from r2unet.data.diagnoses import isic_number, read_diagnoses
from r2unet.data.images import SUFFIXES, image_size, read_image, read_mask
from r2unet.data.sample import Sample
from r2unet.errors import InputError
from r2unet.files import output_file

SPLITS = ("training", "validation", "test", "all")
HELD_OUT = 0.2
CACHE_VERSION = 1  # raise it when the same files come to give other bytes
MASK_ENDING = re.compile(r"_(segmentation|mask)$", re.IGNORECASE)


class Pair(NamedTuple):
    """The files of one lesion, and what it was diagnosed as where the data set says so."""

    image: Path
    mask: Path
    name: str  # the image's stem
    diagnosis: str | None


class Layout(NamedTuple):
    """The folders of one split of one release, below the root."""

    release: str
    split: str
    images: str
    masks: str
    diagnoses: str | None


# The word each release uses for a split, then its folder of images, folder of masks and table of diagnoses.
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
    """Find the image, mask and diagnosis of each lesion below `root`, sorted by name.

    `root` is the folder that contains the folders of ISIC 2016, 2017 or 2018, or a plain `images/` with
    `masks/`; `split` is "training", "validation", "test" or "all". Raises InputError where the folders are
    not there, or where an image and a mask do not match one to one.
    """
    if split not in SPLITS:
        raise InputError(f"split {split!r} is unknown: choose one of {', '.join(SPLITS)}")
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
        raise InputError(
            f"{root}: there is no {split} split here, only {', '.join(layouts)}: add its folders"
        )
    if not pairs:
        raise InputError(
            f"{root}: too few images to hold out a fifth, {split} is empty: add images, or folders for it"
        )
    return sorted(pairs, key=lambda pair: pair.name.casefold())


def _is_held_out(name: str) -> bool:
    digest = hashlib.sha256(name.casefold().encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < HELD_OUT


def _find_layouts(root: Path) -> list[Layout]:
    """The splits that `root` holds, of one release; InputError, with a hint, where there are none."""
    if not os.path.isdir(root):
        found = "this is a file" if os.path.exists(root) else "there is no such folder"
        raise InputError(f"{root}: {found}: give the folder that contains the data set's folders")
    layouts = _layouts_in(root)
    if not layouts:
        raise InputError(f"{root}: {_hint(root)}")
    releases = sorted({layout.release for layout in layouts})
    if len(releases) > 1:
        raise InputError(
            f"{root}: holds {' and '.join(releases)}, which share photographs and must not be pooled: "
            "give each a folder of its own"
        )
    return layouts


def _layouts_in(root: Path) -> list[Layout]:
    def stands(layout: Layout) -> bool:
        # os.path.isdir is False for a folder we may not enter, where Path.is_dir raises.
        return os.path.isdir(root / layout.images) or os.path.isdir(root / layout.masks)

    return list(filter(stands, LAYOUTS)) or list(filter(stands, [PLAIN]))


def _hint(root: Path) -> str:
    """How to mend a root that holds no layout: most often it is one level too deep or too high."""
    known = {name for layout in (*LAYOUTS, PLAIN) for name in (layout.images, layout.masks)}
    if root.resolve().name in known:
        return f"this is one folder of a data set: give the folder that contains it, {root.resolve().parent}"
    for child in visible_files(root, folders=True):
        if _layouts_in(child):
            return f"the data set lies one folder deeper: give {child}"
    return f"no data set found: {_expected()}"


def _expected() -> str:
    """The layouts that are known, for a person who has another."""
    folders = [names[0].format("Training") for _, *names in RELEASES.values()]
    return f"expected images/ and masks/, or an ISIC folder such as {', '.join(folders)}"


def visible_files(folder: Path, folders: bool = False) -> list[Path]:
    """The visible files (or folders) in a folder, sorted: macOS leaves `._ISIC_...jpg` among the images."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as fault:
        raise InputError(f"{folder}: cannot be listed ({fault.strerror}): check the folder") from None
    return [entry for entry in entries if not entry.name.startswith(".") and os.path.isdir(entry) == folders]


def _match(root: Path, layout: Layout) -> list[Pair]:
    """Pair the images and masks of one split, one to one."""
    images = _by_key(root / layout.images, layout)
    masks = _by_key(root / layout.masks, layout)
    for ours, theirs, kind, other in ((images, masks, "image", "mask"), (masks, images, "mask", "image")):
        if alone := [ours[key] for key in ours if key not in theirs]:
            more = f" (and {len(alone) - 1} more)" if len(alone) > 1 else ""
            raise InputError(f"{alone[0]}{more}: this {kind} has no {other}: add its {other} or remove it")
    diagnoses = read_diagnoses(root / layout.diagnoses) if layout.diagnoses else {}
    return [Pair(image, masks[key], image.stem, diagnoses.get(key)) for key, image in images.items()]


def _by_key(folder: Path, layout: Layout) -> dict[str, Path]:
    """The image files of a folder by what matches them: ISIC's seven digits, or a plain name."""
    if not os.path.isdir(folder):
        raise InputError(f"{folder}: this folder of {layout.release} is missing: put it beside the others")
    found: dict[str, Path] = {}
    for path in visible_files(folder):
        if path.suffix.lower() not in SUFFIXES or path.stem.lower().endswith("_superpixels"):
            continue
        # A plain mask may be called as its image is, or carry an ending besides.
        key = MASK_ENDING.sub("", path.stem).casefold() if layout is PLAIN else isic_number(path.stem)
        if key is None:
            raise InputError(f"{path}: its name has no ISIC_ and seven digits: rename or remove it")
        if key in found:
            raise InputError(f"{path}: the same lesion as {found[key].name} beside it: remove one of the two")
        found[key] = path
    if not found:
        raise InputError(f"{folder}: no image in this folder: unpack the download into it ({_expected()})")
    return found


def read_pair(pair: Pair, size: int | None = None) -> Sample:
    """Read a pair of files as a sample of its original size, or with `size` stretched to (size, size).

    Raises InputError for a file that cannot be used, and for a mask that has not its image's size.
    """
    height, width = image_size(pair.image)
    mask_height, mask_width = image_size(pair.mask)
    if (mask_height, mask_width) != (height, width):
        raise InputError(
            f"{pair.mask}: the mask is {mask_width} x {mask_height} pixels and its image {pair.image} is "
            f"{width} x {height}: a mask has its image's size"
        )
    return Sample(read_image(pair.image, size), read_mask(pair.mask, size), pair.name, pair.diagnosis)


class LesionImages:
    """A data set of samples from pairs of files, each decoded once, stretched to (size, size), kept as bytes.

    `threads` decode side by side (Pillow lets go of Python's lock). With `cache`, a folder, the bytes live in
    one file there, mapped into memory and found again by the next run; a change to any file's name, size or
    time of writing, or to `size`, makes a new one. `progress` draws a bar on stderr. Raises InputError for a
    file that cannot be used, and for a mask that has not its image's size.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        size: int,
        threads: int = 2,
        cache: str | Path | None = None,
        progress: bool = False,
    ) -> None:
        if not pairs or size < 1 or threads < 1:
            raise InputError(f"{len(pairs)} pairs, size {size}, threads {threads}: each must be at least 1")
        self.pairs = list(pairs)
        self.size = size
        shape = (len(pairs), size, size, 4)
        rows = _decode_all(self.pairs, size, threads, progress)  # lazy: a cache that stands decodes nothing
        if cache is None:
            self._pixels = np.empty(shape, dtype=np.uint8)  # (N, size, size, RGB and mask)
            for index, row in enumerate(rows):
                self._pixels[index] = row
            self._pixels.flags.writeable = False
        else:
            path = Path(cache) / f"isic-{size}-{_fingerprint(self.pairs, size)}.npy"
            if not os.path.exists(path):
                _write_cache(path, shape, rows)
            self._pixels = _map_cache(path)

    @property
    def names(self) -> list[str]:
        """The names of the images, in order."""
        return [pair.name for pair in self.pairs]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """Sample number `index`; its arrays are read-only views of the kept bytes."""
        pair, pixels = self.pairs[index], self._pixels[index]  # pixels (size, size, 4)
        return Sample(pixels[..., :3], pixels[..., 3], pair.name, pair.diagnosis)


def _decode(pair: Pair, size: int) -> np.ndarray:
    """One pair as (size, size, 4) uint8: red, green, blue and mask."""
    sample = read_pair(pair, size)
    return np.dstack([sample.image, sample.mask])  # (size, size, 3) and (size, size)


def _decode_all(pairs: list[Pair], size: int, threads: int, progress: bool) -> Iterator[np.ndarray]:
    """Decode the pairs in order, `threads` at a time."""
    pool = ThreadPoolExecutor(threads)
    try:
        decoded = pool.map(_decode, pairs, repeat(size))
        if progress:
            from tqdm import tqdm

            decoded = tqdm(decoded, "reading images", len(pairs), unit="image", file=sys.stderr)
        yield from decoded
    finally:
        # After a fault or Ctrl-C nobody wants to wait for the thousand images still in the queue.
        pool.shutdown(cancel_futures=True)


def _fingerprint(pairs: list[Pair], size: int) -> str:
    """A hash that changes whenever the cached bytes would."""
    digest = hashlib.sha256(f"{CACHE_VERSION} {size}".encode())
    for path in (path for pair in pairs for path in (pair.image, pair.mask)):
        try:
            status = path.stat()
        except OSError as fault:
            raise InputError(f"{path}: cannot be read ({fault.strerror}): check the path") from None
        digest.update(f"\n{path.name} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def _write_cache(path: Path, shape: tuple[int, ...], rows: Iterator[np.ndarray]) -> None:
    """Write the rows as one .npy file of this shape."""
    # Not through a memory map: on a full disk that kills the process, where a write raises an error.
    with output_file(path) as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for row in rows:
            file.write(row.tobytes())


def _map_cache(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r")
    except (OSError, ValueError) as fault:
        raise InputError(f"{path}: the cache cannot be read ({fault}): delete this file") from None

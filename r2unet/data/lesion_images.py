"""A data set of samples from image files: every file is decoded once and resized.

Every epoch needs every image again, and decoding an image file takes longer than all later processing. So
each file is decoded once, only the resized bytes are stored, and all epochs read these, either from memory or
from a cache file.
"""

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

import numpy as np

from r2unet.data.images import image_size, read_image, read_mask
from r2unet.data.pairs import Pair
from r2unet.data.sample import Sample
from r2unet.errors import InputError
from r2unet.files import output_file

CACHE_VERSION = 1  # increase it when the same files should give different bytes


def read_pair(pair: Pair, size: int | None = None) -> Sample:
    """Read a pair of files as a sample of its original size, or, with `size`, resized to (size, size).

    The mask of an image without one is 0 everywhere. Raises InputError for an unusable file, and for a mask
    whose size is not that of its image.
    """
    height, width = image_size(pair.image)
    mask_height, mask_width = image_size(pair.mask) if pair.mask else (height, width)
    if (mask_height, mask_width) != (height, width):
        raise InputError(
            f"{pair.mask}: the mask is {mask_width} x {mask_height} pixels and its image {pair.image} is "
            f"{width} x {height}; both must have the same size"
        )
    image = read_image(pair.image, size)  # (H, W, 3)
    mask = read_mask(pair.mask, size) if pair.mask else np.zeros(image.shape[:2], np.uint8)  # (H, W)
    return Sample(image, mask, pair.name, pair.diagnosis, pair.lesion)


class LesionImages:
    """A data set of samples from pairs of files, each decoded once, resized to (size, size), stored as bytes.

    `threads` files are decoded in parallel (Pillow releases Python's global interpreter lock). With `cache`,
    a folder, the bytes are stored in a file there, which is mapped into memory and reused by later runs. A
    new cache file is made when `size`, the order of the pairs, or the name, length or modification time of a
    file has changed. `progress` draws a progress bar on stderr. Raises InputError for an unusable file, and
    for a mask whose size is not that of its image.
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
        rows = _decode_all(self.pairs, size, threads, progress)  # lazy: decodes nothing if a cache exists
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
        """Return sample `index`; its arrays are read-only views of the stored bytes."""
        pair, pixels = self.pairs[index], self._pixels[index]  # pixels (size, size, 4)
        return Sample(pixels[..., :3], pixels[..., 3], pair.name, pair.diagnosis, pair.lesion)


def _decode(pair: Pair, size: int) -> np.ndarray:
    """Decode one pair to (size, size, 4) uint8: red, green, blue and mask."""
    sample = read_pair(pair, size)
    return np.dstack([sample.image, sample.mask])  # (size, size, 3) and (size, size)


def _decode_all(pairs: list[Pair], size: int, threads: int, progress: bool) -> Iterator[np.ndarray]:
    """Yield the decoded pairs in order, `threads` of them decoded at a time."""
    pool = ThreadPoolExecutor(threads)
    try:
        decoded = pool.map(_decode, pairs, repeat(size))
        if progress:
            from tqdm import tqdm

            decoded = tqdm(decoded, "reading images", len(pairs), unit="image", file=sys.stderr)
        yield from decoded
    finally:
        # After an error or Ctrl-C, the images still in the queue are not decoded.
        pool.shutdown(cancel_futures=True)


def _fingerprint(pairs: list[Pair], size: int) -> str:
    """Return a hash that changes whenever the cached bytes would."""
    digest = hashlib.sha256(f"{CACHE_VERSION} {size}".encode())
    for path in (path for pair in pairs for path in (pair.image, pair.mask) if path):
        try:
            status = path.stat()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from None
        digest.update(f"\n{path.name} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def _write_cache(path: Path, shape: tuple[int, ...], rows: Iterator[np.ndarray]) -> None:
    """Write the rows as a .npy file of this shape."""
    # Not through a memory map: on a full disk it would kill the process, whereas a write raises an error.
    with output_file(path) as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for row in rows:
            file.write(row.tobytes())


def _map_cache(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: the cache cannot be read ({error}); delete this file") from None

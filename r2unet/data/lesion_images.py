"""A data set of samples from image files: every file is decoded once and resized.

Every epoch needs every image again, and decoding an image file takes longer than all later processing. So
each file is decoded once, only the resized bytes are stored, and all epochs read these, either from memory or
from a cache file:

    header      of a .npy file, which gives the shape and the dtype
    pixels      (N, size, size, RGB and mask) uint8
    checksum    4 bytes, the CRC-32 of all bytes before: the mark of a finished and undamaged file

Other programs can read the file with `numpy.load`. The checksum is compared each time the file is opened,
which takes less than a tenth of a second for 2,000 images of 128 x 128 pixels. A file that does not match is
made again.
"""

import hashlib
import io
import math
import os
import sys
import tokenize
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain, repeat
from pathlib import Path

import numpy as np

from r2unet.data.images import image_size, read_image, read_mask
from r2unet.data.pairs import Pair
from r2unet.data.sample import Sample
from r2unet.data.shared_samples import map_file, share_rows
from r2unet.errors import InputError, warn
from r2unet.files import open_input, output_file

CACHE_VERSION = 2  # increase it when the same files should give different bytes
HEADER_ERRORS = (ValueError, SyntaxError, tokenize.TokenError)  # of NumPy, for a damaged header


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


class UnstoredImages:
    """A data set as `LesionImages`, for a single pass: each pair of files is decoded when it is asked for."""

    def __init__(self, pairs: Sequence[Pair], size: int) -> None:
        self.pairs, self.size = pairs, size

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        return read_pair(self.pairs[index], self.size)


class LesionImages:
    """A data set of samples from pairs of files, each decoded once, resized to (size, size), stored as bytes.

    `threads` files are decoded in parallel (Pillow releases Python's global interpreter lock). With `cache`,
    a folder, the bytes are stored in a file there, which is mapped into memory and reused by later runs. A
    new cache file is made when `size`, the order of the pairs, or the name, length or modification time of a
    file has changed. A damaged cache file is replaced, and stderr says so. Other processes can share the
    bytes (`r2unet.data.shared_samples`), also without a cache. `progress` draws a progress bar on stderr.
    Raises InputError for an unusable file, and for a mask whose size is not that of its image.
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
            self._pixels = share_rows(rows, shape)  # (N, size, size, RGB and mask)
        else:
            path = Path(cache) / f"isic-{size}-{_fingerprint(self.pairs, size)}.npy"
            if (fault := _fault(path, shape)) is not None:
                if fault:
                    warn(f"{path}: the cache {fault}; reading the images again")
                _write_cache(path, shape, rows)
            self._pixels = map_file(path, shape, offset=len(_header(shape)))

    @property
    def names(self) -> list[str]:
        """The names of the images, in order."""
        return [pair.name for pair in self.pairs]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """Return sample `index`; its arrays are read-only views of the stored bytes."""
        pair, pixels = self.pairs[index], self._pixels.array[index]  # pixels (size, size, 4)
        return Sample(pixels[..., :3], pixels[..., 3], pair.name, pair.diagnosis, pair.lesion)


def cache_shape(path: Path) -> tuple[int, ...]:
    """Return the shape of the pixels in a cache file that is whole.

    Raises InputError for a damaged file, and for a file that is not a cache.
    """
    shape = ()
    with suppress(OSError, *HEADER_ERRORS), open_input(path) as file:
        if np.lib.format.read_magic(file) == (1, 0):
            shape = np.lib.format.read_array_header_1_0(file)[0]
    if len(shape) != 4 or shape[1] != shape[2] or shape[3] != 4:
        fault = "has no header of decoded images"
    else:
        fault = _fault(path, shape)
    if fault is not None:
        raise InputError(f"{path}: the cache {fault}; a training that uses it makes it again, or delete it")
    return shape


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
        name = os.fsencode(path.name)  # it need not be UTF-8
        digest.update(b"\n%b %d %d" % (name, status.st_size, status.st_mtime_ns))
    return digest.hexdigest()[:16]


def _header(shape: tuple[int, ...]) -> bytes:
    """Return the header of a .npy file of bytes of this shape."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return header.getvalue()


def _write_cache(path: Path, shape: tuple[int, ...], rows: Iterator[np.ndarray]) -> None:
    """Write the rows as a cache file of this shape."""
    # Not through a memory map: on a full disk it would kill the process, whereas a write raises an error.
    checksum = 0
    with output_file(path) as file:
        for part in chain([_header(shape)], (row.tobytes() for row in rows)):
            file.write(part)
            checksum = zlib.crc32(part, checksum)
        file.write(checksum.to_bytes(4, "little"))


def _fault(path: Path, shape: tuple[int, ...]) -> str | None:
    """Return what is wrong with a cache file of this shape: "" if it does not exist, None if nothing is."""
    if not os.path.isfile(path):  # writing refuses anything else of this name
        return ""
    header = _header(shape)
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size != len(header) + math.prod(shape) + 4:
                return "has another length than its images need"
            if file.read(len(header)) != header:
                return "has a damaged header"
            checksum, left = zlib.crc32(header), math.prod(shape)
            while left and (part := file.read(min(left, 1 << 20))):
                checksum, left = zlib.crc32(part, checksum), left - len(part)
            expected = file.read(4)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if expected == checksum.to_bytes(4, "little") else "does not match its checksum"

"""Image files -> bytes and back: Pillow decodes, this file decides what is accepted and how it is resized.

A dermoscopy photograph has up to 6,700 x 4,500 pixels, 90 MB once decoded, and a network looks at 256 x 256.
Three choices follow:

* The whole frame is stretched to a square. Nothing is cropped, so no lesion is lost at the border, and a
  prediction stretched back covers the original pixel for pixel.
* Shrinking is antialiased: each new pixel is a weighted mean of all the old ones beneath it. Picking single
  pixels instead would turn hairs and pigment networks into noise. Pillow's BILINEAR is a triangle that widens
  with the shrinking factor; unlike LANCZOS it has no negative weights, so it never overshoots 0..255.
* A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size from its low frequencies alone (`draft`), for a
  fraction of the time and memory. We ask for at least twice the wanted size and leave the rest to the filter.

A mask is resized by the same filter, as 0/255, and thresholded again: a new pixel is lesion where most of the
area beneath it was. Every fault of a file becomes one `InputError` line that names the file and the remedy.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from r2unet.errors import InputError
from r2unet.files import output_file

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")

# "Lesion is above 128": the rule of the official scoring tool, isic-challenge-scoring.
MASK_THRESHOLD = 128

# Where Pillow starts to warn of a decompression bomb. The largest ISIC images have 30 million pixels.
MOST_PIXELS = 1024**3 // 4 // 3

# What Pillow's decoders let out on a damaged file, beside OSError.
DECODER_FAULTS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


def read_image(path: str | Path, size: int | None = None, exif: bool = False) -> np.ndarray:
    """Read an image as RGB bytes (H, W, 3) uint8; with `size`, its whole frame stretched to (size, size, 3).

    `exif` turns the picture the way its camera was held: right for a person's own photographs, wrong for
    ISIC, whose masks were drawn on the unturned pixels. Grey, palette, CMYK, transparent and 16-bit images
    become RGB. Raises InputError for a file that is missing, empty, damaged, too large or no image.
    """
    from PIL import Image, ImageOps

    with _opened(path) as image:
        box = None
        if size is not None:
            drafted = image.draft(None, (2 * size, 2 * size))
            # A drafted side is rounded up to whole pixels; the box is the exact frame within it.
            box = drafted[1] if drafted else None
        picture = _to_rgb(image)
        if size is not None:
            picture = picture.resize((size, size), Image.Resampling.BILINEAR, box=box)
        if exif:
            picture = ImageOps.exif_transpose(picture)
        return np.array(picture)  # (H, W, 3)


def image_size(path: str | Path) -> tuple[int, int]:
    """The (height, width) in pixels of an image, read from its header.

    Raises InputError as `read_image` does, except for damage behind the header, which it does not look at.
    """
    with _opened(path) as image:
        width, height = image.size
        return height, width


def read_mask(path: str | Path, size: int | None = None) -> np.ndarray:
    """Read a mask as (H, W) uint8, 1 for lesion and 0 for skin; with `size`, stretched to (size, size).

    Lesion is where the file's grey is above 128, never "equal to the largest": that rule makes an empty mask
    all lesion. Raises InputError for a file that cannot be read, or that is not a plain 8-bit or 1-bit mask.
    """
    with _opened(path) as image:
        grey = np.array(_to_grey(image, path))  # (H, W)
    if grey.max() == 1:
        raise InputError(f"{path}: the mask holds 0 and 1, and lesion is above 128: multiply it by 255")
    mask = (grey > MASK_THRESHOLD).astype(np.uint8)
    return mask if size is None else resize_mask(mask, (size, size))


def write_mask(path: str | Path, mask: np.ndarray) -> None:
    """Write a mask (H, W) of 0 and 1 as an 8-bit grey PNG of 0 and 255, which ISIC's scoring tool reads.

    Raises InputError where the file cannot be written; what stood there before then still stands.
    """
    write_image(path, np.where(mask, 255, 0).astype(np.uint8))


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write RGB (H, W, 3) or grey (H, W) bytes as a PNG; raises InputError like write_mask."""
    from PIL import Image

    if Path(path).suffix.lower() != ".png":
        raise InputError(f"{path}: a picture is written as PNG, which loses nothing: end its name in .png")
    with output_file(path) as file:
        Image.fromarray(image).save(file, format="PNG")


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Stretch RGB bytes (H, W, 3) uint8 to `size` = (height, width), antialiased where that shrinks."""
    return _resize(image, size)


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Stretch a mask (H, W) of 0 and 1 to `size` = (height, width): again 0 and 1, by where most area was."""
    grey = _resize(np.where(mask, 255, 0).astype(np.uint8), size)
    return (grey > MASK_THRESHOLD).astype(np.uint8)


def resize_probability(probability: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Stretch a map of probabilities (H, W) to float32 of `size` = (height, width).

    Threshold after stretching, not before: the outline then runs between the network's pixels, without steps.
    """
    return _resize(np.asarray(probability, dtype=np.float32), size)


@contextmanager
def _opened(path: str | Path) -> Iterator["Image.Image"]:
    """Open an image and close it again; any fault met on the way, decoding included, is an InputError."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise InputError(_too_large(path))
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(_too_large(path)) from None
    except DECODER_FAULTS as fault:
        raise InputError(f"{path}: {_diagnose(path, fault)}") from None


def _too_large(path: str | Path) -> str:
    return f"{path}: more than {MOST_PIXELS // 10**6} million pixels: shrink the image before using it"


def _diagnose(path: str | Path, fault: Exception) -> str:
    """What is wrong with a file and how to mend it, from the fault that reading it raised."""
    from PIL import UnidentifiedImageError

    if isinstance(fault, OSError) and fault.errno is not None:
        return f"cannot be read ({fault.strerror}): check the path and its permissions"
    if isinstance(fault, UnidentifiedImageError):
        if os.path.getsize(path) == 0:
            return "the file is empty (0 bytes): download it again"
        return "this is no image that Pillow can read: give a JPEG or PNG"
    return f"the image is damaged or cut short ({fault}): download it again"


def _to_rgb(image: "Image.Image") -> "Image.Image":
    """Any of Pillow's modes to RGB."""
    from PIL import Image

    if image.mode.startswith("I"):
        # Pillow would clip 16 bits at 255, which leaves a white rectangle; the upper byte is the picture.
        image = Image.fromarray((np.array(image).clip(0, 65535) >> 8).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _to_grey(image: "Image.Image", path: str | Path) -> "Image.Image":
    """A mask's picture in mode L; InputError where its greys would have to be guessed."""
    if image.mode == "P":
        image.load()
        colours = np.array(image.getpalette("RGB")).reshape(-1, 3)  # (colours, RGB)
        if (colours == colours[:, :1]).all():
            return image.convert("L")
    if image.mode in ("L", "1"):
        return image.convert("L")
    raise InputError(
        f"{path}: a mask is one channel of 8 bits, 0 and 255, and this is mode {image.mode}: "
        "convert it to 8-bit grey"
    )


def _resize(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Stretch (H, W) or (H, W, 3) to `size` = (height, width) by Pillow's antialiased triangle."""
    from PIL import Image

    height, width = size
    return np.array(Image.fromarray(array).resize((width, height), Image.Resampling.BILINEAR))

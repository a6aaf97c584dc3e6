"""Reads, writes and resizes images and masks with Pillow.

A dermoscopy image has up to 6,700 x 4,500 pixels, 90 MB once decoded. A network's input has about
256 x 256. Images are therefore resized, by three rules:

* The whole frame is resized to a square. Nothing is cropped, so no lesion is lost at the border, and a
  prediction resized back covers the original pixel for pixel.
* Downsampling is antialiased: each new pixel is a weighted mean of all the old pixels that it covers. Picking
  single pixels would turn hairs and pigment networks into noise. Pillow's BILINEAR filter is a triangle that
  widens with the downsampling factor. Unlike LANCZOS, it has no negative weights, so it never overshoots
  0..255.
* A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size from its low frequencies alone (`draft`), in a fraction
  of the time and memory. It is decoded at twice the requested size or more, and the filter does the rest.

A mask is resized with the same filter, as 0 and 255, and thresholded again: a new pixel is lesion if most of
the area that it covers was. Every error in a file raises an `InputError` of one line with the file and the
remedy.

Files are not trusted. Only regular files in five formats are read: Pillow has decoders for forty others, and
one of them starts another program. The size in the header is limited before anything is decoded.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from r2unet.errors import InputError
from r2unet.figures import QUICK, THOROUGH
from r2unet.files import open_input, output_file

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")

# Lesion is above 128: the rule of the official scoring tool, isic-challenge-scoring.
MASK_THRESHOLD = 128

# The formats of these suffixes. The content of a file decides its format; the suffix is not used.
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")

# The limits of an image: the pixels above which Pillow warns of a decompression bomb, and the side that the
# header of a JPEG can express. The largest ISIC images have 30 million pixels.
MAX_PIXELS = 1024**3 // 4 // 3
MAX_SIDE = 65_535

# TIFF tags that say which value is white.
BITS_PER_SAMPLE, MAX_SAMPLE_VALUE = 258, 281


def read_image(path: str | Path, size: int | None = None, exif: bool = False) -> np.ndarray:
    """Read an image as RGB bytes (H, W, 3) uint8, or, with `size`, resized to (size, size, 3).

    `exif` applies the orientation that the camera stored: right for a user's own images, wrong for ISIC,
    whose masks were drawn on the pixels as stored. Grey, palette, CMYK, transparent and 16-bit images are
    converted to RGB. Raises InputError for a file that is missing, empty, damaged, too large or not an image,
    and for numbers whose white is unknown.
    """
    from PIL import Image, ImageOps

    with _opened(path) as image:
        box = None
        if size is not None:
            drafted = image.draft(None, (2 * size, 2 * size))
            # The sides of the draft are rounded up to whole pixels; the box is the exact frame inside.
            box = drafted[1] if drafted else None
        rgb = _to_rgb(image, path)
        if rgb is not image:
            image.close()  # its pixels are no longer needed, and a large image has many
        if size is not None:
            rgb = rgb.resize((size, size), Image.Resampling.BILINEAR, box=box)
        if exif:
            rgb = ImageOps.exif_transpose(rgb)
        return np.array(rgb)  # (H, W, 3)


def image_size(path: str | Path) -> tuple[int, int]:
    """Return the (height, width) of an image in pixels, from its header.

    Raises InputError as `read_image` does, but does not notice damage after the header.
    """
    with _opened(path, header_only=True) as image:
        width, height = image.size
        return height, width


def read_mask(path: str | Path, size: int | None = None) -> np.ndarray:
    """Read a mask as (H, W) uint8, 1 for lesion and 0 for skin, or, with `size`, resized to (size, size).

    Lesion is where the grey value is above 128. (By the rule "equal to the maximum", all of an empty mask
    would be lesion.) Raises InputError for a file that is unreadable or not an 8-bit or 1-bit grey mask.
    """
    with _opened(path) as image:
        grey = np.array(_to_grey(image, path))  # (H, W)
    if grey.max() == 1:
        raise InputError(f"{path}: the mask contains 0 and 1, but lesion is above 128; multiply it by 255")
    mask = (grey > MASK_THRESHOLD).astype(np.uint8)
    return mask if size is None else resize_mask(mask, (size, size))


def write_mask(path: str | Path, mask: np.ndarray) -> None:
    """Write a mask (H, W) of 0 and 1 as an 8-bit grey PNG of 0 and 255, which ISIC's scoring tool reads.

    Raises InputError if the file cannot be written; an existing file is then unchanged.
    """
    write_image(path, np.where(mask, np.uint8(255), np.uint8(0)), compression=THOROUGH)


def write_image(path: str | Path, image: np.ndarray, compression: int = QUICK) -> None:
    """Write RGB (H, W, 3) or grey (H, W) bytes as a PNG. Raises InputError as `write_mask` does."""
    from PIL import Image

    if Path(path).suffix.lower() != ".png":
        raise InputError(f"{path}: images are written as PNG, which is lossless; end the name in .png")
    with output_file(path) as file:
        Image.fromarray(image).save(file, format="PNG", compress_level=compression)


def bounded_size(image: np.ndarray, longest: int) -> tuple[int, int]:
    """Return (height, width) of an image (H, W, ...) shrunk to at most `longest` pixels a side.

    For pictures, because originals have up to 30 megapixels.
    """
    H, W = image.shape[:2]
    scale = min(1.0, longest / max(H, W))
    return max(1, round(H * scale)), max(1, round(W * scale))


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize RGB bytes (H, W, 3) uint8 to `size` = (height, width), antialiased."""
    return _resize(image, size)


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a mask (H, W) of 0 and 1 to `size` = (height, width): 1 where most of the area was 1."""
    grey = _resize(np.where(mask, np.uint8(255), np.uint8(0)), size)
    return (grey > MASK_THRESHOLD).astype(np.uint8)


def resize_probability(probability: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a probability map (H, W) to float32 of `size` = (height, width).

    Threshold after resizing, not before: the outline then runs between the network's pixels, without steps.
    """
    return _resize(np.asarray(probability, dtype=np.float32), size)


@contextmanager
def _opened(path: str | Path, header_only: bool = False) -> Iterator["Image.Image"]:
    """Open an image for a `with` block. Every error in it, decoding errors included, is an InputError."""
    from PIL import Image

    try:
        with open_input(path) as file, Image.open(file, formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
                raise InputError(_too_large(path))
            if image.format == "PNG" and not header_only:
                _verify_png(file)
            yield image
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(_too_large(path)) from None
    except Exception as error:  # a damaged file makes the decoders raise almost any type
        raise InputError(f"{path}: {_diagnose(path, error)}") from None


def _verify_png(file: BinaryIO) -> None:
    """Verify the checksums of a PNG, which Pillow's decoder ignores, and return to the file's position."""
    from PIL import Image

    position = file.tell()
    file.seek(0)
    with Image.open(file, formats=("PNG",)) as image:
        image.verify()
    file.seek(position)


def _too_large(path: str | Path) -> str:
    return (
        f"{path}: more than {MAX_PIXELS // 10**6} million pixels, or a side of more than {MAX_SIDE:,}; "
        "shrink the image before using it"
    )


def _diagnose(path: str | Path, error: Exception) -> str:
    """Return what is wrong with a file and how to correct it, given the exception that reading it raised."""
    from PIL import UnidentifiedImageError

    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read ({error.strerror}); check the path and its permissions"
    if isinstance(error, UnidentifiedImageError):
        if os.path.getsize(path) == 0:
            return "the file is empty (0 bytes); download it again"
        return f"not an image that Pillow can read as {', '.join(FORMATS)}; use a JPEG or PNG"
    if isinstance(error, MemoryError):
        return "not enough memory to decode the image; shrink it before using it"
    reason = " ".join(str(error).split())  # in one line
    return f"the image is damaged or truncated ({reason}); download it again"


def _to_rgb(image: "Image.Image", path: str | Path) -> "Image.Image":
    """Convert an image of any of Pillow's modes to RGB. Raises InputError if its white is unknown.

    Pillow reads 16 bits per channel as mode I;16 (or I) if the image is grey; otherwise it keeps the upper 8
    bits. Files with 12 bits in 16 often do not say so; their upper bits are almost black.
    """
    from PIL import Image

    remedy = "convert it to 8 bits per channel, where white is 255"
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        raise InputError(f"{path}: the values (mode {image.mode}) do not say which one is white; {remedy}")
    deep = image.format in ("PNG", "TIFF") and any(bits in str(image.tile[:1]) for bits in (";16", ";12"))
    if image.mode.startswith("I"):
        grey = Image.fromarray(_upper_bits(np.array(image), _white(image)))
        grey.info, image = image.info, grey  # the EXIF orientation is there
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    if deep and (brightest := max(high for _, high in rgb.getextrema())) < 16:
        raise InputError(
            f"{path}: its 16-bit values are almost black (at most {brightest} of 255 after conversion), and "
            f"probably have fewer bits; {remedy}"
        )
    return rgb


def _white(image: "Image.Image") -> int:
    """Return the value of white in a grey image of up to 16 bits: in a TIFF, what its tags say."""
    tags = getattr(image, "tag_v2", {})
    by_bits = 2 ** tags.get(BITS_PER_SAMPLE, (16,))[0] - 1
    return tags.get(MAX_SAMPLE_VALUE, (by_bits,))[0]


def _upper_bits(grey: np.ndarray, white: int) -> np.ndarray:
    """Scale values 0..white to 0..255, (H, W) uint8; for white = 2^n - 1 these are the upper 8 bits."""
    if not 0 < white <= 65_535:
        raise ValueError(f"white is {white}")
    grey = grey.clip(0, white).astype(np.uint32)
    grey *= 256  # in place, because a large image has many pixels
    grey //= white + 1
    return grey.astype(np.uint8)


def _to_grey(image: "Image.Image", path: str | Path) -> "Image.Image":
    """Convert a mask to mode L. Raises InputError for a mode whose grey values are ambiguous."""
    if image.mode == "P":
        image.load()
        colours = np.array(image.getpalette("RGB")).reshape(-1, 3)  # (colours, RGB)
        if (colours == colours[:, :1]).all():
            return image.convert("L")
    if image.mode in ("L", "1"):
        return image.convert("L")
    raise InputError(
        f"{path}: a mask is one channel of 8 bits, 0 and 255, but this is mode {image.mode}; "
        "convert it to 8-bit grey"
    )


def _resize(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (H, W) or (H, W, 3) to `size` = (height, width) with Pillow's antialiased triangle filter."""
    from PIL import Image

    height, width = size
    return np.array(Image.fromarray(array).resize((width, height), Image.Resampling.BILINEAR))

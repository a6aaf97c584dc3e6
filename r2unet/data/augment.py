"""Data augmentation on the CPU: random changes of a sample under which the correct mask is known.

`r2unet.data.changes` explains the changes and draws their random numbers. The functions here apply them with
NumPy and Pillow, one or two milliseconds for all of them at 128x128 pixels. So they are drawn anew in every
epoch and never stored. `r2unet.training.device_feed` applies the same changes on a GPU.
"""

import io

import numpy as np

from r2unet.data.changes import Affine, Changes, Colour, Flip, Window, draw_changes
from r2unet.data.sample import Sample

EDGE = 0.01  # width of the edge of a round window, in sides


def augment(sample: Sample, rng: np.random.Generator, strength: float = 1.0) -> Sample:
    """Apply every change, drawn anew from `rng`, as in training.

    Strength 0 returns the sample itself. Raises InputError for a strength outside [0, 2]. Returns contiguous
    uint8 arrays of the sample's shapes.
    """
    return sample if strength == 0 else with_changes(sample, draw_changes(rng, strength))


def with_changes(sample: Sample, changes: Changes) -> Sample:
    """Apply drawn changes to a sample."""
    sample = quarter_turn(flip(sample, changes.flip), changes.turns)
    sample = affine(sample, changes.affine)
    sample = tone_curve(colours(sample, changes.colour), changes.tone)
    sample = round_window(defocus(sample, changes.blur), changes.window)
    return compress(sample, changes.quality)


def flip(sample: Sample, flip: Flip) -> Sample:
    """Mirror image and mask, (H, W) -> (H, W)."""
    step_down, step_right = (-1 if mirrored else 1 for mirrored in flip)
    return _with_arrays(
        sample, sample.image[::step_down, ::step_right], sample.mask[::step_down, ::step_right]
    )


def quarter_turn(sample: Sample, turns: int) -> Sample:
    """Turn anticlockwise, (H, H) -> (H, H): samples are square."""
    return _with_arrays(sample, np.rot90(sample.image, turns), np.rot90(sample.mask, turns))


def affine(sample: Sample, affine: Affine) -> Sample:
    """Apply one affine map to image and mask, (H, W) -> (H, W).

    Interpolation is bilinear. The mask is interpolated as grey values and thresholded at one half, which
    moves its edge by less than a pixel. Nearest-neighbour interpolation would leave steps.
    """
    H, W = sample.mask.shape
    offset = affine.shift * (W, H)  # (x, y), in pixels
    image = _transformed(sample.image, affine.matrix, offset)  # (H, W, 3)
    mask = _transformed(sample.mask * np.uint8(255), affine.matrix, offset) >= 128  # (H, W)
    return _with_arrays(sample, image, mask.view(np.uint8))


def colours(sample: Sample, colour: Colour) -> Sample:
    """Change the colours, (H, W, 3) -> (H, W, 3); the mask is unchanged."""
    gains, c, saturate = colour
    pixels = sample.image.reshape(-1, 3).astype(np.float32)  # (H*W, 3)
    # A product with ones takes 1/15 of the time of mean(axis=0): NumPy reduces a long axis of stride 3
    # slowly.
    mean = np.ones(len(pixels), dtype=np.float32) @ pixels / len(pixels)  # (3,)
    offset = gains * ((1 - c) * (saturate @ mean))
    matrix = (gains[:, None] * (c * saturate)).astype(np.float32)
    pixels = pixels @ matrix.T  # (H*W, 3)
    pixels += (offset + 0.5).astype(np.float32)  # + 0.5, because the cast truncates
    np.clip(pixels, 0, 255, out=pixels)
    return _with_arrays(sample, pixels.astype(np.uint8).reshape(sample.image.shape), sample.mask)


def tone_curve(sample: Sample, tone: np.ndarray) -> Sample:
    """Replace every level of the image by tone[level], tone (256,); the mask is unchanged."""
    return _with_arrays(sample, tone[sample.image], sample.mask)


def defocus(sample: Sample, blur: float) -> Sample:
    """Blur the image; `blur` is the standard deviation as a fraction of its height. The mask is unchanged."""
    from PIL import Image, ImageFilter

    if not blur:
        return sample
    radius = blur * sample.image.shape[0]
    image = np.array(Image.fromarray(sample.image).filter(ImageFilter.GaussianBlur(radius)))
    return _with_arrays(sample, image, sample.mask)


def round_window(sample: Sample, window: Window | None) -> Sample:
    """Darken the image outside a window, if there is one; the mask ends at the window."""
    if window is None:
        return sample
    H, W = sample.mask.shape
    y, x = ((np.arange(n, dtype=np.float32) + 0.5) / n - 0.5 for n in (H, W))
    half_axes, centre, darkness = window
    y, x = (y - centre[0]) / half_axes[0], (x - centre[1]) / half_axes[1]
    inside = (1 - np.hypot(y[:, None], x[None, :])) * half_axes.mean()  # (H, W), in sides; 0 at the edge
    light = np.clip(inside / EDGE + 0.5, 0, 1).astype(np.float32)[..., None]  # (H, W, 1)
    image = light * sample.image + (1 - light) * darkness
    image += 0.5  # because the cast truncates
    return _with_arrays(sample, image.astype(np.uint8), sample.mask * (inside > 0).astype(np.uint8))


def compress(sample: Sample, quality: int | None) -> Sample:
    """Compress the image as JPEG, if a quality is given; the mask is unchanged."""
    from PIL import Image

    if quality is None:
        return sample
    file = io.BytesIO()
    Image.fromarray(sample.image).save(file, "JPEG", quality=quality)
    return _with_arrays(sample, np.array(Image.open(file)), sample.mask)


def _transformed(array: np.ndarray, matrix: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Take each pixel u of (H, W) or (H, W, 3) from offset + matrix u, both (x, y) relative to the centre."""
    from PIL import Image

    H, W = array.shape[:2]
    centre = np.array([W, H]) / 2
    reach = np.abs(matrix) @ centre + np.abs(offset)  # the source of the farthest corner
    x, y = np.ceil(np.maximum(reach - centre, 0)).astype(int) + 1
    padded = np.pad(array, ((y, y), (x, x), (0, 0))[: array.ndim], mode="symmetric")
    start = centre + (x, y) + offset - matrix @ centre  # the source of the new image's corner
    rows = (*matrix[0], start[0], *matrix[1], start[1])
    moved = Image.fromarray(padded).transform((W, H), Image.Transform.AFFINE, rows, Image.Resampling.BILINEAR)
    return np.array(moved)


def _with_arrays(sample: Sample, image: np.ndarray, mask: np.ndarray) -> Sample:
    """Replace the arrays of a sample by contiguous ones, because the loader copies rows."""
    return sample._replace(image=np.ascontiguousarray(image), mask=np.ascontiguousarray(mask))

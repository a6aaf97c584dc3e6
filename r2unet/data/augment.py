"""Data augmentation: random changes of a sample under which the correct mask is known.

Let g be a change of the scene that leaves a lesion the same lesion. Then its outline moves with it:
outline(g image) = g outline(image). The network does not know this symmetry, but learns it if it is
trained on (g image, g mask) with a new g every time. This multiplies the 2,000 images of a data set. Every
change below is a symmetry of dermoscopy:

- Flips and quarter turns. Skin has no preferred direction, and a camera can be held in any orientation. Let r
  be the quarter turn and f the mirror image. From r^4 = 1, f^2 = 1 and f r f = r^-1, every product of them
  reduces to one of the eight r^k or r^k f: the dihedral group of the square, all symmetries of a square. They
  only move pixels, so nothing is interpolated and nothing is lost. `flip` mirrors each axis with probability
  1/2, four outcomes, and `quarter_turn` has the four outcomes r^k. Each of the eight symmetries is the
  result of two of the sixteen combinations, so all eight are equally likely.
- An affine map. The camera is closer to the skin, off the centre, turned by any angle, or tilted. In
  coordinates relative to the centre of the image, the pixel u of the new image is taken from

      x = shift + A u,    A = 1/zoom * R(angle) * [1 shear; 0 1] * diag(sqrt(r), 1/sqrt(r)),

  where r is the stretch. The stretch also covers the distortion of 4:3 images that are resized to
  squares. Outside the image, its reflection continues both image and mask: skin continues as skin, and a
  lesion at the border as lesion. Real images are not black there.
- Colour. Lamps, filters, cameras and white balances differ between hospitals, but not the outline of a
  lesion. Brightness, contrast, saturation and a gain per channel are affine in the pixel x = (r, g, b),

      y = G (c (S x - S m) + S m),   S = s I + (1 - s) 1 w^T,   G = b diag(g_r, g_g, g_b),

  where m is the mean colour of the image and w are the luminance weights. The four changes together therefore
  cost one 3x3 product per pixel. The mask does not change.
- Tone and focus. Cameras have different tone curves, y = x^gamma, and not every image is sharp. Both
  change the contrast at the edge of a lesion, where the network has to decide.
- Window and compression. Some dermoscopes show a round window that is dark outside, and some archives
  compress strongly. The outline of what remains visible is the same. Only a part of the images has a window
  or is compressed, but the parameters are drawn for all, so that later random numbers do not depend on it.

Noise and drawn hairs are left out: downsampling to a few hundred pixels averages a sensor's noise away, and
the data sets contain enough hairs. All changes together take one or two milliseconds at 128x128 pixels, so
they are drawn anew in every epoch and never stored.
"""

import io

import numpy as np

from r2unet.data.sample import Sample
from r2unet.errors import InputError

LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601: red, green, blue
MAX_STRENGTH = 2.0  # above it, the zoom cuts off most lesions


def flip(sample: Sample, rng: np.random.Generator) -> Sample:
    """Mirror left-right with probability 1/2, and up-down with probability 1/2, (H, W) -> (H, W)."""
    step_down, step_right = (-1 if mirrored else 1 for mirrored in rng.integers(2, size=2))
    return _with_arrays(
        sample, sample.image[::step_down, ::step_right], sample.mask[::step_down, ::step_right]
    )


def quarter_turn(sample: Sample, rng: np.random.Generator) -> Sample:
    """Turn by 0, 90, 180 or 270 degrees, all equally likely, (H, H) -> (H, H): samples are square."""
    turns = int(rng.integers(4))
    return _with_arrays(sample, np.rot90(sample.image, turns), np.rot90(sample.mask, turns))


def random_affine(
    sample: Sample,
    rng: np.random.Generator,
    angle: float = 45.0,
    zoom: float = 1.4,
    shift: float = 0.1,
    shear: float = 0.1,
    stretch: float = 0.1,
) -> Sample:
    """Turn, zoom, shift, shear and stretch by one affine map, (H, W) -> (H, W).

    All parameters are drawn uniformly: the angle in degrees from [-angle, angle], the logarithm of the zoom
    from [0, log(zoom)], the shift along each axis as a fraction of the side from [-shift, shift], the shear
    from [-shear, shear], and the width/height of a square from [1 - stretch, 1 + stretch]. The zoom is never
    below 1, because zooming out would surround every lesion with a frame of reflections. Interpolation is
    bilinear. The mask is interpolated as grey values and thresholded at one half, which moves its edge by
    less than a pixel. Nearest-neighbour interpolation would leave steps.
    """
    H, W = sample.mask.shape
    radians = np.deg2rad(rng.uniform(-angle, angle))
    factor = zoom ** rng.uniform(0, 1)
    offset = rng.uniform(-shift, shift, size=2) * (W, H)  # (x, y), in pixels
    slant = rng.uniform(-shear, shear)
    ratio = np.sqrt(rng.uniform(1 - stretch, 1 + stretch))
    rotation = np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]])
    matrix = rotation @ [[1, slant], [0, 1]] @ np.diag([1 / ratio, ratio]) / factor  # A: (2, 2)
    image = _transformed(sample.image, matrix, offset)  # (H, W, 3)
    mask = _transformed(sample.mask * np.uint8(255), matrix, offset) >= 128  # (H, W)
    return _with_arrays(sample, image, mask.view(np.uint8))


def colour_jitter(
    sample: Sample,
    rng: np.random.Generator,
    brightness: float = 0.6,
    contrast: float = 0.4,
    saturation: float = 0.6,
    channel_gain: float = 0.16,
) -> Sample:
    """Change the colours as another dermoscope would, (H, W, 3) -> (H, W, 3); the mask is unchanged.

    For each parameter d, a factor is drawn from [1 / (1 + d), 1 + d] with a uniform logarithm, so that twice
    the light is as likely as half the light. For `channel_gain`, red, green and blue have separate factors,
    which changes the white balance. If all parameters are 0, the image is unchanged.
    """
    b, c, s = np.exp(rng.uniform(-1, 1, size=3) * np.log1p([brightness, contrast, saturation]))
    gains = b * np.exp(rng.uniform(-1, 1, size=3) * np.log1p(channel_gain))
    pixels = sample.image.reshape(-1, 3).astype(np.float32)  # (H*W, 3)
    # A product with ones takes 1/15 of the time of mean(axis=0): NumPy reduces a long axis of stride 3
    # slowly.
    mean = np.ones(len(pixels), dtype=np.float32) @ pixels / len(pixels)  # (3,)
    saturate = s * np.eye(3) + (1 - s) * np.outer(np.ones(3), LUMINANCE)  # S in the module's equation
    offset = gains * ((1 - c) * (saturate @ mean))
    matrix = (gains[:, None] * (c * saturate)).astype(np.float32)
    pixels = pixels @ matrix.T  # (H*W, 3)
    pixels += (offset + 0.5).astype(np.float32)  # + 0.5, because the cast truncates
    np.clip(pixels, 0, 255, out=pixels)
    return _with_arrays(sample, pixels.astype(np.uint8).reshape(sample.image.shape), sample.mask)


def gamma_curve(sample: Sample, rng: np.random.Generator, gamma: float = 1.2) -> Sample:
    """Apply a tone curve, y = 255 (x / 255)^g with g from [1/gamma, gamma]; the mask is unchanged."""
    exponent = np.exp(rng.uniform(-1, 1) * np.log(gamma))
    table = 255 * (np.arange(256) / 255) ** exponent + 0.5  # + 0.5, because the cast truncates
    return _with_arrays(sample, table.astype(np.uint8)[sample.image], sample.mask)


def defocus(sample: Sample, rng: np.random.Generator, blur: float = 0.006) -> Sample:
    """Blur the image with probability 1/2 as a lens out of focus would; the mask is unchanged.

    The standard deviation of the Gaussian, as a fraction of the height of the image, is uniform in [0, blur].
    By default, this is at most 0.8 pixels of 128.
    """
    from PIL import Image, ImageFilter

    blurred, fraction = rng.random() < 0.5, rng.uniform(0, blur)
    if not blurred:
        return sample
    radius = fraction * sample.image.shape[0]
    image = np.array(Image.fromarray(sample.image).filter(ImageFilter.GaussianBlur(radius)))
    return _with_arrays(sample, image, sample.mask)


def round_window(sample: Sample, rng: np.random.Generator, chance: float = 0.2) -> Sample:
    """Darken the image outside a round window with probability `chance`; the mask ends at the window.

    The window is an ellipse around a point near the centre. Its half axes are about 0.45 to 0.65 of the
    sides, so that the corners are nearly always outside, and its edge is a hundredth of the side wide.
    Outside, the image has one grey level, from 0 to 30.
    """
    windowed = rng.random() < chance
    half_axes = rng.uniform(0.45, 0.65) * rng.uniform(0.95, 1.05, size=2)  # along y and x, in sides
    centre = rng.normal(0, 0.02, size=2)  # relative to the centre of the image
    darkness = rng.uniform(0, 30)
    if not windowed:
        return sample
    H, W = sample.mask.shape
    y, x = ((np.arange(n, dtype=np.float32) + 0.5) / n - 0.5 for n in (H, W))
    y, x = (y - centre[0]) / half_axes[0], (x - centre[1]) / half_axes[1]
    inside = (1 - np.hypot(y[:, None], x[None, :])) * half_axes.mean()  # (H, W), in sides; 0 at the edge
    light = np.clip(inside / 0.01 + 0.5, 0, 1).astype(np.float32)[..., None]  # (H, W, 1)
    image = light * sample.image + (1 - light) * darkness
    image += 0.5  # because the cast truncates
    return _with_arrays(sample, image.astype(np.uint8), sample.mask * (inside > 0).astype(np.uint8))


def compress(sample: Sample, rng: np.random.Generator, chance: float = 0.3) -> Sample:
    """Compress the image as JPEG with probability `chance`; the mask is unchanged.

    The quality is a whole number from 15 (visible blocks of 8x8 pixels) to 90, on Pillow's scale.
    """
    from PIL import Image

    compressed, quality = rng.random() < chance, int(rng.integers(15, 91))
    if not compressed:
        return sample
    file = io.BytesIO()
    Image.fromarray(sample.image).save(file, "JPEG", quality=quality)
    return _with_arrays(sample, np.array(Image.open(file)), sample.mask)


def augment(sample: Sample, rng: np.random.Generator, strength: float = 1.0) -> Sample:
    """Apply every change of this module, drawn anew from `rng`, as in training.

    `strength` scales the range of each change, and the probability of a window and of compression. Flips and
    quarter turns are exact symmetries, so they are applied at any strength above 0. An angle of up to 45
    degrees in either direction and the quarter turns reach all angles, so above strength 1 the angle does not
    increase. Strength 0 returns the sample itself. Raises InputError outside [0, 2]. Returns contiguous uint8
    arrays of the sample's shapes.
    """
    if not 0 <= strength <= MAX_STRENGTH:
        raise InputError(f"augmentation strength {strength}: must be from 0 (none) to {MAX_STRENGTH:g}")
    if strength == 0:
        return sample
    sample = quarter_turn(flip(sample, rng), rng)
    sample = random_affine(
        sample,
        rng,
        angle=min(45.0 * strength, 45.0),
        zoom=1.4**strength,
        shift=0.1 * strength,
        shear=0.1 * strength,
        stretch=0.1 * strength,
    )
    sample = colour_jitter(
        sample,
        rng,
        brightness=0.6 * strength,
        contrast=0.4 * strength,
        saturation=0.6 * strength,
        channel_gain=0.16 * strength,
    )
    sample = gamma_curve(sample, rng, gamma=1.2**strength)
    sample = defocus(sample, rng, blur=0.006 * strength)
    sample = round_window(sample, rng, chance=min(0.2 * strength, 1.0))
    return compress(sample, rng, chance=min(0.3 * strength, 1.0))


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

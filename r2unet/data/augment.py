"""Random changes of a sample that leave the right answer known: what the network should not care about.

If g is a change of the world under which a lesion stays the same lesion, its outline moves along with
it: outline(g image) = g outline(image). The network does not know this. Showing it g image with g mask,
with a new g at every visit, teaches it, and the 2,000 images of a data set become as many as one likes.
Each change below is such a symmetry of dermoscopy, and nothing else is done:

- flips and turns. Skin has no up and no left: the camera is held as the hand happens to hold it.
  With r the quarter turn and f the mirror, r^4 = 1, f^2 = 1 and f r f = r^-1, so every product of them
  shortens to one of the eight r^k or r^k f: the dihedral group of the square, all the ways to lay a
  square on itself. They only move pixels, so nothing is interpolated and nothing lost. The two coins
  of `flip` give four of them and `quarter_turn` the four r^k; each of the eight is then hit by two of
  the sixteen outcomes, so all eight are equally likely.
- one affine map. The lens stands nearer, is centred by hand, turned by any angle and held a little aslant.
  Seen from the centre, the pixel u of the new image is taken from

      x = shift + A u,    A = 1/zoom * R(angle) * [1 shear; 0 1] * diag(sqrt(r), 1/sqrt(r)),

  with r the stretch, which also undoes the habit of resizing 4:3 photographs to squares. What lies beyond the
  image is its mirror image: skin goes on as skin, and a lesion that touches the border goes on as lesion, in
  image and mask alike. Black there would be the one thing that real skin never is.
- colour. Lamp, filter, camera and white balance differ between hospitals, and a lesion is the same under
  all of them. Brightness, contrast, saturation and a gain per channel are affine in the pixel x = (r, g, b),

      y = G (c (S x - S m) + S m),   S = s I + (1 - s) 1 w^T,   G = b diag(g_r, g_g, g_b),

  with m the image's mean colour and w the luminance weights, so the four together cost one 3x3 product
  a pixel. A lamp lights skin and lesion alike: colour never touches the mask.
- tone and focus. Cameras bend the grey scale differently, y = x^gamma, and not every photograph is sharp. The
  network meets both as changes of contrast at a lesion's edge, where its decision lies.

Noise and drawn hairs are left out: shrinking to some hundred pixels averages a sensor's noise away, and the
data sets hold hairs enough. The whole chain takes one or two milliseconds at 128x128 pixels, so it is done
anew at every visit and never stored.
"""

import numpy as np

from r2unet.data.sample import Sample
from r2unet.errors import InputError

LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, red green blue
STRONGEST = 2.0  # beyond this the zoom cuts most lesions away


def flip(sample: Sample, rng: np.random.Generator) -> Sample:
    """Mirror left-right with probability 1/2, and up-down with probability 1/2: (H, W) stays (H, W)."""
    step_down, step_right = (-1 if mirrored else 1 for mirrored in rng.integers(2, size=2))
    return _with_arrays(
        sample, sample.image[::step_down, ::step_right], sample.mask[::step_down, ::step_right]
    )


def quarter_turn(sample: Sample, rng: np.random.Generator) -> Sample:
    """Turn by 0, 90, 180 or 270 degrees, all equally likely; samples are square, so (H, H) stays (H, H)."""
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
    """Turn, zoom, shift, shear and stretch by one affine map: (H, W) stays (H, W).

    The angle, in degrees, lies in [-angle, angle]; the zoom in [1, zoom], its logarithm uniform: nearer
    only, because a step back would show skin that nobody photographed, and every second image would be a
    lesion in a frame of mirrors. The shift, as a share of the side, lies in [-shift, shift] along each axis;
    the shear in [-shear, shear]; width/height of what was square in [1 - stretch, 1 + stretch].
    Interpolation is bilinear. The mask is moved as greys and cut at one half, which moves its edge by less
    than a pixel; nearest-neighbour would leave stairs.
    """
    H, W = sample.mask.shape
    turn = np.deg2rad(rng.uniform(-angle, angle))
    factor = zoom ** rng.uniform(0, 1)
    offset = rng.uniform(-shift, shift, size=2) * (W, H)  # (x, y), in pixels
    slant = rng.uniform(-shear, shear)
    ratio = np.sqrt(rng.uniform(1 - stretch, 1 + stretch))
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
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
    """Change the colours as another dermoscope would: (H, W, 3) stays (H, W, 3), the mask is untouched.

    Each setting d draws its factor from [1 / (1 + d), 1 + d], its logarithm uniform, so that twice the light
    is as likely as half; `channel_gain` draws one for red, one for green and one for blue, which is a change
    of white balance. All 0 leaves the image as it is.
    """
    b, c, s = np.exp(rng.uniform(-1, 1, size=3) * np.log1p([brightness, contrast, saturation]))
    gains = b * np.exp(rng.uniform(-1, 1, size=3) * np.log1p(channel_gain))
    pixels = sample.image.reshape(-1, 3).astype(np.float32)  # (H*W, 3)
    # a product with ones is the mean 15 times faster: NumPy reduces a long axis of stride 3 slowly
    mean = np.ones(len(pixels), dtype=np.float32) @ pixels / len(pixels)  # (3,)
    saturate = s * np.eye(3) + (1 - s) * np.outer(np.ones(3), LUMINANCE)  # S of the module's equation
    offset = gains * ((1 - c) * (saturate @ mean))
    matrix = (gains[:, None] * (c * saturate)).astype(np.float32)
    pixels = pixels @ matrix.T  # (H*W, 3)
    pixels += (offset + 0.5).astype(np.float32)  # the half turns the cast's truncation into rounding
    np.clip(pixels, 0, 255, out=pixels)
    return _with_arrays(sample, pixels.astype(np.uint8).reshape(sample.image.shape), sample.mask)


def gamma_curve(sample: Sample, rng: np.random.Generator, gamma: float = 1.2) -> Sample:
    """Bend the grey scale, y = 255 (x / 255)^g with g in [1/gamma, gamma]; black and white stay, as does the
    mask.
    """
    exponent = np.exp(rng.uniform(-1, 1) * np.log(gamma))
    table = 255 * (np.arange(256) / 255) ** exponent + 0.5  # the half turns the cast into rounding
    return _with_arrays(sample, table.astype(np.uint8)[sample.image], sample.mask)


def defocus(sample: Sample, rng: np.random.Generator, blur: float = 0.006) -> Sample:
    """Blur every second image as a lens out of focus does: (H, W, 3) stays (H, W, 3), the mask is untouched.

    The Gaussian's standard deviation, as a share of the image's height, is uniform in [0, blur]: the default
    is at most 0.8 pixels of 128.
    """
    from PIL import Image, ImageFilter

    blurred, share = rng.random() < 0.5, rng.uniform(0, blur)
    if not blurred:
        return sample
    radius = share * sample.image.shape[0]
    image = np.array(Image.fromarray(sample.image).filter(ImageFilter.GaussianBlur(radius)))
    return _with_arrays(sample, image, sample.mask)


def augment(sample: Sample, rng: np.random.Generator, strength: float = 1.0) -> Sample:
    """Apply every change of this module, drawn anew from `rng`: the chain used in training.

    `strength` scales how far each change goes; flips and quarter turns are exact symmetries, so they are
    either on (any strength above 0) or off. Up to 45 degrees either way and the quarter turns make every
    angle, so from strength 1 on the angle grows no more. Strength 0 returns the sample itself. Raises
    InputError outside [0, 2]. The arrays returned are contiguous uint8 of the sample's shapes.
    """
    if not 0 <= strength <= STRONGEST:
        raise InputError(
            f"augmentation strength is {strength}; choose a number from 0 (off) to {STRONGEST:g}"
        )
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
    return defocus(sample, rng, blur=0.006 * strength)


def _transformed(array: np.ndarray, matrix: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Take each pixel u of (H, W) or (H, W, 3) from offset + matrix u, both (x, y) seen from the centre."""
    from PIL import Image

    H, W = array.shape[:2]
    centre = np.array([W, H]) / 2
    reach = np.abs(matrix) @ centre + np.abs(offset)  # the farthest that a corner is taken from
    x, y = np.ceil(np.maximum(reach - centre, 0)).astype(int) + 1
    padded = np.pad(array, ((y, y), (x, x), (0, 0))[: array.ndim], mode="symmetric")
    start = centre + (x, y) + offset - matrix @ centre  # where the new image's corner is taken from
    rows = (*matrix[0], start[0], *matrix[1], start[1])
    moved = Image.fromarray(padded).transform((W, H), Image.Transform.AFFINE, rows, Image.Resampling.BILINEAR)
    return np.array(moved)


def _with_arrays(sample: Sample, image: np.ndarray, mask: np.ndarray) -> Sample:
    """Put new arrays under the sample's name and diagnosis, contiguous because the loader copies rows."""
    return sample._replace(image=np.ascontiguousarray(image), mask=np.ascontiguousarray(mask))

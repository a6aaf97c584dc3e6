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
- crop and resize. The lens stands nearer or farther and is centred by hand. A crop that is not quite
  square also undoes the habit of resizing 4:3 photographs to squares, which stretches every lesion alike.
- colour. Lamp, filter, camera and white balance differ between hospitals, and a lesion is the same under
  all of them. Brightness, contrast, saturation and a gain per channel are affine in the pixel x = (r, g, b),

      y = G (c (S x - S m) + S m),   S = s I + (1 - s) 1 w^T,   G = b diag(g_r, g_g, g_b),

  with m the image's mean colour and w the luminance weights, so the four together cost one 3x3 product
  a pixel. A lamp lights skin and lesion alike: colour never touches the mask.

The whole chain takes one or two milliseconds at 128x128 pixels, so it is done anew at every visit and
never stored.
"""

import numpy as np

from r2unet.errors import InputError
from r2unet.sample import Sample

LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, red green blue
STRONGEST = 2.0  # beyond this the crops cut most lesions away


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


def random_crop_resize(
    sample: Sample,
    rng: np.random.Generator,
    scale: tuple[float, float] = (0.7, 1.0),
    stretch: float = 0.1,
) -> Sample:
    """Cut a random window and resize it back to (H, W), bilinearly.

    `scale` bounds the window's side as a share of the image's. `stretch` bounds how far the window is
    from square: width/height lies in [1 - stretch, 1 + stretch]. The window always lies inside the
    image, because a border would have to be invented. The mask is resized as greys and cut at one
    half, which moves its edge by less than a pixel; nearest-neighbour would leave stairs.
    """
    height, width = sample.mask.shape
    side = rng.uniform(*scale)
    ratio = np.sqrt(rng.uniform(1 - stretch, 1 + stretch))
    window_height, window_width = height * min(side / ratio, 1.0), width * min(side * ratio, 1.0)
    top, left = rng.uniform(0, height - window_height), rng.uniform(0, width - window_width)
    # sums of rounded numbers may pass the border by one unit in the last place, which Pillow refuses
    box = (left, top, min(left + window_width, width), min(top + window_height, height))
    image = _resized_window(sample.image, box)  # (H, W, 3)
    mask = _resized_window(sample.mask * np.uint8(255), box) >= 128  # (H, W)
    return _with_arrays(sample, image, mask.view(np.uint8))


def colour_jitter(
    sample: Sample,
    rng: np.random.Generator,
    brightness: float = 0.2,
    contrast: float = 0.2,
    saturation: float = 0.2,
    channel_gain: float = 0.08,
) -> Sample:
    """Change the colours as another dermoscope would: (H, W, 3) stays (H, W, 3), the mask is untouched.

    Each setting d draws its factor uniformly from [1 - d, 1 + d]; `channel_gain` draws one for red, one
    for green and one for blue, which is a change of white balance. All 0 leaves the image as it is.
    """
    b = rng.uniform(1 - brightness, 1 + brightness)
    c = rng.uniform(1 - contrast, 1 + contrast)
    s = rng.uniform(1 - saturation, 1 + saturation)
    gains = b * rng.uniform(1 - channel_gain, 1 + channel_gain, size=3)
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


def augment(sample: Sample, rng: np.random.Generator, strength: float = 1.0) -> Sample:
    """Apply every change of this module, drawn anew from `rng`: the chain used in training.

    `strength` scales how far crops and colours go; flips and turns are exact symmetries, so they are
    either on (any strength above 0) or off. Strength 0 returns the sample itself. Raises InputError
    outside [0, 2]. The arrays returned are contiguous uint8 of the sample's shapes.
    """
    if not 0 <= strength <= STRONGEST:
        raise InputError(
            f"augmentation strength is {strength}; choose a number from 0 (off) to {STRONGEST:g}"
        )
    if strength == 0:
        return sample
    sample = quarter_turn(flip(sample, rng), rng)
    sample = random_crop_resize(sample, rng, scale=(1 - 0.3 * strength, 1.0), stretch=0.1 * strength)
    return colour_jitter(
        sample,
        rng,
        brightness=0.2 * strength,
        contrast=0.2 * strength,
        saturation=0.2 * strength,
        channel_gain=0.08 * strength,
    )


def _resized_window(array: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """Resample box = (left, top, right, bottom), in pixels, to the array's own height and width."""
    from PIL import Image

    height, width = array.shape[:2]
    window = Image.fromarray(array).resize((width, height), Image.Resampling.BILINEAR, box=box)
    return np.array(window)


def _with_arrays(sample: Sample, image: np.ndarray, mask: np.ndarray) -> Sample:
    """Put new arrays under the sample's name and diagnosis, contiguous because the loader copies rows."""
    return sample._replace(image=np.ascontiguousarray(image), mask=np.ascontiguousarray(mask))

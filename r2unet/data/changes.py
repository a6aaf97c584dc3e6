"""The random numbers of an augmentation: which changes a sample undergoes, and how strongly.

Let g be a change of the scene that leaves a lesion the same lesion. Then its outline moves with it:
outline(g image) = g outline(image). The network does not know this symmetry, but learns it if it is
trained on (g image, g mask) with a new g every time. This multiplies the 2,000 images of a data set. Every
change below is a symmetry of dermoscopy:

- Flips and quarter turns. Skin has no preferred direction, and a camera can be held in any orientation. Let r
  be the quarter turn and f the mirror image. From r^4 = 1, f^2 = 1 and f r f = r^-1, every product of them
  reduces to one of the eight r^k or r^k f: the dihedral group of the square, all symmetries of a square. They
  only move pixels, so nothing is interpolated and nothing is lost. `draw_flip` mirrors each axis with
  probability 1/2, four outcomes, and `draw_turns` has the four outcomes r^k. Each of the eight symmetries is
  the result of two of the sixteen combinations, so all eight are equally likely.
- An affine map. The camera is closer to the skin, off the centre, turned by any angle, or tilted. In
  coordinates relative to the centre of the image, the pixel u of the new image is taken from

      x = shift + A u,    A = 1/zoom * R(angle) * [1 shear; 0 1] * diag(1/sqrt(r), sqrt(r)),

  where r is the stretch, the width/height that a square gets. It also covers the distortion of 4:3 images
  that are resized to squares. Outside the image, its reflection continues both image and mask: skin
  continues as skin, and a lesion at the border as lesion. Real images are not black there.
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
the data sets contain enough hairs.

The numbers are drawn here and applied elsewhere: on the CPU in `r2unet.data.augment`, on a GPU in
`r2unet.training.device_feed`. Both therefore make the same changes from the same generator.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from r2unet.errors import InputError

LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601: red, green, blue
MAX_STRENGTH = 2.0  # above it, the zoom cuts off most lesions


class Flip(NamedTuple):
    """Which axes are mirrored."""

    up_down: bool
    left_right: bool


class Affine(NamedTuple):
    """The affine map of the module's docstring: A (2, 2), and the shift (2,) along x and y in sides."""

    matrix: np.ndarray
    shift: np.ndarray


class Colour(NamedTuple):
    """The factors of the module's docstring: the diagonal of G (3,), c, and S (3, 3)."""

    gains: np.ndarray
    contrast: float
    saturate: np.ndarray


class Window(NamedTuple):
    """An ellipse, dark outside; along y and x, in sides, relative to the centre of the image."""

    half_axes: np.ndarray  # (2,)
    centre: np.ndarray  # (2,)
    darkness: float  # the grey level outside


class Changes(NamedTuple):
    """All changes of one sample, in the order in which they are applied."""

    flip: Flip
    turns: int  # quarter turns, anticlockwise
    affine: Affine
    colour: Colour
    tone: np.ndarray  # (256,) uint8: the new level of every level
    blur: float  # standard deviation of the Gaussian, as a fraction of the height; 0 for none
    window: Window | None
    quality: int | None  # of the JPEG compression, on Pillow's scale; None for none


def draw_flip(rng: np.random.Generator) -> Flip:
    """Mirror up-down with probability 1/2, and left-right with probability 1/2."""
    return Flip(*(bool(mirrored) for mirrored in rng.integers(2, size=2)))


def draw_turns(rng: np.random.Generator) -> int:
    """Turn by 0, 90, 180 or 270 degrees, all equally likely."""
    return int(rng.integers(4))


def draw_affine(
    rng: np.random.Generator,
    angle: float = 45.0,
    zoom: float = 1.4,
    shift: float = 0.1,
    shear: float = 0.1,
    stretch: float = 0.1,
) -> Affine:
    """Turn, zoom, shift, shear and stretch by one affine map.

    All parameters are drawn uniformly: the angle in degrees from [-angle, angle], the logarithm of the zoom
    from [0, log(zoom)], the shift along each axis as a fraction of the side from [-shift, shift], the shear
    from [-shear, shear], and the width/height of a square from [1 - stretch, 1 + stretch]. The zoom is never
    below 1, because zooming out would surround every lesion with a frame of reflections.
    """
    radians = np.deg2rad(rng.uniform(-angle, angle))
    factor = zoom ** rng.uniform(0, 1)
    offset = rng.uniform(-shift, shift, size=2)  # (x, y)
    slant = rng.uniform(-shear, shear)
    ratio = np.sqrt(rng.uniform(1 - stretch, 1 + stretch))
    rotation = np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]])
    return Affine(rotation @ [[1, slant], [0, 1]] @ np.diag([1 / ratio, ratio]) / factor, offset)


def draw_colour(
    rng: np.random.Generator,
    brightness: float = 0.6,
    contrast: float = 0.4,
    saturation: float = 0.6,
    channel_gain: float = 0.16,
) -> Colour:
    """Change the colours as another dermoscope would.

    For each parameter d, a factor is drawn from [1 / (1 + d), 1 + d] with a uniform logarithm, so that twice
    the light is as likely as half the light. For `channel_gain`, red, green and blue have separate factors,
    which changes the white balance. If all parameters are 0, the image is unchanged.
    """
    b, c, s = np.exp(rng.uniform(-1, 1, size=3) * np.log1p([brightness, contrast, saturation]))
    gains = b * np.exp(rng.uniform(-1, 1, size=3) * np.log1p(channel_gain))
    return Colour(gains, c, s * np.eye(3) + (1 - s) * np.outer(np.ones(3), LUMINANCE))


def draw_tone(rng: np.random.Generator, gamma: float = 1.2) -> np.ndarray:
    """Return a tone curve (256,), y = 255 (x / 255)^g with g from [1/gamma, gamma]."""
    exponent = np.exp(rng.uniform(-1, 1) * np.log(gamma))
    table = 255 * (np.arange(256) / 255) ** exponent + 0.5  # + 0.5, because the cast truncates
    return table.astype(np.uint8)


def draw_blur(rng: np.random.Generator, blur: float = 0.006) -> float:
    """Blur with probability 1/2 as a lens out of focus would.

    The standard deviation of the Gaussian, as a fraction of the height of the image, is uniform in [0, blur].
    By default, this is at most 0.8 pixels of 128.
    """
    blurred, fraction = rng.random() < 0.5, rng.uniform(0, blur)
    return fraction if blurred else 0.0


def draw_window(rng: np.random.Generator, chance: float = 0.2) -> Window | None:
    """Darken the image outside a round window with probability `chance`.

    The window is an ellipse around a point near the centre. Its half axes are about 0.45 to 0.65 of the
    sides, so that the corners are nearly always outside. Outside, the image has one grey level, from 0 to 30.
    """
    windowed = rng.random() < chance
    half_axes = rng.uniform(0.45, 0.65) * rng.uniform(0.95, 1.05, size=2)
    window = Window(half_axes, centre=rng.normal(0, 0.02, size=2), darkness=rng.uniform(0, 30))
    return window if windowed else None


def draw_quality(rng: np.random.Generator, chance: float = 0.3) -> int | None:
    """Compress as JPEG with probability `chance`, with a quality from 15 (visible blocks) to 90."""
    compressed, quality = rng.random() < chance, int(rng.integers(15, 91))
    return quality if compressed else None


def draw_changes(rng: np.random.Generator, strength: float = 1.0) -> Changes:
    """Draw every change of this module, as in training.

    `strength` scales the range of each change, and the probability of a window and of compression. Flips and
    quarter turns are exact symmetries, so their range does not depend on it. An angle of up to 45 degrees in
    either direction and the quarter turns reach all angles, so above strength 1 the angle does not increase.
    Raises InputError outside [0, 2].
    """
    if not 0 <= strength <= MAX_STRENGTH:
        raise InputError(f"augmentation strength {strength}: must be from 0 (none) to {MAX_STRENGTH:g}")
    s = strength
    return Changes(  # the arguments are drawn in this order
        draw_flip(rng),
        draw_turns(rng),
        draw_affine(rng, min(45.0 * s, 45.0), zoom=1.4**s, shift=0.1 * s, shear=0.1 * s, stretch=0.1 * s),
        draw_colour(rng, brightness=0.6 * s, contrast=0.4 * s, saturation=0.6 * s, channel_gain=0.16 * s),
        draw_tone(rng, gamma=1.2**s),
        draw_blur(rng, blur=0.006 * s),
        draw_window(rng, chance=min(0.2 * s, 1.0)),
        draw_quality(rng, chance=min(0.3 * s, 1.0)),
    )

"""Generated lesions: a data set with exact masks that needs no download, no licence and no disk space.

It replaces dermoscopy images in the tests, the examples and the first training run. A score on it shows that
the program learns, but nothing about real skin. An image is generated in these steps.

Outline. Pixels are points z = x + iy of the square [-1, 1]^2, with y pointing down. The origin is moved to
the centre of the lesion, the points are displaced by smooth noise, and the plane is squeezed along a random
axis (z + e conj(z), with |e| < 1, maps circles to ellipses). The border R is a random Fourier series in the
angle t, written as a polynomial in u = z/|z| = e^(it):

    log R(t) = Re sum_k c_k u^k,   c_k complex Gaussian of size ~ k^(-3/2)

(the amplitudes decrease with k, so the border is rough but not torn). The lesion is |z| < q R, where q is a
quantile of |z|/R: a lesion that covers a fraction a of the area is the fraction a of the pixels with the
smallest |z|/R. The area is thus exact for every shape, and no mask is empty.

Colour. Pigment absorbs light (Beer-Lambert law): through a density p of pigment, skin has the colour skin *
exp(-p A), where A is the absorption of the pigment per channel. Melanin absorbs blue most and looks brown.
Deep melanin scatters blue back and looks blue-grey. Blood absorbs green and blue and looks red. Lesions mix
the three by smooth noise. Because absorption is multiplicative, the same pigment is prominent on fair skin
and faint on dark skin, as in reality.

Edge. The density increases across the border as a sigmoid of the distance. The mask is where it exceeds one
half, so the mask is sharp although the image is not.

Nuisances. Hair, a ruler, gel bubbles, a coloured sticker, a dark vignette, oblique lighting and sensor noise.
Some of them are dark without being lesion, so that a threshold on brightness fails and the network has to
learn them.

Diagnosis. **The rule is invented and says nothing about real skin.** A lesion that covers at most 22 % of the
image is a nevus. A larger one is a melanoma if its pigment absorbs more than half of the light, otherwise a
seborrheic keratosis. About 70, 15 and 15 % of the lesions belong to these classes, similar to ISIC 2017. A
small network learns the rule in a minute. (It would need more images to learn which of the three pigments
prevails, because their hues are seen only relative to the skin's.) Augmentation enlarges lesions but keeps
their diagnoses, so the rule is less exact under a strong zoom.

Sizes are fractions of the square, and the sensor noise is drawn last. The same state of the random
generator thus gives the same scene at every resolution.
"""

import cmath
import math
from collections.abc import Collection, Iterator

import numpy as np

from r2unet.data.sample import Sample
from r2unet.errors import InputError

MIN_SIZE = 16  # pixels a side; below it, the border has no shape
AREA = (0.03, 0.55)  # fraction of the image that a lesion covers
NEVUS_AREA = 0.22  # fraction of the image up to which a lesion is a nevus
SUPERSAMPLING = 4  # lines are drawn this much larger and averaged, because hair is thinner than a pixel

# red, green, blue in [0, 1], from fair to dark, in the hues of dermoscopes
SKIN_TONES = np.array(
    [
        [0.95, 0.88, 0.80],
        [0.90, 0.73, 0.68],
        [0.86, 0.72, 0.56],
        [0.68, 0.58, 0.53],
        [0.60, 0.46, 0.36],
        [0.46, 0.33, 0.26],
        [0.38, 0.26, 0.20],
    ],
    dtype=np.float32,
)
# absorption of red, green, blue per unit of density: melanin, deep melanin, blood
PIGMENTS = np.array([[0.55, 0.95, 1.25], [1.10, 0.95, 0.70], [0.25, 0.90, 0.75]], dtype=np.float32)
STICKERS = np.array([[0.95, 0.60, 0.20], [0.15, 0.60, 0.90], [0.35, 0.65, 0.45]], dtype=np.float32)
HAIR = np.array([0.22, 0.15, 0.12], dtype=np.float32)
INK = np.array([0.10, 0.10, 0.10], dtype=np.float32)
GLARE = np.array([0.95, 0.95, 0.95], dtype=np.float32)

Stroke = tuple[np.ndarray, float]  # the complex points of a polyline, and its width in half image widths


class SyntheticLesions:
    """A data set of `count` generated samples of (size, size) pixels, with invented diagnoses.

    Sample i depends on (seed, i) alone, so a split or a larger data set has the same images. Each sample is
    generated at its first use and, if `stored`, kept in memory, read-only: 4 * size * size bytes. Raises
    InputError for a count below 1, a seed below 0 or a size below 16.
    """

    def __init__(self, count: int, size: int, seed: int, stored: bool = True):
        if count < 1:
            raise InputError(f"{count} generated lesions: must be at least 1")
        if seed < 0:
            raise InputError(f"seed {seed}: must be at least 0")
        _check_size(size)
        self.count, self.size, self.seed, self.stored = count, size, seed, stored
        self._samples: dict[int, Sample] = {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        """Return sample `index`: image (size, size, 3) and mask (size, size); IndexError outside the set."""
        if not 0 <= index < self.count:
            raise IndexError(f"sample {index} of a data set of {self.count}")
        if index in self._samples:
            return self._samples[index]
        image, mask, diagnosis = _generate(self.size, np.random.default_rng([self.seed, index]))
        image.setflags(write=False)
        mask.setflags(write=False)
        sample = Sample(image, mask, lesion_name(index), diagnosis)
        if self.stored:
            self._samples[index] = sample
        return sample

    def named(self, names: Collection[str]) -> Iterator[Sample]:
        """Yield the samples that have these names, in the order of the set; no other is generated."""
        return (self[index] for index in range(self.count) if lesion_name(index) in names)


def lesion_name(index: int) -> str:
    """Return the name of sample `index`."""
    return f"synthetic_{index:05d}"


def make_lesion(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Generate one lesion: image (size, size, 3) uint8 RGB and mask (size, size) uint8, 1 is lesion.

    Raises InputError for a size below 16 pixels.
    """
    image, mask, _ = _generate(size, rng)
    return image, mask


def _generate(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, str]:
    """Return the image and the mask of `make_lesion`, and the diagnosis.

    Arrays are changed in place and deleted early: a large image takes as much memory as its prediction.
    """
    _check_size(size)
    points = _pixel_centres(size)
    area = _log_uniform(rng, *AREA)
    centre = complex(*rng.uniform(-0.35, 0.35, size=2))
    distance = _distance_inside(points - centre, area, rng)
    scene = _skin(size, rng)  # (size, size, 3)
    light = _pigment(distance, rng)  # (size, size, 3)
    np.exp(np.negative(light, out=light), out=light)  # what the pigment does not absorb
    inside = distance > 0
    diagnosis = _diagnosis(area, float(light[inside].mean()))
    scene *= light
    del light, distance
    scene = _with_nuisances(scene, points, centre, area, rng)
    scene *= _lamp(points, rng)
    del points
    scene += rng.uniform(0.005, 0.02) * rng.standard_normal(scene.shape, dtype=np.float32)
    scene *= 255
    scene += 0.5
    image = np.clip(scene, 0, 255, out=scene).astype(np.uint8)
    return image, inside.astype(np.uint8), diagnosis


def _diagnosis(area: float, light: float) -> str:
    """Return the diagnosis of a lesion from its area and the mean light that leaves it, both in [0, 1]."""
    if area <= NEVUS_AREA:
        return "nevus"
    return "melanoma" if light < 0.5 else "seborrheic_keratosis"


def _check_size(size: int) -> None:
    if size < MIN_SIZE:
        raise InputError(f"size {size}: must be at least {MIN_SIZE} pixels for generated lesions")


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a number whose logarithm is uniform, so that all orders of magnitude are equally common."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _pixel_centres(size: int) -> np.ndarray:
    """Return the centre x + iy of every pixel in [-1, 1]^2: (size, size) complex64."""
    x = ((2 * np.arange(size) + 1) / size - 1).astype(np.float32)
    return x[None, :] + 1j * x[:, None]


def _random_direction(rng: np.random.Generator) -> complex:
    return cmath.exp(1j * rng.uniform(0, 2 * math.pi))


def _smooth_noise(size: int, cells: int, rng: np.random.Generator) -> np.ndarray:
    """Return (size, size) float32 noise with a correlation length of 1/cells: a coarse grid, enlarged."""
    from PIL import Image

    grid = Image.fromarray(rng.standard_normal((cells, cells), dtype=np.float32))
    return np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC))


def _distance_inside(points: np.ndarray, area: float, rng: np.random.Generator) -> np.ndarray:
    """Return the distance to the border in half image widths, positive inside, (size, size).

    `points` are relative to the centre of the lesion. The distance is exactly 0 on the border and approximate
    elsewhere, which suffices for the soft edge.
    """
    size = len(points)
    radius = math.sqrt(4 * area / math.pi)  # of the disc with this area, as the square has area 4
    # The amplitude is below the wavelength of the noise. Otherwise the plane would fold and the lesion break
    # up.
    for cells, amplitude in ((6, rng.uniform(0.05, 0.15) * radius), (24, rng.uniform(0, 0.02))):
        points = points + amplitude * (_smooth_noise(size, cells, rng) + 1j * _smooth_noise(size, cells, rng))
    points = points + rng.uniform(0, 0.25) * _random_direction(rng) * points.conj()
    modulus = np.maximum(np.abs(points), 1e-6)  # the centre has no angle
    ratio = modulus * np.exp(-_log_border(points / modulus, rng))  # |z| / R, (size, size)
    return radius * (1 - ratio / float(np.quantile(ratio, area)))


def _log_border(direction: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return log R in every `direction` u, |u| = 1: a random Fourier series, summed by Horner's rule."""
    orders = np.arange(2, 13)  # order 0 is the size and order 1 the position, which are drawn elsewhere
    amplitudes = rng.uniform(0.05, 0.4) / orders**1.5
    coefficients = amplitudes * (rng.standard_normal(len(orders)) + 1j * rng.standard_normal(len(orders)))
    total = np.zeros_like(direction)
    for coefficient in reversed(coefficients.tolist()):
        total = total * direction + coefficient
    return (total * direction**2).real


def _sigmoid(x: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-x)) without overflow for large -x; the data do not import the engine's sigmoid."""
    return 0.5 * (1 + np.tanh(0.5 * x))


def _skin(size: int, rng: np.random.Generator) -> np.ndarray:
    """Return skin without a lesion, (size, size, 3) in [0, 1]: a tone, mottled by blood and by freckles."""
    step = rng.integers(len(SKIN_TONES) - 1)
    weight = rng.uniform()
    tone = (1 - weight) * SKIN_TONES[step] + weight * SKIN_TONES[step + 1]
    tone *= rng.uniform(0.93, 1.07, size=3).astype(np.float32)  # white balance
    melanin, _, blood = PIGMENTS
    flush = 0.08 * _smooth_noise(size, 4, rng) + 0.03 * _smooth_noise(size, 48, rng)
    freckles = rng.uniform(0, 0.3) * np.maximum(_smooth_noise(size, 24, rng) - rng.uniform(0.8, 2.0), 0)
    absorbed = flush[..., None] * blood + freckles[..., None] * melanin
    return tone * np.exp(-absorbed)


def _pigment(distance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the lesion's absorbance, density times absorption, 0 far from the lesion: (size, size, 3)."""
    size = len(distance)
    preference = rng.normal([1.5, 0, 0], 1.0).astype(np.float32)  # most lesions are brown
    variegation = rng.uniform(0.3, 1.8)
    mixture = np.stack([_smooth_noise(size, 5, rng) for _ in PIGMENTS], axis=-1)  # (size, size, 3 pigments)
    mixture *= variegation
    mixture += preference
    np.exp(mixture, out=mixture)
    mixture /= mixture.sum(axis=-1, keepdims=True)
    absorbed = mixture @ PIGMENTS  # (size, size, 3 channels)
    del mixture
    blotches = 0.35 * _smooth_noise(size, 7, rng) + 0.25 * _smooth_noise(size, 20, rng)
    # the lines of the pigment network are where finer noise crosses zero
    network = rng.uniform(0, 0.5) * (0.5 - np.abs(_smooth_noise(size, 56, rng)))
    density = _log_uniform(rng, 0.45, 1.6) * np.exp(np.maximum(blotches + network, -0.6))
    density *= _sigmoid(distance / rng.uniform(0.01, 0.05))
    flush = rng.uniform(0, 0.15) * np.exp(-np.abs(distance) / 0.2)  # a red halo around the border
    absorbed *= density[..., None]
    absorbed += flush[..., None] * PIGMENTS[2]
    return absorbed


def _with_nuisances(
    scene: np.ndarray, points: np.ndarray, centre: complex, area: float, rng: np.random.Generator
) -> np.ndarray:
    """Return the scene with things that cover the skin, each of them with some probability."""
    size = len(scene)
    if rng.random() < 0.15 and area < 0.25:
        away = -centre / abs(centre)  # opposite the lesion, so that the sticker does not cover it
        inside = rng.uniform(0.3, 0.6) - np.abs(points - rng.uniform(1.15, 1.35) * away)
        scene = _blend(scene, np.clip(inside * size / 2 + 0.5, 0, 1), STICKERS[rng.integers(len(STICKERS))])
    if rng.random() < 0.3:
        scene = _blend(scene, 0.85 * _lines(size, _ruler(rng)), INK)
    if rng.random() < 0.45:
        scene = _blend(scene, 0.85 * _lines(size, _hairs(rng)), rng.uniform(0.4, 1.6) * HAIR)
    if rng.random() < 0.3:
        scene = _blend(scene, rng.uniform(0.2, 0.6) * _lines(size, _bubbles(rng)), GLARE)
    return scene


def _blend(scene: np.ndarray, coverage: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Mix a colour (3,) into the scene (size, size, 3) by its coverage (size, size) in [0, 1], in place."""
    change = colour - scene
    change *= coverage[..., None]
    scene += change
    return scene


def _lines(size: int, strokes: list[Stroke]) -> np.ndarray:
    """Return how much of each pixel the polylines cover, in [0, 1]: (size, size) float32."""
    from PIL import Image, ImageDraw

    side = size * SUPERSAMPLING
    canvas = Image.new("L", (side, side))
    draw = ImageDraw.Draw(canvas)
    for points, width in strokes:
        pixels = (points + 1 + 1j) * (side / 2)
        corners = np.stack([pixels.real, pixels.imag], axis=-1).ravel().tolist()
        draw.line(corners, fill=255, width=max(1, round(width * side / 2)))
    return np.asarray(canvas.reduce(SUPERSAMPLING), dtype=np.float32) / 255


def _hairs(rng: np.random.Generator) -> list[Stroke]:
    """Return curved hairs of similar directions."""
    growth, width = rng.uniform(0, 2 * math.pi), rng.uniform(0.008, 0.02)
    along = np.linspace(-0.5, 0.5, 16)
    hairs = []
    for _ in range(rng.integers(3, 25)):
        arc = along + 1j * rng.normal(0, 0.5) * along**2
        heading = rng.uniform(0.4, 1.8) * cmath.exp(1j * rng.normal(growth, 0.5))
        hairs.append((_random_point(rng) + heading * arc, width * rng.uniform(0.6, 1.2)))
    return hairs


def _ruler(rng: np.random.Generator) -> list[Stroke]:
    """Return a straight scale with a tick per millimetre, every fifth tick longer, near a border."""
    heading, width = _random_direction(rng), 0.012
    middle = -1j * heading * rng.uniform(0.55, 0.85)
    count = rng.integers(11, 21)
    feet = middle + rng.uniform(0.6, 1.2) * heading * np.linspace(-0.5, 0.5, count)
    heights = np.where(np.arange(count) % 5 == 0, 0.1, 0.05)
    tips = feet + 1j * heading * heights
    return [(feet, width), *((tick, width) for tick in np.stack([feet, tips], axis=-1))]


def _bubbles(rng: np.random.Generator) -> list[Stroke]:
    """Return the bright rims of air bubbles in the gel under the lens, lit from one side."""
    rim = _random_direction(rng) * np.exp(1j * np.linspace(0, 1.3 * math.pi, 20))
    return [(_random_point(rng) + rng.uniform(0.004, 0.03) * rim, 0.01) for _ in range(rng.integers(2, 16))]


def _random_point(rng: np.random.Generator) -> complex:
    return complex(*rng.uniform(-1, 1, size=2))


def _lamp(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the light on every pixel, (size, size, 1): oblique, and sometimes dark outside a round lens."""
    slant = complex(*rng.normal(0, 0.06, size=2))
    light = 1 + (points * slant).real - rng.uniform(0, 0.12) * np.abs(points) ** 2
    if rng.random() < 0.35:
        reach = np.abs(points.real * rng.uniform(0.85, 1.0) + 1j * points.imag * rng.uniform(0.85, 1.0))
        edge = (rng.uniform(1.0, 1.15) - reach) / rng.uniform(0.01, 0.08)
        light *= 0.05 + 0.95 * _sigmoid(edge)
    return light[..., None]

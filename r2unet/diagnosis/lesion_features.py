"""Twelve numbers that describe a lesion: the dermatologist's ABC rule, computed from an image and a mask.

Dermatologists teach laypeople to look at a mole's asymmetry, border, colour and diameter (Friedman et al.
1985). Here the lesion's share of the image stands for the diameter. These features need no network except for
the mask, so a classifier of them is a baseline that every diagnosis network has to beat. Pixels must be
square: resizing a 4:3 image to a square changes the shape of the lesion.

**Asymmetry: fold the lesion along its principal axes.** Let d = (x, y) be the position of a lesion pixel
relative to the centroid, and v_x, v_y and c the variances and the covariance of d over the lesion. Along a
direction u = (cos a, sin a) the variance is

    v(a) = v_x cos^2 a + 2 c cos a sin a + v_y sin^2 a
         = (v_x + v_y)/2 + (v_x - v_y)/2 cos 2a + c sin 2a

The last two terms are the dot product of ((v_x - v_y)/2, c) and (cos 2a, sin 2a), largest where both point in
the same direction. So the major axis has

    2a = atan2(2c, v_x - v_y)

and the minor axis is perpendicular to it. Folding along u keeps the component of d along u and reverses the
other one, d - u (u.d):

    F d = u (u.d) - (d - u (u.d)) = (2 u u^T - I) d,    F = [[cos 2a,  sin 2a],
                                                             [sin 2a, -cos 2a]]

Folding along the minor axis replaces 2a by 2a + 180 degrees, so its matrix is simply -F. After folding, a
part of the lesion lies on skin. The area of that part divided by the area of the lesion is 0 if the lesion is
symmetric and at most 1. The feature is the mean over both axes. A folded pixel falls between the pixels of
the grid, where the mask is interpolated linearly. (Rounding to the nearest pixel would need a rule for ties,
and the feature would then differ between an image and its mirror image.)

If v_x = v_y and c = 0, as in a disc or a square, every direction has the same variance; the axes of the image
are used.

**Border: compare the perimeter P with that of a disc.** No outline of the area A is shorter than a circle,
P^2 >= 4 pi A, so P^2 / (4 pi A) is 1 for a disc and larger for any other outline. Adding up pixel edges would
measure stair steps: for a disc it gives 4 diameters instead of pi, and 1.62 instead of 1. Crofton's formula
measures a length by counting how often straight lines cross the outline. With n(a, p) crossings of the line
in direction a at distance p from the origin,

    P = 1/2 * integral over a in [0, pi) and over p of n(a, p) dp da

A grid offers four directions: rows and columns, whose lines are 1 pixel apart, and two diagonals, whose lines
are 1/sqrt(2) apart. Each stands for pi/4 of all directions:

    P ~ pi/8 (n_rows + n_columns + (n_diagonals + n_antidiagonals) / sqrt(2))

where n counts the pairs of neighbours along these lines of which exactly one is lesion. For a straight edge
the error is between -5.2 % (along rows, columns or diagonals) and +2.6 % (halfway between), and it
cancels around a disc. A few pixels are too coarse for the formula: a single pixel scores 0.57. The frame of
the image counts as outline where it cuts the lesion. A ragged outline gets longer with the resolution, so use
one image size.

**Colour.** Mean and standard deviation of R, G and B over the lesion, and the contrast: mean of the skin
around the lesion minus mean of the lesion. The skin around is a band of a twentieth of the image's shorter
side, so that dark corners far away do not count. Where there is no skin the contrast is 0.
"""

import math

import numpy as np

FEATURES = (
    "asymmetry",
    "border",
    *(f"{statistic} {channel}" for statistic in ("mean", "deviation", "contrast") for channel in "RGB"),
    "area",
)


def lesion_features(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Describe a lesion: image (H, W, 3) uint8 and mask (H, W) of 0 and 1 -> FEATURES (12,) float64.

    Colours are from 0 (black) to 1. Area is the lesion's share of the image. An empty mask gets the shape of
    a disc (asymmetry 0, border 1), the colours of the whole image, contrast 0 and area 0. These values are
    neutral, so that a classifier can still answer. Raises ValueError for other shapes, types or values.
    """
    _check(image, mask)
    lesion = mask.astype(np.bool_)
    area = np.count_nonzero(lesion) / lesion.size
    if area == 0:
        return np.concatenate([[0.0, 1.0], _colours(image, ~lesion), [0.0]])
    return np.concatenate([[asymmetry(lesion), border(lesion)], _colours(image, lesion), [area]])


def asymmetry(lesion: np.ndarray) -> float:
    """Share of a lesion (H, W) bool that lies on skin after folding, mean over both principal axes, 0..1.

    The lesion must have at least one pixel.
    """
    y, x = np.nonzero(lesion)
    centre_x, centre_y = x.mean(), y.mean()
    dx, dy = x - centre_x, y - centre_y
    cosine, sine = _double_angle(dx, dy)
    folded_x, folded_y = cosine * dx + sine * dy, sine * dx - cosine * dy  # F d
    covered = [
        _interpolate(lesion, centre_x + sign * folded_x, centre_y + sign * folded_y).mean()
        for sign in (1, -1)  # the major and the minor axis
    ]
    return max(0.0, 1.0 - float(np.mean(covered)))  # rounding may reach -1e-16


def _double_angle(dx: np.ndarray, dy: np.ndarray) -> tuple[float, float]:
    """Cosine and sine of 2a, twice the angle of the major axis of the centred positions dx and dy."""
    difference, covariance = np.mean(dx * dx) - np.mean(dy * dy), np.mean(dx * dy)
    length = math.hypot(difference, 2 * covariance)
    # Without the tolerance, rounding errors would choose the axes of a disc.
    if length <= 1e-9 * np.mean(dx * dx + dy * dy):
        return 1.0, 0.0
    return difference / length, 2 * covariance / length


def _interpolate(lesion: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Read a mask (H, W) at positions x and y (pixels,) between its pixels; outside the image is skin.

    A bilinear weight is the product of two hat functions, max(0, 1 - distance), of the four pixels around.
    """
    height, width = lesion.shape
    padded = np.pad(lesion, 1).astype(np.float64)  # (H, W) -> (H + 2, W + 2)
    x, y = np.clip(x + 1, 0, width + 1), np.clip(y + 1, 0, height + 1)
    left, top = np.minimum(x.astype(np.int64), width), np.minimum(y.astype(np.int64), height)
    right_share, bottom_share = x - left, y - top
    upper = padded[top, left] * (1 - right_share) + padded[top, left + 1] * right_share
    lower = padded[top + 1, left] * (1 - right_share) + padded[top + 1, left + 1] * right_share
    return upper * (1 - bottom_share) + lower * bottom_share


def border(lesion: np.ndarray) -> float:
    """Irregularity of the outline of a lesion (H, W) bool: P^2 / (4 pi A), about 1 for a disc.

    The lesion must have at least one pixel.
    """
    return perimeter(lesion) ** 2 / (4 * math.pi * np.count_nonzero(lesion))


def perimeter(lesion: np.ndarray) -> float:
    """Length in pixels of the outline of a lesion (H, W) bool, by Crofton's formula in four directions."""
    padded = np.pad(lesion, 1)  # (H, W) -> (H + 2, W + 2): the frame of the image is outline, too
    rows = np.count_nonzero(padded[:, 1:] != padded[:, :-1])
    columns = np.count_nonzero(padded[1:] != padded[:-1])
    diagonals = np.count_nonzero(padded[1:, 1:] != padded[:-1, :-1])
    antidiagonals = np.count_nonzero(padded[1:, :-1] != padded[:-1, 1:])
    return math.pi / 8 * (rows + columns + (diagonals + antidiagonals) / math.sqrt(2))


def _colours(image: np.ndarray, lesion: np.ndarray) -> np.ndarray:
    """Mean, standard deviation and contrast of R, G and B: image (H, W, 3), lesion (H, W) -> (9,) in 0..1."""
    inside = image[lesion]  # (H, W, 3) -> (lesion pixels, 3)
    band = max(1, round(min(lesion.shape) / 20))  # pixels
    around = image[_dilate(lesion, band) & ~lesion]  # (H, W, 3) -> (skin pixels, 3)
    mean = inside.mean(axis=0)
    contrast = around.mean(axis=0) - mean if len(around) else np.zeros(3)
    # Divide last: sums of integers are exact, so the deviation of a single colour is exactly 0.
    return np.concatenate([mean, inside.std(axis=0), contrast]) / 255.0


def _dilate(lesion: np.ndarray, radius: int) -> np.ndarray:
    """Dilate a lesion (H, W) bool by a square of 2 radius + 1 pixels -> (H, W) bool."""
    for _ in range(2):  # a square is a column of rows: dilate along x, transpose, and again
        padded = np.pad(lesion, ((0, 0), (radius + 1, radius)))  # (H, W) -> (H, W + 2 radius + 1)
        sums = np.cumsum(padded, axis=1)  # pixels of lesion up to here
        lesion = (sums[:, 2 * radius + 1 :] > sums[:, : -2 * radius - 1]).T  # (H, W) -> (W, H)
    return lesion


def _check(image: np.ndarray, mask: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"lesion_features: image {image.shape} {image.dtype} must be (H, W, 3) uint8")
    if mask.shape != image.shape[:2]:
        raise ValueError(f"lesion_features: image {image.shape} and mask {mask.shape} differ in size")
    if mask.dtype.kind not in "bui" or mask.min() < 0 or mask.max() > 1:
        raise ValueError(
            f"lesion_features: mask {mask.dtype} must be booleans or integers 0 and 1, but has values "
            f"from {mask.min()} to {mask.max()}; threshold it first"
        )

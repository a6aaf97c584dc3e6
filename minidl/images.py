"""Changes of images stored as bytes, for data augmentation on the device that trains.

A GPU takes images faster than a core of a CPU can augment them. The decoded images can therefore stay in the
GPU's memory, as bytes, and be changed there. The random numbers come from outside, one row for each of N
images; nothing is drawn here.

- `affine_sample` takes the pixel (u, v) of a new image from the place (x, y) of an old one,

      (x, y) = M (u, v, 1),    M (2, 3).

  Interpolation is bilinear. With left = floor(x), top = floor(y), a = x - left and b = y - top, it is first
  along two rows and then between them:

      upper = p[top, left] + a (p[top, left + 1] - p[top, left]), lower likewise from row top + 1,
      new pixel = upper + b (lower - upper).

  Beyond the border the image continues as its mirror image: ... 2 1 0 | 0 1 2 ... W-1 | W-1 W-2 ...
- `recolour` maps the colour p = (r, g, b) of every pixel to A p + B m, where m is the mean colour of the
  image, and then looks each level up in a table of 256.
- `gaussian_blur` averages three times along each axis, which approximates a Gaussian. The weights are
  integers with 24 bits after the point, as in Pillow, so that the result is the same on every device.
- `round_window` darkens an image outside an ellipse, and sets its mask to 0 there.

A level is truncated to a whole number where it is stored; + 0.5 rounds it first, except after interpolation,
where Pillow truncates. The maps and the other parameters are float64, and so is the arithmetic: where a level
is close to a whole number, an error of float32 would change it by one.

Every function has a definition in array code, which runs on any device, and CUDA kernels (`images.cu`).
"""

from __future__ import annotations

from minidl.backend import GPU, Array, Kernels, array_module, contiguous, cover, device_of
from minidl.implementation import choose, implements

__all__ = ["affine_sample", "gaussian_blur", "recolour", "round_window"]

kernels = Kernels(__file__)

EDGE = 0.01  # width of the edge of a round window, in sides


def affine_sample(images: Array, which: Array, maps: Array) -> Array:
    """Sample N images through affine maps, images (M, H, W, C) uint8 -> (N, C, H, W) uint8.

    which (N,) int32 are the numbers of the images, maps (N, 2, 3) float64 the matrices M.
    """
    return choose(sample_bilinear, device_of(images))(images, which, maps)


def sample_bilinear(images: Array, which: Array, maps: Array) -> Array:
    """The definition of `affine_sample`."""
    xp, (_, H, W, _) = array_module(images), images.shape
    v, u = xp.arange(H, dtype=maps.dtype)[:, None], xp.arange(W, dtype=maps.dtype)
    m = maps[..., None, None]  # (N, 2, 3, 1, 1)
    x, y = (m[:, k, 0] * u + m[:, k, 1] * v + m[:, k, 2] for k in (0, 1))  # (N, H, W)
    left, top = xp.floor(x), xp.floor(y)
    a, b = (x - left)[..., None], (y - top)[..., None]  # (N, H, W, 1)

    def pixels(row: Array, column: Array) -> Array:
        numbers = which[:, None, None], mirrored(row, H), mirrored(column, W)
        return images[numbers].astype(maps.dtype)  # (N, H, W, C)

    def mirrored(i: Array, size: int) -> Array:
        i = i.astype(int) % (2 * size)
        return xp.minimum(i, 2 * size - 1 - i)

    def between(row: Array) -> Array:
        first, second = pixels(row, left), pixels(row, left + 1)
        return first + (second - first) * a

    upper, lower = between(top), between(top + 1)
    return contiguous((upper + (lower - upper) * b).astype(images.dtype).transpose(0, 3, 1, 2))


@implements(sample_bilinear, "kernels", devices=GPU)
def sample_bilinear_by_kernels(images: Array, which: Array, maps: Array) -> Array:
    """Sample with one thread per pixel of the new images."""
    (_, H, W, C), N = images.shape, len(which)
    y = array_module(images).empty((N, C, H, W), images.dtype)
    threads = N * H * W
    kernels.launch("affine_sample", *cover(threads), maps, which, images, y, threads, C, H, W)
    return y


def recolour(images: Array, of_pixel: Array, of_mean: Array, tables: Array) -> Array:
    """Change colours, (N, 3, H, W) uint8 -> the same; A and B (N, 3, 3) float64, tables (N, 256) uint8."""
    means = images.mean(axis=(2, 3), dtype=of_mean.dtype)  # (N, 3): exact sums, in any order
    offsets = (of_mean * means[:, None]).sum(axis=2) + 0.5  # (N, 3)
    return choose(recolour_all, device_of(images))(images, of_pixel, offsets, tables)


def recolour_all(images: Array, matrices: Array, offsets: Array, tables: Array) -> Array:
    """The definition of `recolour`, with B m + 0.5 as offsets (N, 3)."""
    xp, N = array_module(images), len(images)
    pixels = images.reshape(N, 3, -1).astype(matrices.dtype)  # (N, 3, H W)
    levels = sum(matrices[:, :, c, None] * pixels[:, None, c] for c in range(3)) + offsets[..., None]
    levels = xp.clip(levels, 0, 255).astype(int)
    return tables[xp.arange(N)[:, None, None], levels].reshape(images.shape)


@implements(recolour_all, "kernels", devices=GPU)
def recolour_by_kernels(images: Array, matrices: Array, offsets: Array, tables: Array) -> Array:
    """Change colours with one thread per pixel."""
    y, pixels = array_module(images).empty_like(images), images[0, 0].size
    threads = len(images) * pixels
    kernels.launch("recolour", *cover(threads), matrices, offsets, tables, images, y, threads, pixels)
    return y


def gaussian_blur(images: Array, boxes: Array) -> Array:
    """Blur N images by three box blurs along each axis, (N, C, H, W) uint8 -> the same.

    boxes (N, 3) float64 are three whole numbers: the radius r, and the weights, times 2^24, of the pixels
    within r and of the two at r + 1. They sum to at most 2^24. (0, 2^24, 0) leaves an image as it is.
    """
    blur = choose(box_blur, device_of(images))
    for axis in (3, 3, 3, 2, 2, 2):
        images = blur(images, boxes, axis)
    return images


def box_blur(images: Array, boxes: Array, axis: int) -> Array:
    """The definition of one pass along an axis, 2 or 3."""
    xp, size = array_module(images), images.shape[axis]
    radius, inner, outer = boxes.astype(int).T[..., None, None, None]  # (N, 1, 1, 1) each
    farthest = int(radius.max()) + 1
    total = xp.full(images.shape, 1 << 23)  # rounds
    for k in range(-farthest, farthest + 1):
        weight = xp.where(abs(k) <= radius, inner, xp.where(abs(k) == radius + 1, outer, 0))
        total += weight * images.take(xp.clip(xp.arange(size) + k, 0, size - 1), axis=axis)
    return (total >> 24).astype(images.dtype)


@implements(box_blur, "kernels", devices=GPU)
def box_blur_by_kernels(images: Array, boxes: Array, axis: int) -> Array:
    """One pass with one thread per pixel of each channel."""
    y, (_, C, H, W) = array_module(images).empty_like(images), images.shape
    kernels.launch("box_blur", *cover(y.size), boxes, images, y, y.size, C, H, W, int(axis == 2))
    return y


def round_window(images: Array, masks: Array, windows: Array) -> tuple[Array, Array]:
    """Darken N images outside an ellipse, images (N, 3, H, W) uint8, masks (N, 1, H, W) uint8 -> the same.

    windows (N, 5) float64: the centre and the half axes, each along y and x, in sides and relative to the
    centre of the image, and the grey level outside. Half axes of infinity leave an image as it is.
    """
    return choose(darken, device_of(images))(images, masks, windows)


def darken(images: Array, masks: Array, windows: Array) -> tuple[Array, Array]:
    """The definition of `round_window`."""
    xp, (H, W) = array_module(images), images.shape[2:]
    centre_y, centre_x, half_y, half_x, level = windows.T[..., None, None, None]  # (N, 1, 1, 1) each
    y, x = ((xp.arange(n) + 0.5) / n - 0.5 for n in (H, W))
    y, x = (y[:, None] - centre_y) / half_y, (x - centre_x) / half_x
    mean = xp.minimum((half_y + half_x) / 2, 1.0)  # 1 instead of infinity, where every pixel is inside
    inside = (1 - xp.sqrt(y * y + x * x)) * mean  # (N, 1, H, W), in sides; 0 at the edge
    light = xp.clip(inside / EDGE + 0.5, 0, 1)
    darkened = light * images + (1 - light) * level + 0.5
    return darkened.astype(images.dtype), masks * (inside > 0)


@implements(darken, "kernels", devices=GPU)
def darken_by_kernels(images: Array, masks: Array, windows: Array) -> tuple[Array, Array]:
    """Darken with one thread per pixel."""
    xp, (H, W) = array_module(images), images.shape[2:]
    darkened, cut = xp.empty_like(images), xp.empty_like(masks)
    arguments = windows, images, masks, darkened, cut, masks.size, H, W, EDGE
    kernels.launch("round_window", *cover(masks.size), *arguments)
    return darkened, cut

"""Three predictors that learn next to nothing: no score means anything until it is compared with theirs.

**All background** outlines nothing. It has Jaccard 0 and still most of the accuracy (see metrics.py).

**The mean mask** outlines the same place in every image, without looking at it. Let p be the share of
training masks that contain a pixel. From which p on should a pixel belong to that one mask? Put it in, and
over the training images TP grows by p and TP + FP + FN by 1 - p (where the pixel is lesion it had been
counted as FN). A ratio J rises when what is added has a larger ratio than J itself:

    p / (1 - p) > J,    that is    p > J / (1 + J),    which is at most 1/2

So the best threshold lies below one half, the majority vote, and the more the lesions differ in place and
size, the lower. (In terms of F1 it is half the best F1: Lipton et al. 2014.) This holds for pooled pixels,
and the score to beat is the mean over images; so `MeanMask.fit` tries a few thresholds and keeps the one
with the best mean Jaccard on the training masks.

**Otsu's threshold** looks at the image and has learned nothing from any other: a lesion is darker than its
skin, so split the grey levels in two, at the level that separates them best (Otsu 1979). Let w be the share
of the pixels on a side, mu and var their mean and variance. Wherever the split lies, the total variance is

    var = w_dark var_dark + w_light var_light  +  w_dark w_light (mu_dark - mu_light)^2
          within the classes, to be small         between the classes, to be large

and does not change, so the two tightest classes are those with the largest second term, which needs only
running sums of one histogram. Nothing is cleaned up afterwards: hairs, shadows and the black corners around
a dermoscope's round view count as lesion. This is the plain classic.
"""

from collections.abc import Iterable

import numpy as np

from r2unet.data.images import resize_mask
from r2unet.scores.metrics import confusion, jaccard, stack


def all_background(image: np.ndarray) -> np.ndarray:
    """Predict no lesion: image (H, W, 3) uint8 -> mask (H, W) uint8, all 0."""
    return np.zeros(image.shape[:2], dtype=np.uint8)


def otsu(image: np.ndarray) -> np.ndarray:
    """Predict the darker of two grey classes: image (H, W, 3) uint8 RGB -> mask (H, W) uint8, 1 is lesion.

    Grey is Rec. 601 luma, Pillow's mode L. An image of one single grey has no two classes, and no lesion.
    """
    from PIL import Image

    grey = np.asarray(Image.fromarray(image).convert("L"))  # (H, W, 3) -> (H, W)
    threshold = otsu_threshold(grey)
    return ((grey <= threshold) & (threshold < grey.max())).astype(np.uint8)


def otsu_threshold(grey: np.ndarray) -> int:
    """Find the level 0..255 that best splits grey (H, W) uint8 in "dark, up to it" and "light, above it".

    The first of several equally good levels wins, or 0 if there is but one level (Otsu 1979, equation 18).
    """
    levels = np.arange(256)
    histogram = np.bincount(grey.reshape(-1), minlength=256)  # (H, W) -> (256,) pixels of each level
    # Running sums give both classes for all 256 thresholds at once. Integers keep equal splits exactly equal.
    dark_pixels = np.cumsum(histogram)
    light_pixels = dark_pixels[-1] - dark_pixels
    dark_sum = np.cumsum(levels * histogram)
    light_sum = dark_sum[-1] - dark_sum
    # An empty class has weight 0, so any mean will do for it: max(pixels, 1) only avoids 0 / 0.
    dark_mean = dark_sum / np.maximum(dark_pixels, 1)
    light_mean = light_sum / np.maximum(light_pixels, 1)
    between_variance = dark_pixels * light_pixels * (dark_mean - light_mean) ** 2
    return int(np.argmax(between_variance))


class MeanMask:
    """The one mask that fits the training masks best, stretched to any image.

    All it holds is `mask`, a small array, so that a checkpoint can carry it to where the training data is
    not: `MeanMask(mask)` restores it.
    """

    SIDE = 64  # pixels: the mean of many outlines is smooth, so a finer mask would only repeat itself
    THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)

    def __init__(self, mask: np.ndarray) -> None:
        """Take a fitted mask (h, w) of 0 and 1; it is kept as uint8."""
        self.mask = np.asarray(mask, dtype=np.uint8)

    @classmethod
    def fit(cls, masks: Iterable[np.ndarray]) -> "MeanMask":
        """Average training masks (H, W) uint8 0/1 of any sizes; ValueError if there are none."""
        small = [resize_mask(mask, (cls.SIDE, cls.SIDE)) for mask in masks]
        if not small:
            raise ValueError("MeanMask.fit: there are no masks to average")
        share = np.mean(small, axis=0)  # (masks, SIDE, SIDE) -> (SIDE, SIDE) in [0, 1]
        candidates = [share >= threshold for threshold in cls.THRESHOLDS]
        return cls(max(candidates, key=lambda candidate: _mean_jaccard(candidate, small)))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Predict the same outline for every image: image (H, W, 3) uint8 -> mask (H, W) uint8."""
        return resize_mask(self.mask, image.shape[:2])


def _mean_jaccard(candidate: np.ndarray, masks: list[np.ndarray]) -> float:
    return float(np.mean(jaccard(stack([confusion(candidate, mask) for mask in masks]))))

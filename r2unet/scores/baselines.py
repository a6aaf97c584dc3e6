"""Three trivial baselines. A score only means something in comparison with theirs.

**All background** predicts no lesion. Its Jaccard is 0, and its accuracy is still high (see metrics.py).

**The mean mask** predicts the same mask for every image. Let p be the share of training masks that contain a
pixel. For which p should the mask contain that pixel? Adding the pixel increases TP, averaged over the
training images, by p. It increases TP + FP + FN by 1 - p, because where the pixel is lesion it was already
counted as FN. J increases if the ratio of the two increments is larger than J:

    p / (1 - p) > J,    that is    p > J / (1 + J),    which is at most 1/2

So the best threshold is below one half, the majority vote, and decreases as lesions differ more in position
and size. (For F1 the best threshold is half the best F1: Lipton et al. 2014.) This derivation is for pooled
pixels, but the score to beat is the mean over images. `MeanMask.fit` therefore tries several thresholds and
selects the one with the best mean Jaccard on the training masks.

**Otsu's threshold** is computed from each image alone and learns nothing. A lesion is darker than the skin
around it, so split the grey levels into two classes at the threshold that separates them best (Otsu 1979).
Let w be the share of the pixels in a class, and mu and var their mean and variance. For every threshold the
total variance is the same sum

    var = w_dark var_dark + w_light var_light  +  w_dark w_light (mu_dark - mu_light)^2
          within the classes, to be small         between the classes, to be large

so the classes with the smallest variance are those with the largest second term, which needs only running
sums of one histogram. The mask is not cleaned up afterwards: hairs, shadows and the black corners around the
dermoscope's round field of view count as lesion.
"""

from collections.abc import Callable, Iterable

import numpy as np

from r2unet.data.images import resize_mask
from r2unet.scores.metrics import confusion, jaccard, stack

Baseline = Callable[[np.ndarray], np.ndarray]  # image (H, W, 3) uint8 -> mask (H, W)


def all_background(image: np.ndarray) -> np.ndarray:
    """Predict no lesion: image (H, W, 3) uint8 -> mask (H, W) uint8, all 0."""
    return np.zeros(image.shape[:2], dtype=np.uint8)


def otsu(image: np.ndarray) -> np.ndarray:
    """Predict the darker of two grey classes: image (H, W, 3) uint8 RGB -> mask (H, W) uint8, 1 is lesion.

    Grey is Rec. 601 luma, Pillow's mode L. An image with one grey level has no lesion.
    """
    from PIL import Image

    grey = np.asarray(Image.fromarray(image).convert("L"))  # (H, W, 3) -> (H, W)
    threshold = otsu_threshold(grey)
    return ((grey <= threshold) & (threshold < grey.max())).astype(np.uint8)


def otsu_threshold(grey: np.ndarray) -> int:
    """Return the threshold 0..255 that best separates grey (H, W) uint8: dark is at most the threshold.

    Returns the lowest of equally good thresholds, and 0 if there is only one level (Otsu 1979, equation 18).
    """
    levels = np.arange(256)
    histogram = np.bincount(grey.reshape(-1), minlength=256)  # (H, W) -> (256,) pixels of each level
    # Running sums give both classes for all 256 thresholds at once. With integers, ties are exact.
    dark_pixels = np.cumsum(histogram)
    light_pixels = dark_pixels[-1] - dark_pixels
    dark_sum = np.cumsum(levels * histogram)
    light_sum = dark_sum[-1] - dark_sum
    # An empty class has weight 0, so its mean does not matter: max(pixels, 1) avoids 0 / 0.
    dark_mean = dark_sum / np.maximum(dark_pixels, 1)
    light_mean = light_sum / np.maximum(light_pixels, 1)
    between_variance = dark_pixels * light_pixels * (dark_mean - light_mean) ** 2
    return int(np.argmax(between_variance))


class MeanMask:
    """The single mask that fits the training masks best, resized to any image.

    Its only state is `mask`, a small array that a checkpoint stores: `MeanMask(mask)` restores it.
    """

    SIDE = 64  # pixels: the mean of many outlines is smooth, so a finer mask would add nothing
    THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)

    def __init__(self, mask: np.ndarray) -> None:
        """Restore a fitted mask (h, w) of 0 and 1."""
        self.mask = np.asarray(mask, dtype=np.uint8)

    @classmethod
    def fit(cls, masks: Iterable[np.ndarray]) -> "MeanMask":
        """Fit training masks (H, W) uint8 0/1 of any size. Raises ValueError if there are none."""
        small = [resize_mask(mask, (cls.SIDE, cls.SIDE)) for mask in masks]
        if not small:
            raise ValueError("MeanMask.fit: there are no masks to average")
        share = np.mean(small, axis=0)  # (masks, SIDE, SIDE) -> (SIDE, SIDE) in [0, 1]
        candidates = [share >= threshold for threshold in cls.THRESHOLDS]
        return cls(max(candidates, key=lambda candidate: _mean_jaccard(candidate, small)))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Predict the same mask for every image, in its size: image (H, W, 3) uint8 -> mask (H, W) uint8."""
        return resize_mask(self.mask, image.shape[:2])


def all_baselines(mean_mask: np.ndarray | None) -> dict[str, Baseline]:
    """Return the baselines by name; the mean mask only if there is one."""
    baselines: dict[str, Baseline] = {"all background": all_background, "Otsu's threshold": otsu}
    if mean_mask is not None:
        baselines["mean mask"] = MeanMask(mean_mask)
    return baselines


def _mean_jaccard(candidate: np.ndarray, masks: list[np.ndarray]) -> float:
    return float(np.mean(jaccard(stack([confusion(candidate, mask) for mask in masks]))))

"""The way of a photograph through the network to a mask, and the mask compared with the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drawings.style import INK, QUIET, arrow, label, new_figure

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

SHOWN = 6  # of the generated lesions of chapter 8
# Also from the palette of Okabe and Ito, but not changed on a dark page, so that a picture can use them, too.
COLOURS = {"TP": "#0072b2", "FP": "#d55e00", "FN": "#cc79a7", "TN": "#d5d5d5"}


def draw_photo_to_mask() -> Figure:
    """Draw the stages of a prediction on one scale, and the four counts of the mask."""
    import numpy as np
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Rectangle

    from r2unet import SyntheticLesions, load_model
    from r2unet.data.images import resize_image, resize_probability
    from r2unet.prediction.predict import THRESHOLD, probabilities

    model, settings, _ = load_model()
    sample, size = SyntheticLesions(8, size=130, seed=0)[SHOWN], settings.size
    photo, truth = sample.image[15:115], sample.mask[15:115] == 1  # (100, 130)
    small = resize_image(photo, (size, size))
    probability = probabilities(model, [small])[0]
    mask = resize_probability(probability, photo.shape[:2]) > THRESHOLD
    cell = np.select([mask & truth, mask & ~truth, truth], [0, 1, 2], 3)  # TP, FP, FN, TN

    figure, axes = new_figure(5.2, 4.76, (0, 440), (403, 0))
    grey = {"cmap": "gray", "vmin": 0, "vmax": 1}
    colours = {"cmap": ListedColormap(list(COLOURS.values())), "vmin": 0, "vmax": 3}
    for picture, x, y, title, options in (
        (coarse(photo), 20, 30, "photo, 100 x 130", {}),
        (coarse(small), 265, 30, f"input, {size} x {size}", {}),
        (probability, 265, 235, f"probability, {size} x {size}", grey),
        (cell, 20, 235, "mask, 100 x 130", colours),
    ):
        height, width = picture.shape[:2]
        axes.imshow(picture, extent=(x, x + width, y + height, y), interpolation="nearest", **options)
        label(axes, x + width / 2, y - 11, title)
    axes.set(xlim=(0, 440), ylim=(403, 0), aspect="equal")
    arrow(axes, (158, 80), (257, 80))
    label(axes, 207, 68, "resize")
    arrow(axes, (345, 193), (345, 212))
    label(axes, 335, 202, "network, sigmoid", ha="right")
    arrow(axes, (257, 285), (158, 285))
    label(axes, 207, 273, "resize")
    label(axes, 207, 299, "p > 0.5")
    words = ("lesion found", "skin called lesion", "lesion missed", "skin")
    for i, ((name, colour), text) in enumerate(zip(COLOURS.items(), words, strict=True)):
        x, y = 20, 348 + 15 * i
        axes.add_patch(Rectangle((x, y - 5), 10, 10, fc=colour, ec=INK, lw=0.8))
        label(axes, x + 16, y, f"{name}  {text}", QUIET, ha="left", fontsize=10)
    return figure


def coarse(image: np.ndarray) -> np.ndarray:
    """Return an image with 32 levels of each colour: the eye hardly sees it, and the file is smaller."""
    return image // 8 * 8 + 4

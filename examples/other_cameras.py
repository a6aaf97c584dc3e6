"""Other cameras: how does the score of a network change on images unlike its training images?

A score on the images of one archive says little about the camera of another hospital (domain shift). Here
each image is changed as a different lamp, lens or file format would change it, and the network is scored
again on the same lesions. So every difference is due to the camera and not to the lesions.

Run it:    python examples/other_cameras.py --data ISIC                       (30 images, half a minute)
           python examples/other_cameras.py --data ISIC --limit 150
           python examples/other_cameras.py --data ISIC --checkpoint runs/isic/best.npz
           On a busy machine, put OPENBLAS_NUM_THREADS=1 in front: the threads of such small matrix products
           wait for each other twenty times as long as they compute.

Expect:    a line per camera: the mean Jaccard, and its difference from the unchanged images. Changes that
           the augmentation covered in training cost little; others cost more.

Try next:  1. Train with --augment 0 and compare. Which lines fall?
           2. Add your own camera, and measure what it costs.
           3. Draw the worst images with overlays.plot_overlays. What does the network take for the lesion?
"""

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from r2unet import InputError, Sample, confusion, find_pairs, jaccard, load_model, predict_image
from r2unet.commands.values import number
from r2unet.data.lesion_images import read_pair
from r2unet.network.fold import fold_all
from r2unet.prediction.predict import THRESHOLD
from r2unet.training.checkpoints import PRETRAINED

parser = argparse.ArgumentParser(description="Score a network on images as other cameras would take them.")
parser.add_argument("--data", required=True, help="folder of ISIC 2016, 2017 or 2018")
parser.add_argument(
    "--checkpoint",
    type=Path,
    default=PRETRAINED["isic2017"],
    help="weights to score (default: the pretrained weights)",
)
parser.add_argument("--split", default="validation", help="images to score (default validation)")
parser.add_argument(
    "--limit", type=number(int, 1, 1_000_000), default=30, metavar="N", help="at most N images (default 30)"
)
options = parser.parse_args()


# Each camera takes a sample, image (H, W, 3) uint8 and mask (H, W), and returns what it would record.


def lamp(*gains):
    """Return a camera under a lamp that multiplies each colour channel by its gain."""
    return lambda sample: sample._replace(
        image=np.minimum(sample.image * np.array(gains), 255).astype(np.uint8)
    )


def grey(sample: Sample) -> Sample:
    """No colour: every channel is the luminance."""
    return sample._replace(image=np.asarray(Image.fromarray(sample.image).convert("L").convert("RGB")))


def out_of_focus(sample: Sample) -> Sample:
    """A Gaussian blur of 1.5 % of the shorter side."""
    blur = ImageFilter.GaussianBlur(0.015 * min(sample.mask.shape))
    return sample._replace(image=np.asarray(Image.fromarray(sample.image).filter(blur)))


def compressed(sample: Sample) -> Sample:
    """JPEG at quality 10, with visible blocks."""
    file = io.BytesIO()
    Image.fromarray(sample.image).save(file, "JPEG", quality=10)
    return sample._replace(image=np.asarray(Image.open(file)))


def noisy(sample: Sample) -> Sample:
    """A small sensor in low light: Gaussian noise with a standard deviation of a tenth of white."""
    noise = np.random.default_rng(0).normal(0, 25, sample.image.shape)
    return sample._replace(image=np.clip(sample.image + noise, 0, 255).astype(np.uint8))


def round_window(sample: Sample) -> Sample:
    """The round window of a dermatoscope: outside it, the image is black and the mask is background."""
    H, W = sample.mask.shape
    y, x = np.ogrid[:H, :W]
    inside = np.hypot(y - H / 2, x - W / 2) < 0.55 * min(H, W)  # (H, W)
    return sample._replace(image=sample.image * inside[..., None], mask=sample.mask * inside)


def nearer(sample: Sample) -> Sample:
    """The central two thirds of the image."""
    H, W = sample.mask.shape
    middle = np.s_[H // 6 : H - H // 6, W // 6 : W - W // 6]
    return sample._replace(image=sample.image[middle], mask=sample.mask[middle])


CAMERAS = {
    "as they are": lambda sample: sample,
    "half the light": lamp(0.5, 0.5, 0.5),
    "warm lamp": lamp(1.15, 1.0, 0.75),
    "cold lamp": lamp(0.8, 1.0, 1.2),
    "no colour": grey,
    "out of focus": out_of_focus,
    "compressed": compressed,
    "noisy": noisy,
    "round window": round_window,
    "nearer": nearer,
}

scores: dict[str, list[float]] = {name: [] for name in CAMERAS}
try:
    model, settings, _ = load_model(options.checkpoint)
    pairs = find_pairs(options.data, options.split)
    chosen = np.linspace(0, len(pairs) - 1, min(options.limit, len(pairs))).round().astype(int)
    folded = fold_all(model)
    for i in chosen:
        sample = read_pair(pairs[i])
        for name, camera in CAMERAS.items():
            seen = camera(sample)
            mask = predict_image(folded, seen.image, settings.size) > THRESHOLD
            scores[name].append(jaccard(confusion(mask, seen.mask)))
except InputError as error:
    parser.exit(2, f"{parser.prog}: error: {error}\n")

print(f"mean Jaccard of {len(chosen)} images, {options.split}; without test-time augmentation and clean-up")
means = {name: float(np.mean(values)) for name, values in scores.items()}
for name, mean in means.items():
    print(f"{name:16}{mean:7.3f}{mean - means['as they are']:+8.3f}")

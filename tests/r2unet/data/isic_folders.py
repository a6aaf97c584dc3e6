"""Small ISIC folders for the tests of the data sets."""

import numpy as np
import pytest
from PIL import Image

from r2unet.errors import InputError

TRAINING_2017 = ("ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth")
VALIDATION_2017 = ("ISIC-2017_Validation_Data", "ISIC-2017_Validation_Part1_GroundTruth")
TABLE_2017 = "ISIC-2017_Training_Part3_GroundTruth.csv"


def write_image(path, colour=(100, 100, 100)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), colour).save(path)


def write_mask(path, height=6, width=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[:, : width // 2] = 255
    Image.fromarray(mask).save(path)


def add_lesions(root, folders=TRAINING_2017, numbers=(1, 2, 3), ending="_segmentation"):
    """Write an image and its mask for each number into the two folders."""
    for number in numbers:
        write_image(root / folders[0] / f"ISIC_{number:07}.jpg", (number % 256, 100, 200))
        write_mask(root / folders[1] / f"ISIC_{number:07}{ending}.png")


def assert_refused(call, *words):
    """Assert that the call raises an InputError of one line with these words."""
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message


def add_ham10000(root, lesions, images="HAM10000_images", suffix=".jpg"):
    """Write images of HAM10000 with their masks, and all rows anew: number -> (lesion_id, dx)."""
    for number in lesions:
        write_image(root / images / f"ISIC_{number:07}{suffix}", (number % 256, 50, 90))
        write_mask(root / "HAM10000_segmentations_lesion_tschandl" / f"ISIC_{number:07}_segmentation.png")
    rows = [
        f"{lesion},ISIC_{number:07},{dx},histo,50.0,male,back" for number, (lesion, dx) in lesions.items()
    ]
    lines = ["lesion_id,image_id,dx,dx_type,age,sex,localization", *rows]
    (root / "HAM10000_metadata.csv").write_text("".join(line + "\n" for line in lines))

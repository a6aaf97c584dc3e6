"""The time to load a batch, compared with the training step that uses it.

Generated lesions are stored as JPEGs in a folder, like a data set. The first epoch decodes them and writes
the cache; later epochs read the cache. Both are measured without prefetch threads, so each share is an upper
bound of the time that a step waits for its batch. In training, prefetching hides most of it.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import networks
from benchmarks.frameworks import OWN
from benchmarks.timing import interleave, ratios, spread
from minidl.data import DataLoader
from r2unet.data.augment import augment
from r2unet.data.folders import find_pairs
from r2unet.data.images import write_mask
from r2unet.data.lesion_images import LesionImages
from r2unet.data.sample import Batch, collate
from r2unet.data.synthetic import make_lesion


def write_lesions(root: Path, count: int, size: int, rng: np.random.Generator) -> None:
    """Write generated lesions as root/images/*.jpg and root/masks/*.png."""
    from PIL import Image

    (root / "images").mkdir()
    for i in range(count):
        image, mask = make_lesion(size, rng)
        Image.fromarray(image).save(root / "images" / f"lesion_{i:03}.jpg", quality=95)
        write_mask(root / "masks" / f"lesion_{i:03}.png", mask)


def measure(size: int, batch: int, repeats: int) -> dict[str, Any]:
    """Return the times to load one batch in several ways and of one step on it, and their ratios."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_lesions(root, batch, size, rng)
        pairs = find_pairs(root, "all")
        cached = LesionImages(pairs, size, cache=root / "cache")

        def load(images: LesionImages, transform: Any = None) -> Batch:
            loader = DataLoader(images, batch, shuffle=True, rng=rng, transform=transform, collate=collate)
            return next(iter(loader))

        inputs = networks.draw(batch, size, rng)
        seconds = interleave(
            {
                "training step": networks.IMPLEMENTATIONS[OWN](inputs).step,
                "decoded": lambda: load(LesionImages(pairs, size, threads=1)),
                "cached": lambda: load(cached),
                "cached, augmented": lambda: load(cached, partial(augment, strength=1.0)),
            },
            repeats,
        )
    step = "training step"
    shares = {
        name: ratios({name: seconds[name], step: seconds[step]}, own=name)[step]
        for name in seconds
        if name != step
    }
    return {"times": {name: spread(values) for name, values in seconds.items()}, "share_of_step": shares}

"""From photographs of any size to masks of the same size.

    photograph (H, W, 3) -> stretched to the training size -> padded until every level can halve it
        -> network -> sigmoid -> padding cut off -> stretched back to (H, W) -> probability > 0.5

The probability is stretched back, not the mask: interpolated between the network's pixels it crosses one
half along a smooth line, where a mask would become stairs.

**Test-time augmentation.** A lesion's outline does not depend on how the camera was held, but the network's
answer does a little. The mean of its answers to the eight ways to lay a square on itself, each laid back,
does not, and the errors that the eight do not share grow smaller in it. It takes eight times as long.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from minidl import Tensor, no_grad
from minidl.backend import to_device, to_numpy
from minidl.ops.activation import stable_sigmoid
from r2unet.data import images
from r2unet.data.diagnoses import isic_number
from r2unet.data.sample import to_input
from r2unet.errors import InputError
from r2unet.network.model import UShape
from r2unet.prediction import clean_up as cleanup

MASK_SUFFIX = "_segmentation_prediction.png"
THRESHOLD = 0.5


def pad_to_multiple(x: np.ndarray, multiple: int) -> np.ndarray:
    """Repeat the last row and column until both sides divide, x (N, C, H, W) -> (N, C, H + h, W + w).

    Repeated pixels look like more of the same skin; zeros would look like an edge.
    """
    below, right = -x.shape[2] % multiple, -x.shape[3] % multiple
    return np.pad(x, ((0, 0), (0, 0), (0, below), (0, right)), mode="edge") if below or right else x


def probabilities(
    model: UShape, pictures: Sequence[np.ndarray], device: str = "cpu", tta: bool = False
) -> np.ndarray:
    """Return how likely each pixel is lesion: images of one size, each (H, W, 3) uint8 -> (N, H, W)
    float32.

    `tta` averages over the eight flips and quarter turns.
    """
    x = to_input(pictures)  # (N, 3, H, W)
    if not tta:
        return _probabilities(model, x, device)
    total = np.zeros(())
    for step in (1, -1):  # as it is, and mirrored
        for k in range(4):
            turned = np.rot90(x[..., ::step], k, axes=(2, 3))
            answer = np.rot90(_probabilities(model, turned, device), -k, axes=(1, 2))
            total = total + answer[..., ::step]  # (N, H, W)
    return (total / 8).astype(np.float32)


def _probabilities(model: UShape, x: np.ndarray, device: str) -> np.ndarray:
    """Run the network once: x (N, 3, H, W) -> (N, H, W) float32."""
    H, W = x.shape[2:]
    with no_grad():
        logits = model(Tensor(to_device(pad_to_multiple(x, model.multiple), device)))
    return to_numpy(stable_sigmoid(logits.data))[:, 0, :H, :W]


def predict_image(
    model: UShape, picture: np.ndarray, size: int, device: str = "cpu", tta: bool = False
) -> np.ndarray:
    """Return the lesion probability of every pixel of one image of any size, (H, W, 3) uint8 -> (H, W)
    float32.

    The network sees the image stretched to (size, size), the size it was trained on.
    """
    small = images.resize_image(picture, (size, size))
    probability = probabilities(model, [small], device, tta)[0]  # (size, size)
    return images.resize_probability(probability, picture.shape[:2])


def read_photograph(file: Path) -> np.ndarray:
    """Read an image to predict, (H, W, 3) uint8. Raises InputError where it cannot be read."""
    # A camera says how it was held. Masks of the ISIC archive were drawn without listening to it.
    return images.read_image(file, exif=isic_number(file.stem) is None)


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """Return the image files among the paths, and in the folders among them, in order, each once.

    Raises InputError for a path that is missing, a folder without images, and two images of one stem, whose
    masks would overwrite each other.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if _is_photograph(p))
            if not inside:
                raise InputError(f"{path}: holds no images; known are {', '.join(images.SUFFIXES)}")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise InputError(f"{path}: no such file or folder; check the path")
    stems: dict[str, Path] = {}
    for path in dict.fromkeys(found):
        # On many disks A.png and a.png are one file.
        if (twin := stems.setdefault(path.stem.casefold(), path)) != path:
            raise InputError(f"{path}: has the same name as {twin}, so their masks would too; rename one")
    return list(stems.values())


def _is_photograph(path: Path) -> bool:
    """Whether a file in a folder is an image to predict: no hidden file, and no mask lying beside one."""
    endings = ("_superpixels.png", "_segmentation.png", MASK_SUFFIX, "_overlay.png")
    name = path.name.lower()
    return name.endswith(images.SUFFIXES) and not name.endswith(endings) and not name.startswith(".")


def predict_files(
    model: UShape,
    size: int,
    files: Iterable[Path],
    out: Path,
    device: str = "cpu",
    overlay: bool = False,
    tta: bool = False,
    clean_up: bool = False,
) -> Iterator[tuple[Path, float | InputError]]:
    """Write every file's mask, with `overlay` its outline too; yield each file and the lesion's share of it.

    Each mask is `STEM_segmentation_prediction.png`, mode L, 0 or 255, of the image's own size: what the ISIC
    challenge asks for. A file that is no image comes with the InputError that says so instead, and the
    others go on: one bad photograph should not cost a night. `tta` is as in `probabilities`, and `clean_up`
    keeps one lesion without holes. Raises InputError if `out` cannot be written.
    """
    for file in files:
        try:
            picture = read_photograph(file)
        except InputError as fault:
            yield file, fault
            continue
        mask = (predict_image(model, picture, size, device, tta) > THRESHOLD).astype(np.uint8)
        if clean_up:
            mask = cleanup.clean_up(mask)
        images.write_mask(out / f"{file.stem}{MASK_SUFFIX}", mask)
        if overlay:
            from r2unet import plots

            images.write_image(out / f"{file.stem}_overlay.png", plots.overlay_image(picture, mask))
        yield file, float(mask.mean())

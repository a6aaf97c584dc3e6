"""Attacks on images and masks."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from r2unet.data.images import FORMATS
from tests.assault import mutations
from tests.assault.attacks import Attacks
from tests.assault.jail import Outcome
from tests.assault.mutations import damage
from tests.assault.trial import Files, Trial

IMAGES = 16  # in one run of predict
MASK = "_segmentation_prediction.png"


def pictures(a: Attacks, folder: Path) -> Trial:
    """Predict a folder of damaged images: each is either predicted or reported."""
    words = ["predict", "in", "--checkpoint=both.npz", "--out=out"]
    a.copy(folder, "both.npz")
    (folder / "in").mkdir()
    honest = _honest_pictures(a, folder.with_name("honest-pictures"))
    sources: dict[str, tuple[Path, bool]] = {}
    for number in range(IMAGES):
        source, other = (a.pictures[i] for i in a.rng.integers(len(a.pictures), size=2))
        content, how = source.read_bytes(), "cut"
        if source.name.startswith("foreign"):
            how = "foreign"
        elif source.suffix == ".png" and a.rng.random() < 0.3:
            content, how = mutations.damage_png(content, a.rng), "resealed"
        else:
            content, how = damage(content, a.rng, other.read_bytes())
        suffix = source.suffix if a.rng.random() < 0.9 else a.one_of(".jpg", ".png", ".tif", ".webp")
        name = f"{number:02}{suffix}"
        (folder / "in" / name).write_bytes(content)
        sealed = how in ("cut", "foreign") or (source.suffix == ".png" and how != "resealed")
        sources[name] = source, sealed
    return _picture_trial(folder, words, sources, honest)


def _picture_trial(
    folder: Path, words: list[str], sources: dict[str, tuple[Path, bool]], honest: dict[str, tuple]
) -> Trial:
    def check(trial: Trial, outcome: Outcome, new: Files) -> str:
        table = new.get("out/diagnoses.csv", b"").decode()
        rows = dict(line.split(",", 1) for line in table.splitlines()[1:])
        for name, (source, sealed) in sources.items():
            stem = Path(name).stem
            mask, reported = new.get(f"out/{stem}{MASK}"), f"in/{name}: " in outcome.err
            if (mask is None) != reported:
                return f"{name}: mask {'missing' if mask is None else 'written'}, reported: {reported}"
            if mask is not None and sealed and (mask, rows.get(stem)) != honest.get(source.name):
                return f"silent change of the prediction of {name}, damaged {source.name}"
            if mask is not None and not is_whole(mask):
                return f"{name}: the mask is half-written"
        return ""

    def single() -> list[Trial]:
        trials = []
        for name in sources:
            alone = folder.with_name(f"{folder.name}-{name}")
            (alone / "in").mkdir(parents=True)
            shutil.copyfile(folder / "both.npz", alone / "both.npz")
            shutil.copyfile(folder / "in" / name, alone / "in" / name)
            trials.append(_picture_trial(alone, words, {name: sources[name]}, honest))
        return trials

    return Trial(
        "pictures",
        folder,
        words,
        len(sources),
        partial=True,
        decoded=lambda: max(decoded_size(folder / "in" / name) for name in sources),
        check=check,
        single=single if len(sources) > 1 else None,
    )


def _honest_pictures(a: Attacks, scratch: Path) -> dict[str, tuple[bytes, str]]:
    """Return the mask and the diagnosis of every honest picture, by its file name."""
    found: dict[str, tuple[bytes, str]] = {}
    for source in a.pictures:
        if not source.name.startswith("foreign"):
            words = ["predict", f"pictures/{source.name}", "--checkpoint=both.npz", "--out=out"]
            names = (f"pictures/{source.name}", "both.npz")
            written = a.results(words, names, scratch)
            row = written["out/diagnoses.csv"].decode().splitlines()[1].split(",", 1)[1]
            found[source.name] = written[f"out/{source.stem}{MASK}"], row
    return found


def masks(a: Attacks, folder: Path) -> Trial:
    """Score masks of which one is damaged."""
    a.copy(folder, "masks")
    shutil.copytree(folder / "masks", folder / "predictions")
    target = a.one_of("masks", "predictions")
    path = sorted((folder / target).iterdir())[0]
    content = path.read_bytes()
    if resealed := a.rng.random() < 0.5:
        path.write_bytes(mutations.damage_png(content, a.rng))
    else:
        path.write_bytes(damage(content, a.rng, content[::-1])[0])
    words = ["score", "masks", "predictions", "--json=out.json"]
    expected = None
    if not resealed:
        names = ("masks", "predictions")
        a.honest.joinpath("predictions").exists() or shutil.copytree(
            a.honest / "masks", a.honest / "predictions"
        )
        expected = a.results(words, names, folder.with_name("honest-masks"))
    return Trial("masks", folder, words, 1, expected, decoded=lambda: decoded_size(path), writes="out")


def data_images(a: Attacks, folder: Path) -> Trial:
    """Evaluate a network on a data set with a damaged image or mask."""
    a.copy(folder, "data", "both.npz")
    path = Path(a.one_of(*map(str, sorted((folder / "data").glob("*/*.*g")))))
    content = path.read_bytes()
    damaged, how = damage(content, a.rng, content[::-1])
    path.write_bytes(damaged)
    words = ["evaluate", "--data=data", "--split=all", "--checkpoint=both.npz", "--json=out.json"]
    expected = None
    if how == "cut" or path.suffix == ".png":
        expected = a.results(words, ("data", "both.npz"), folder.with_name("honest-data"))
    return Trial("data images", folder, words, 1, expected, decoded=lambda: decoded_size(path), writes="out")


def sizes(a: Attacks, folder: Path) -> Trial:
    """Predict an image of an odd or a large size, and draw its outline."""
    a.copy(folder, "both.npz")
    long = int(2 ** a.rng.uniform(0, 16))
    short = int(2 ** a.rng.uniform(0, min(12, 22 - np.log2(long))))
    size = (long, short) if a.rng.random() < 0.5 else (short, long)
    mode = a.one_of("RGB", "RGBA", "L", "1", "P", "LA", "I;16")
    kind = a.one_of(
        *(("png", "tif") if mode in ("RGBA", "LA", "I;16", "P") else ("png", "tif", "jpg", "bmp"))
    )
    if a.rng.random() < 0.5 or mode == "I;16":
        noise = a.rng.integers(65536 if mode == "I;16" else 256, size=size[::-1])
        image = Image.fromarray(noise.astype(np.uint16 if mode == "I;16" else np.uint8))
        image = image if mode == "I;16" else image.convert(mode)
    else:
        image = Image.new(mode, size, 1 if mode in ("1", "P") else None)
    path = folder / f"a.{kind}"
    image.save(path)
    options = [word for word in ("--overlay", "--clean-up", "--tta") if a.rng.random() < 0.3]
    words = ["predict", path.name, "--checkpoint=both.npz", "--out=out", *options]
    return Trial("sizes", folder, words, decoded=lambda: size[0] * size[1] * 4)


def decoded_size(path: Path) -> int:
    """Return the bytes of an image, by its header: Pillow takes 4 for each pixel. 0 if it is no image."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.width * image.height * 4
    except Exception:
        return 0


def is_whole(png: bytes) -> bool:
    chunks = list(mutations.png_chunks(png))
    return bool(chunks) and chunks[-1] == (b"IEND", b"")

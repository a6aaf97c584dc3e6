"""The undamaged files that the assault damages: networks, images of every format, tables and a study."""

from __future__ import annotations

import io
import json
import os
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from r2unet.commands.main import main
from r2unet.data.synthetic import make_lesion
from tests.assault.jail import save_nothing

TRAINING = ["--size=16", "--widths=2,4", "--batch-size=4", "--device=cpu"]
OUTLINE = [*TRAINING, "--images=10", "--epochs=2"]
BOTH = [*TRAINING, "--images=40", "--batch-size=20", "--epochs=1", "--norm=group", "--task=both"]
BOTH += ["--pooled-levels=all", "--refit-head"]
DATA = [*TRAINING, "--data=data", "--epochs=1", "--norm=group"]
STUDY = ["compare", "own", "--seeds=0", "--images=10", "--epochs=1"] + TRAINING
VARIANTS = "--variant", "a: steps=1", "--variant", "b: steps=2"
NETWORKS = "U_Net", "R2U_Net", "AttU_Net", "R2AttU_Net"
STORED = Path(__file__).parents[1] / "lee_reference.npz"


def r2unet(*words: str) -> None:
    """Run a command that must succeed; it prints nothing."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        code = main(list(words))
    assert code == 0, words


def make_honest(folder: Path) -> None:
    """Make all files in an empty folder. Figures are empty files (see `jail`)."""
    draw, Figure.savefig = Figure.savefig, save_nothing
    here = os.getcwd()
    os.chdir(folder)
    try:
        make_files()
    finally:
        Figure.savefig = draw
        os.chdir(here)


def make_files() -> None:
    """Make all files in the current directory."""
    make_pictures(Path("pictures"))
    make_data(Path("data"))
    make_weights()
    make_tables()
    r2unet("train", *OUTLINE, "--out=plain")
    r2unet("train", *BOTH, "--out=both")
    r2unet("train", *DATA, "--out=from-data", "--cache=cache")
    for name in ("plain", "both"):
        r2unet("export", f"{name}/best.npz", f"--out={name}.npz")
    r2unet("export", "both.npz", "--half", "--tta", "--licence=CC0", "--out=half.npz")
    r2unet(*STUDY, *VARIANTS, "--out=study")
    os.mkdir("masks")
    for path in sorted(Path("data/masks").iterdir())[:3]:
        (Path("masks") / path.name).write_bytes(path.read_bytes())
    r2unet("score", "masks", "masks")
    r2unet("score", "truth.csv", "predictions.csv")


def make_pictures(folder: Path) -> None:
    """Write lesions of 40 x 30 pixels in the formats and modes that are read, with names that say which."""
    folder.mkdir()
    rgb, _ = make_lesion(40, np.random.default_rng(0))
    image = Image.fromarray(rgb[:30])
    deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated
    modes = {
        "rgb": image,
        "grey": image.convert("L"),
        "palette": image.quantize(32),
        "alpha": image.convert("RGBA"),
        "bit": image.convert("1"),
        "cmyk": image.convert("CMYK"),
        "deep": deep,
    }
    files = {
        "png": [(mode, {}) for mode in modes if mode != "cmyk"],
        "jpg": [
            ("rgb", {}),
            ("rgb", {"progressive": True}),
            ("grey", {}),
            ("cmyk", {}),
            ("rgb", {"exif": exif}),
        ],
        "bmp": [(mode, {}) for mode in ("rgb", "grey", "palette", "bit")],
        "webp": [("rgb", {}), ("alpha", {}), ("rgb", {"lossless": True})],
        "tif": [
            *((mode, {}) for mode in modes),
            *(("rgb", {"compression": c}) for c in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")),
            ("bit", {"compression": "group4"}),
        ],
    }
    for suffix, variants in files.items():
        for number, (mode, options) in enumerate(variants):
            modes[mode].save(folder / f"{suffix}{number}-{mode}.{suffix}", **options)
    for suffix in ("gif", "ppm", "ico", "pcx", "tga", "dds"):  # formats that are refused, by another name
        image.save(folder / f"foreign-{suffix}.png", format={"tga": "TGA"}.get(suffix, suffix.upper()))


def make_data(root: Path) -> None:
    """Write a data set of twelve images with masks and a table, in plain folders."""
    rows = ["image,melanoma,seborrheic_keratosis"]
    for number in range(12):
        image, mask = make_lesion(32, np.random.default_rng(number))
        name = f"ISIC_{number:07}"
        for kind, array, ending in (("images", image, ".jpg"), ("masks", mask * np.uint8(255), ".png")):
            path = root / kind / f"{name}{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array[4:28]).save(path)
        rows.append(f"{name},{number % 3 == 1:d}.0,{number % 3 == 2:d}.0")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")


def make_weights() -> None:
    """Write PyTorch's state_dicts of four networks as .npz and as .safetensors."""
    with np.load(STORED) as file:
        for name in NETWORKS:
            start = f"{name}/state/"
            state = {n.removeprefix(start): file[n] for n in file if n.startswith(start)}
            np.savez(f"{name}.npz", **state)
            Path(f"{name}.safetensors").write_bytes(as_safetensors(state))


def as_safetensors(state: dict[str, np.ndarray]) -> bytes:
    """Return arrays in the format safetensors: the length of a header, the header in JSON, the numbers."""
    header, parts, end = {"__metadata__": {"format": "pt"}}, [], 0
    for name, array in state.items():
        array = np.ascontiguousarray(array, np.int64 if array.dtype.kind == "i" else np.float32)
        dtype = "I64" if array.dtype.kind == "i" else "F32"
        offsets = [end, end := end + array.nbytes]
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": offsets}
        parts.append(array.tobytes())
    text = json.dumps(header).encode()
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def make_tables() -> None:
    """Write two tables of diagnoses as in the challenge of 2018, and HAM10000's metadata."""
    rng, classes = np.random.default_rng(0), "MEL,NV,BCC,AKIEC,BKL,DF,VASC"
    truth, predictions = [f"image,{classes}"], [f"image,{classes}"]
    for number in range(14):
        one = ["1.0" if k == number % 7 else "0.0" for k in range(7)]
        p = rng.dirichlet(np.ones(7))
        truth.append(f"ISIC_{number:07},{','.join(one)}")
        predictions.append(f"ISIC_{number:07},{','.join(f'{value:.4f}' for value in p)}")
    Path("truth.csv").write_text("\n".join(truth) + "\n")
    Path("predictions.csv").write_text("\n".join(predictions) + "\n")
    ham = Path("ham")
    for kind, ending in (("images", ".jpg"), ("segmentations_lesion_tschandl", "_segmentation.png")):
        (ham / f"HAM10000_{kind}").mkdir(parents=True)
        for number in range(12):
            folder, suffix = ("images", ".jpg") if kind == "images" else ("masks", ".png")
            source = Path("data") / folder / f"ISIC_{number:07}{suffix}"
            (ham / f"HAM10000_{kind}" / f"ISIC_{number:07}{ending}").write_bytes(source.read_bytes())
    types = ["mel", "nv", "bcc", "akiec", "bkl", "df", "vasc"]
    rows = ["lesion_id,image_id,dx,dx_type,age,sex,localization"]
    rows += [f"HAM_{n:07},ISIC_{n:07},{types[n % 7]},histo,{40 + n}.0,male,back" for n in range(12)]
    (ham / "HAM10000_metadata.csv").write_text("\n".join(rows) + "\n")

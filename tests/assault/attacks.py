"""The attacks on files: each prepares a trial, that is a damaged input and the command that reads it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from r2unet.data.images import FORMATS
from tests.assault import mutations
from tests.assault.honest import DATA, NETWORKS, OUTLINE, STUDY
from tests.assault.jail import Outcome
from tests.assault.mutations import NUMBERS, TEXTS, VALUES, Rng, Values, damage
from tests.assault.trial import Files, Trial

IMAGES = 16  # in one run of predict
MASK = "_segmentation_prediction.png"


class Attacks:
    """Prepares trials from the honest files in a folder. `rng` decides everything."""

    def __init__(self, honest: Path, rng: Rng) -> None:
        self.honest, self.rng = honest, rng
        self.values, self.cells = Values(VALUES, rng), Values(TEXTS | NUMBERS.map(str), rng)
        self.pictures = sorted((honest / "pictures").iterdir())
        self.expected: dict[tuple[str, ...], Files] = {}  # what honest commands write

    def copy(self, folder: Path, *names: str) -> None:
        """Copy honest files and folders into the folder of a trial."""
        for name in names:
            source, target = self.honest / name, folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)

    def results(self, words: list[str], names: tuple[str, ...], scratch: Path) -> Files:
        """Return what a command writes to `out` if its inputs are honest; it is run once."""
        from tests.assault.honest import r2unet
        from tests.assault.trial import files_in

        if tuple(words) not in self.expected:
            self.copy(scratch, *names)
            here = os.getcwd()
            os.chdir(scratch)
            r2unet(*words)
            os.chdir(here)
            written = files_in(scratch)
            self.expected[tuple(words)] = {n: c for n, c in written.items() if n.startswith("out")}
            shutil.rmtree(scratch)
        return self.expected[tuple(words)]

    def one_of(self, *choices: str) -> str:
        return str(self.rng.choice(choices))


# Images


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
            if mask is not None and not _is_whole(mask):
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
        "images",
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


def decoded_size(path: Path) -> int:
    """Return how many bytes an image has as RGB, as its header says; 0 if it is no image."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.width * image.height * 3
    except Exception:
        return 0


def _is_whole(png: bytes) -> bool:
    chunks = list(mutations.png_chunks(png))
    return bool(chunks) and chunks[-1] == (b"IEND", b"")


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
    return Trial(
        "masks", "images", folder, words, 1, expected, decoded=lambda: decoded_size(path), writes="out"
    )


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
    return Trial(
        "data images", "images", folder, words, 1, expected, decoded=lambda: decoded_size(path), writes="out"
    )


# Checkpoints and weights


def checkpoints(a: Attacks, folder: Path) -> Trial:
    """Predict, export or evaluate with a damaged checkpoint."""
    name = a.one_of("both.npz", "half.npz", "outline.npz", "outline/best.npz", "both/best.npz")
    a.copy(folder, name, "pictures/png0-rgb.png")
    words = {
        "predict": ["predict", "pictures/png0-rgb.png", f"--checkpoint={name}", "--out=out"],
        "export": ["export", name, "--out=out.npz", "--half"],
        "evaluate": ["evaluate", f"--checkpoint={name}", "--json=out.json"],
    }[str(a.rng.choice(["predict", "export", "evaluate"], p=[0.7, 0.25, 0.05]))]
    content, expected = (a.honest / name).read_bytes(), None
    if a.rng.random() < 0.5:
        damaged = mutations.damage_npz(content, a.rng, a.values)
    else:
        damaged = damage(content, a.rng, (a.honest / "half.npz").read_bytes())[0]
        names = (name, "pictures/png0-rgb.png")
        expected = a.results(words, names, folder.with_name("honest-checkpoint"))
    (folder / name).write_bytes(damaged)
    return Trial("checkpoints", "checkpoints", folder, words, 1, expected, decoded=lambda: len(content))


def resumed(a: Attacks, folder: Path) -> Trial:
    """Resume a training run whose newest state is damaged."""
    a.copy(folder, "outline")
    path = folder / "outline" / "last.npz"
    content, expected = path.read_bytes(), None
    if a.rng.random() < 0.6:
        path.write_bytes(mutations.damage_npz(content, a.rng, a.values))
    else:
        path.write_bytes(damage(content, a.rng, content[::-1])[0])
        kept = ("best.npz", "history.csv", "report.json")
        expected = {f"outline/{name}": (folder / "outline" / name).read_bytes() for name in kept}
    words = ["train", "--resume", "--out=outline", *OUTLINE]  # other settings would start long work
    return Trial(
        "resume",
        "checkpoints",
        folder,
        words,
        1,
        expected,
        may_change=("outline/",),
        decoded=lambda: len(content),
    )


def pytorch(a: Attacks, folder: Path) -> Trial:
    """Convert damaged weights of PyTorch."""
    name = f"{a.one_of(*NETWORKS)}{a.one_of('.npz', '.safetensors')}"
    content, expected = (a.honest / name).read_bytes(), None
    words = ["export", "--pytorch", name, "--steps=2", "--size=16", "--out=out.npz"]
    if a.rng.random() < 0.5:
        change = mutations.damage_npz if name.endswith("npz") else mutations.damage_safetensors
        damaged = change(content, a.rng, a.values)
    else:
        damaged, how = damage(content, a.rng, content[::-1])
        if name.endswith("npz") or how in ("cut", "remove", "repeat", "insert"):
            expected = a.results(words, (name,), folder.with_name("honest-weights"))
    (folder / name).write_bytes(damaged)
    return Trial("PyTorch weights", "others", folder, words, 1, expected, decoded=lambda: len(content))


# Tables, caches, studies


def labels(a: Attacks, folder: Path) -> Trial:
    """Evaluate a network on a data set with a damaged table of diagnoses."""
    a.copy(folder, "data", "ham", "both.npz")
    root, table = ("data", "labels.csv") if a.rng.random() < 0.5 else ("ham", "HAM10000_metadata.csv")
    path = folder / root / table
    path.write_bytes(_damaged_table(a, path))
    words = f"evaluate --data={root} --split=all --checkpoint=both.npz --json=out.json".split()
    return Trial("labels", "others", folder, words, decoded=lambda: 100_000)


def challenge_tables(a: Attacks, folder: Path) -> Trial:
    """Score diagnoses, with a damaged table."""
    a.copy(folder, "truth.csv", "predictions.csv")
    path = folder / a.one_of("truth.csv", "predictions.csv")
    path.write_bytes(_damaged_table(a, path))
    words = ["score", "truth.csv", "predictions.csv", "--json=out.json"]
    return Trial("challenge tables", "others", folder, words)


def metadata(a: Attacks, folder: Path) -> Trial:
    """Read the age and the sex of the patients from a damaged table."""
    from r2unet.commands.messages import print_error
    from r2unet.data.patients import read_patients
    from r2unet.errors import InputError

    a.copy(folder, "ham")
    path = folder / "ham" / "HAM10000_metadata.csv"
    path.write_bytes(_damaged_table(a, path))

    def run() -> int:
        try:
            patients = read_patients("ham", "all")
        except InputError as error:
            return print_error(error)
        return 0 if len(patients) == 12 else 3

    return Trial("metadata", "others", folder, ["(read_patients)"], run=run)


def _damaged_table(a: Attacks, path: Path) -> bytes:
    content = path.read_bytes()
    if a.rng.random() < 0.5:
        return damage(content, a.rng, (a.honest / "predictions.csv").read_bytes())[0]
    return mutations.damage_table(content.decode(), a.rng, a.cells)


def caches(a: Attacks, folder: Path) -> Trial:
    """Read a data set through a damaged cache: the images are those of the files."""
    from r2unet.data.folders import find_pairs
    from r2unet.data.lesion_images import LesionImages

    a.copy(folder, "cache")
    path = sorted((folder / "cache").glob("*.npy"))[a.rng.integers(2)]
    content = path.read_bytes()
    others = [p.read_bytes() for p in sorted((folder / "cache").glob("*.npy"))]
    path.write_bytes(damage(content, a.rng, b"".join(others))[0])

    def run() -> int:
        os.chdir(a.honest)
        for split in ("training", "validation"):
            pairs = find_pairs("data", split)
            plain, cached = (LesionImages(pairs, 16, cache=c) for c in (None, folder / "cache"))
            for one, other in zip(plain, cached, strict=True):
                if not (np.array_equal(one.image, other.image) and np.array_equal(one.mask, other.mask)):
                    return 3
        return 0

    expected = {f"cache/{path.name}": content}
    return Trial("caches", "others", folder, ["(LesionImages)"], 1, expected, ("cache/",), run=run)


def studies(a: Attacks, folder: Path) -> Trial:
    """Report on a study with a damaged plan or a damaged file of a run."""
    a.copy(folder, "study")
    paths = [folder / "study" / "study.json", *sorted((folder / "study").glob("*/seed-0/*.json"))]
    paths += sorted((folder / "study").glob("*/seed-0/*.csv"))
    path = Path(a.one_of(*map(str, paths)))
    content = path.read_bytes()
    if path.suffix == ".json" and a.rng.random() < 0.7:
        import json

        path.write_text(json.dumps(mutations.damage_json(json.loads(content), a.rng, a.values)))
    elif path.suffix == ".csv" and a.rng.random() < 0.6:
        path.write_bytes(mutations.damage_table(content.decode(), a.rng, a.cells))
    else:
        path.write_bytes(damage(content, a.rng, content[::-1])[0])
    return Trial(
        "studies", "others", folder, [*STUDY[:2], "--only-report", "--out=study"], 1, None, ("study/",)
    )


def checks(a: Attacks, folder: Path) -> Trial:
    """Check a damaged file of any kind with `r2unet check`."""
    other = a.one_of("checkpoints", "pytorch", "studies", "resumed", "masks", "caches")
    prepared = {"checkpoints": checkpoints, "pytorch": pytorch, "studies": studies, "resumed": resumed}
    prepared |= {"masks": masks, "caches": caches}
    trial = prepared[other](a, folder)
    names = [path.name for path in sorted(folder.iterdir())]
    sealed = other not in ("studies", "masks") and trial.expected is not None

    def check(trial: Trial, outcome: Outcome, new: Files) -> str:
        return "damage is called whole" if sealed and outcome.code == 0 and _matters(trial, a) else ""

    return Trial("checks", "others", folder, ["check", *names], decoded=trial.decoded, check=check)


def _matters(trial: Trial, a: Attacks) -> bool:
    """Return whether damage changed the content of a .npz file, and not only its unused bytes."""
    for name, content in trial.before.items():
        honest = a.honest / name
        if honest.suffix == ".npz" and honest.read_bytes() != content:
            return mutations.npz_arrays(content) != mutations.npz_arrays(honest.read_bytes())
    return False


# Not files at all


def special_files(a: Attacks, folder: Path) -> Trial:
    """Give a pipe, a device, a folder, a loop of links, an empty or a missing file as an input."""
    a.copy(folder, "both.npz", "pictures/png0-rgb.png", "U_Net.npz", "truth.csv", "masks")
    odd = a.one_of("pipe", "zero", "null", "folder", "loop", "empty", "missing", "dangling", "closed", "text")
    name = a.one_of("odd", "odd.png", "odd.npz", "odd.safetensors", "odd.csv", "odd.json")
    path = folder / name
    if odd == "pipe":
        os.mkfifo(path)
    elif odd in ("zero", "null", "loop", "dangling"):
        path.symlink_to({"zero": "/dev/zero", "null": "/dev/null", "loop": name}.get(odd, "nowhere"))
    elif odd == "folder":
        path.mkdir()
    elif odd != "missing":
        path.write_bytes(b"text" if odd == "text" else b"")
        path.chmod(0 if odd == "closed" else 0o600)
    image, words = "pictures/png0-rgb.png", a.rng.integers(12)
    words = [
        ["predict", name, "--checkpoint=both.npz", "--out=out"],
        ["predict", image, f"--checkpoint={name}", "--out=out"],
        ["export", name, "--out=out.npz"],
        ["export", "--pytorch", name, "--steps=2", "--out=out.npz"],
        ["score", "truth.csv", name],
        ["score", "masks", name],
        ["evaluate", "--checkpoint=both.npz", f"--data={name}"],
        ["train", *DATA[:-3], f"--data={name}", "--out=out"],
        ["train", "--resume", f"--out={name}", *DATA[:-3], "--data=nowhere"],
        ["explain", name, "--checkpoint=both.npz", "--out=out.png"],
        ["compare", "own", f"--out={name}", "--only-report"],
        ["train", "--size=16", f"--from={name}", "--widths=2,4", "--images=4", "--out=out"],
    ][words]
    return Trial("special files", "others", folder, words, partial=False)

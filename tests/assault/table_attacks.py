"""Attacks on tables, caches, studies, and on what `r2unet check` says of damaged files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from tests.assault import mutations
from tests.assault.attacks import Attacks
from tests.assault.honest import STUDY
from tests.assault.image_attacks import masks
from tests.assault.jail import Outcome
from tests.assault.mutations import damage
from tests.assault.trial import Files, Trial
from tests.assault.weight_attacks import checkpoints, pytorch, resumed


def labels(a: Attacks, folder: Path) -> Trial:
    """Evaluate a network on a data set with a damaged table of diagnoses."""
    a.copy(folder, "data", "ham", "both.npz")
    root, table = ("data", "labels.csv") if a.rng.random() < 0.5 else ("ham", "HAM10000_metadata.csv")
    path = folder / root / table
    path.write_bytes(_damaged_table(a, path))
    words = f"evaluate --data={root} --split=all --checkpoint=both.npz --json=out.json".split()
    return Trial("labels", folder, words, decoded=lambda: 100_000)


def challenge_tables(a: Attacks, folder: Path) -> Trial:
    """Score diagnoses, with a damaged table."""
    a.copy(folder, "truth.csv", "predictions.csv")
    path = folder / a.one_of("truth.csv", "predictions.csv")
    path.write_bytes(_damaged_table(a, path))
    words = ["score", "truth.csv", "predictions.csv", "--json=out.json"]
    return Trial("challenge tables", folder, words)


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

    return Trial("metadata", folder, ["(read_patients)"], run=run)


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
    return Trial("caches", folder, ["(LesionImages)"], 1, expected, ("cache/",), run=run)


def studies(a: Attacks, folder: Path) -> Trial:
    """Report on a study with a damaged plan or a damaged file of a run."""
    a.copy(folder, "study")
    paths = [folder / "study" / "study.json", *sorted((folder / "study").glob("*/seed-0/*.json"))]
    paths += sorted((folder / "study").glob("*/seed-0/*.csv"))
    path = Path(a.one_of(*map(str, paths)))
    content = path.read_bytes()
    if path.suffix == ".json" and a.rng.random() < 0.7:
        path.write_text(json.dumps(mutations.damage_json(json.loads(content), a.rng, a.values)))
    elif path.suffix == ".csv" and a.rng.random() < 0.6:
        path.write_bytes(mutations.damage_table(content.decode(), a.rng, a.cells))
    else:
        path.write_bytes(damage(content, a.rng, content[::-1])[0])
    return Trial("studies", folder, [*STUDY[:2], "--only-report", "--out=study"], 1, None, ("study/",))


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

    return Trial("checks", folder, ["check", *names], decoded=trial.decoded, check=check)


def _matters(trial: Trial, a: Attacks) -> bool:
    """Return whether damage changed the content of a .npz file, and not only its unused bytes."""
    for name, content in trial.before.items():
        honest = a.honest / name
        if honest.suffix == ".npz" and honest.read_bytes() != content:
            return mutations.npz_arrays(content) != mutations.npz_arrays(honest.read_bytes())
    return False

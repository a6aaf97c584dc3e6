"""Attacks on checkpoints and weights."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from minidl import checkpoint
from minidl.npz import END
from r2unet.network.model import NETWORKS as MODELS
from r2unet.training.checkpoints import checkpoint_header
from r2unet.training.settings import Settings, new_model
from tests.assault import mutations
from tests.assault.attacks import Attacks
from tests.assault.honest import NETWORKS, OUTLINE
from tests.assault.mutations import damage
from tests.assault.trial import Trial


def checkpoints(a: Attacks, folder: Path) -> Trial:
    """Predict, export or evaluate with a damaged checkpoint."""
    name = a.one_of("both.npz", "half.npz", "plain.npz", "plain/best.npz", "both/best.npz")
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
    return Trial("checkpoints", folder, words, 1, expected, decoded=lambda: len(content))


def resumed(a: Attacks, folder: Path) -> Trial:
    """Resume a training run whose newest state is damaged."""
    a.copy(folder, "plain")
    path = folder / "plain" / "last.npz"
    content, expected = path.read_bytes(), None
    if a.rng.random() < 0.6:
        path.write_bytes(mutations.damage_npz(content, a.rng, a.values))
    else:
        path.write_bytes(damage(content, a.rng, content[::-1])[0])
        kept = ("best.npz", "history.csv", "report.json")
        expected = {f"plain/{name}": (folder / "plain" / name).read_bytes() for name in kept}
    words = ["train", "--resume", "--out=plain", *OUTLINE]  # other settings would start long work
    return Trial(
        "resume",
        folder,
        words,
        1,
        expected,
        may_change=("plain/",),
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
    return Trial("PyTorch weights", folder, words, 1, expected, decoded=lambda: len(content))


def claimed_sizes(a: Attacks, folder: Path) -> Trial:
    """Use a whole checkpoint that claims any size and number of its images, and any size of its batches."""
    a.copy(folder, "pictures/png0-rgb.png", "data")
    task = a.one_of("outline", "both", "diagnosis")
    state = claimed_state(a, task)
    checkpoint.save(folder / "claimed.npz", state)
    words = [
        ["predict", "pictures/png0-rgb.png", "--out=out"],
        ["predict", "pictures/png0-rgb.png", "--out=out", "--tta"],
        ["explain", "pictures/png0-rgb.png", "--out=out.png"],
        ["evaluate", "--json=out.json"],
        ["evaluate", "--json=out.json", "--images=3"],
        ["evaluate", "--json=out.json", "--images=3", "--overlays=out.png"],
        ["evaluate", "--json=out.json", "--data=data", "--split=validation"],
    ][a.rng.integers(7)]
    size = (folder / "claimed.npz").stat().st_size
    return Trial("claimed sizes", folder, [*words, "--checkpoint=claimed.npz"], decoded=lambda: size)


def claimed_runs(a: Attacks, folder: Path) -> Trial:
    """Report on a finished run or a study whose checkpoint claims any size of its images."""
    words, run = [
        (["report", "plain", "--out=out.html"], "plain"),
        (["report", "plain", "--out=out.html", "--pictures=24"], "plain"),
        (["compare", "own", "--only-report", "--out=study"], "study/a/seed-0"),
    ][a.rng.integers(3)]
    a.copy(folder, run.partition("/")[0])
    best = folder / run / "best.npz"
    state, claimed = checkpoint.load(best), claimed_state(a, "outline")
    checkpoint.save(best, state | claimed)
    size = best.stat().st_size
    return Trial("claimed runs", folder, words, may_change=("study/",), partial=True, decoded=lambda: size)


def claimed_state(a: Attacks, task: str) -> dict[str, Any]:
    """Return a checkpoint of any network that claims any size of its images."""
    channels = [int(2 ** a.rng.uniform(0, 6)) for _ in range(a.rng.integers(1, 7))]
    multiple = 2 ** (len(channels) - 1)
    settings = Settings(
        model=a.one_of(*MODELS),
        task=task,
        norm=a.one_of("per-step", "group"),
        up=a.one_of("transposed", "nearest"),
        pooled_levels=a.one_of("bottleneck", "all"),
        widths=tuple(channels),
        size=multiple * int(2 ** a.rng.uniform(2, np.log2(4096 / multiple))),
        batch_size=int(2 ** a.rng.uniform(0, 12)),
        images=int(a.one_of("10", "100", "6000", "1000000")),  # a fifth of them is evaluated, or refused
    ).check()
    return {**checkpoint_header(settings), "model": new_model(settings, a.rng).state_dict()}


def directories(a: Attacks, folder: Path) -> Trial:
    """Read a zip whose directory has very many entries, or whose records at the end were changed."""
    name = a.one_of("both.npz", "U_Net.npz")
    content = bytearray((a.honest / name).read_bytes())
    if a.rng.random() < 0.3:
        entry = struct.Struct("<4s6H3L5H2L").pack(b"PK\1\2", *[0] * 9, 1, *[0] * 6)
        directory = (entry + b"a") * int(2 ** a.rng.uniform(10, 19))
        count = min(len(directory) // 47, 0xFFFF)
        content = directory + END.pack(b"PK\5\6", 0, 0, count, count, len(directory), 0, 0)
    else:
        tail = damage(bytes(content[-98:]), a.rng)[0]
        content[-98:] = tail
    (folder / name).write_bytes(content)
    words = {
        "both.npz": ["export", name, "--out=out.npz"],
        "U_Net.npz": ["export", "--pytorch", name, "--steps=2", "--size=16", "--out=out.npz"],
    }[name]
    size = (a.honest / name).stat().st_size
    return Trial("directories", folder, words, decoded=lambda: size)


def trees(a: Attacks, folder: Path) -> Trial:
    """Read a checkpoint whose tree is whole, and consists of very many small values."""
    value = a.one_of("[]", "{}", '{"a":1}', "[[]]", "0", '""', "[0.5,1]", '"皮"')
    text = ",".join([value] * int(2 ** a.rng.uniform(10, 20)))
    tree = f'{{"format": "{checkpoint.FORMAT}", "tree": {{"program": "r2unet", "history": [{text}]}}}}'
    np.savez(folder / "tree.npz", tree=np.array(tree))
    size = (folder / "tree.npz").stat().st_size
    return Trial("trees", folder, ["export", "tree.npz", "--out=out.npz"], decoded=lambda: size)

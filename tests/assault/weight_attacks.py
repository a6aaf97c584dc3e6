"""Attacks on checkpoints and weights."""

from __future__ import annotations

from pathlib import Path

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

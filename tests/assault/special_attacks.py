"""Attacks with what is no regular file, and with full disks."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from r2unet.commands.main import main
from tests.assault.attacks import Attacks
from tests.assault.honest import DATA, OUTLINE, STUDY, VARIANTS
from tests.assault.image_attacks import MASK, is_whole
from tests.assault.jail import Outcome
from tests.assault.mutations import npz_arrays
from tests.assault.trial import Files, Trial


def full_disks(a: Attacks, folder: Path) -> Trial:
    """Run a command whose files may not grow beyond a limit, as on a full disk: it loses nothing."""
    a.copy(folder, "both.npz", "both/best.npz", "pictures/png0-rgb.png", "masks")
    words = [
        ["predict", "pictures/png0-rgb.png", "--checkpoint=both.npz", "--out=out"],
        ["export", "both/best.npz", "--out=out.npz"],
        ["score", "masks", "masks", "--json=out.json"],
        ["train", *OUTLINE, "--out=out"],
        ["evaluate", "--checkpoint=both.npz", "--json=out.json"],
    ][a.rng.integers(5)]
    limit = int(2 ** a.rng.uniform(6, 16))

    def run() -> int | None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            return main(words)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    return Trial(
        "full disks",
        folder,
        words,
        partial=True,
        run=run,
        check=_all_whole,
        decoded=lambda: 1 << 20,
    )


def _all_whole(trial: Trial, outcome: Outcome, new: Files) -> str:
    """Return a new file that is half-written, although it has its final name."""
    for name, content in new.items():
        if name.endswith(".npz") and not npz_arrays(content):
            return f"{name} is half-written"
        if name.endswith(MASK) and not is_whole(content):
            return f"{name} is half-written"
    return ""


def special_folders(a: Attacks, folder: Path) -> Trial:
    """Put what is no regular file in the place of a file of a run, a study or a data set."""
    name, words = [
        ("plain", ["train", "--resume", "--out=plain", *OUTLINE]),
        ("plain", ["check", "plain"]),
        ("study", [*STUDY, "--out=study"]),
        ("study", [*STUDY[:2], "--only-report", "--out=study"]),
        ("study", [*STUDY, *VARIANTS, "--reuse=study", "--out=out"]),
        ("study", ["check", "study"]),
        ("data", ["evaluate", "--data=data", "--split=all", "--checkpoint=both.npz"]),
        ("data", ["predict", "data/images", "--checkpoint=both.npz", "--out=out"]),
        ("data", ["train", *DATA, "--cache=cache", "--out=out"]),
        ("cache", ["check", "cache"]),
        ("masks", ["score", "masks", "masks"]),
    ][a.rng.integers(11)]
    a.copy(folder, "both.npz", name)
    files = [path for path in sorted((folder / name).rglob("*")) if path.is_file()]
    path = files[a.rng.integers(len(files))]
    path.unlink()
    _put(path, a.one_of("pipe", "zero", "null", "folder", "loop", "dangling", "empty", "missing"))
    return Trial(
        "special folders",
        folder,
        words,
        partial=True,
        may_change=("plain/", "study/", "cache/"),
        decoded=lambda: 1 << 20,
    )


def special_files(a: Attacks, folder: Path) -> Trial:
    """Give a pipe, a device, a folder, a loop of links, an empty or a missing file as an input."""
    a.copy(folder, "both.npz", "pictures/png0-rgb.png", "U_Net.npz", "truth.csv", "masks")
    odd = a.one_of("pipe", "zero", "null", "folder", "loop", "empty", "missing", "dangling", "closed", "text")
    name = a.one_of("odd", "odd.png", "odd.npz", "odd.safetensors", "odd.csv", "odd.json")
    _put(folder / name, odd)
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
    return Trial("special files", folder, words)


def _put(path: Path, odd: str) -> None:
    """Make something that is no regular file, or an odd one."""
    if odd == "pipe":
        os.mkfifo(path)
    elif odd in ("zero", "null", "loop", "dangling"):
        path.symlink_to({"zero": "/dev/zero", "null": "/dev/null", "loop": path.name}.get(odd, "nowhere"))
    elif odd == "folder":
        path.mkdir()
    elif odd != "missing":
        path.write_bytes(b"text" if odd == "text" else b"")
        path.chmod(0 if odd == "closed" else 0o600)

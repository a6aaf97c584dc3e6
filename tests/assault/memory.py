"""Measures how much memory the largest checkpoints that are used without a question take in each command.

    OPENBLAS_NUM_THREADS=1 python -m tests.assault.memory [COMMAND ...]

The checkpoints claim the largest size of images below the limit of `r2unet.training.prediction_memory`, and
the weights of one of them turn an image into noise, whose outline is as long as an outline can be. Each
command runs in a process of its own, first with a tiny checkpoint, which imports what the command needs and
draws its figures. What is printed is the peak of resident memory above what the process had then.
"""

from __future__ import annotations

import dataclasses
import gc
import io
import re
import shlex
import shutil
import sys
import tempfile
from contextlib import chdir, redirect_stderr, redirect_stdout
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from minidl import Tensor, checkpoint, no_grad
from minidl.allocator import release_freed_memory
from minidl.profiler import MiB
from r2unet.commands.main import main
from r2unet.data.sample import to_input
from r2unet.data.synthetic import make_lesion
from r2unet.errors import InputError
from r2unet.network.model import UShape
from r2unet.training import prediction_memory
from r2unet.training.checkpoints import checkpoint_header, read_state
from r2unet.training.settings import Settings, new_model
from tests.assault.trial import FACTOR, MEMORY

DEFAULT = (8, 16, 32, 64)
NETWORKS: dict[str, dict[str, Any]] = {
    "one channel": {"widths": (1,)},
    "noise": {"widths": (1,)},
    "100 steps": {"widths": (1,), "steps": 100, "norm": "group"},
    "default widths": {"widths": DEFAULT},
    "all levels": {"widths": (1, 4, 16, 64), "pooled_levels": "all"},
    "attention": {"widths": DEFAULT, "model": "r2-attention-unet", "tie_weights": False},
}
LESIONS = 12  # that evaluate generates
COMMANDS = {  # NAME is a checkpoint, with NAME/ as a run and NAME-study/ as a study of two runs
    "predict --tta": "predict image.png --checkpoint NAME.npz --tta --out out",
    "predict --overlay": "predict image.png --checkpoint NAME.npz --overlay --out out",
    "explain": "explain image.png --checkpoint NAME.npz --out explained.png",
    "evaluate": "evaluate --checkpoint NAME.npz",
    "evaluate --overlays": "evaluate --checkpoint NAME.npz --overlays overlays.png",
    "evaluate --figures": "evaluate --checkpoint NAME.npz --figures figures",
    "report": "report NAME --out report.html",
    "report --pictures 24": "report NAME --out report.html --pictures 24",
    "compare --only-report": "compare own --only-report --out NAME-study",
}
TRAINING = "--size=16 --widths=2,4 --epochs=1 --images=120 --device=cpu --batch-size=8"


def run(line: str) -> None:
    """Run a command that must succeed."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as errors:
        code = main(shlex.split(line))
    assert code == 0, f"{line}: {errors.getvalue()}"


def peak(folder: str, command: str, name: str) -> int:
    """Return the peak of resident memory in bytes, above that of this process, in a new process."""
    with chdir(folder):
        run(command.replace("NAME", "tiny"))
        gc.collect()
        release_freed_memory()
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before = kilobytes("VmRSS")
        run(command.replace("NAME", name))
        return (kilobytes("VmHWM") - before) * 1024


def kilobytes(field: str) -> int:
    return int(re.search(rf"^{field}:\s+(\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)[1])


def make_files() -> None:
    """Write an image, and the checkpoints, runs and studies of all networks, in the current directory."""
    run(f"train {TRAINING} --out trained")
    run(f"compare own {TRAINING} --seeds=0 --variant 'a: steps=1' --variant 'b: steps=3' --out studied")
    Image.fromarray(make_lesion(64, np.random.default_rng(0))[0]).save("image.png")
    tiny = dataclasses.replace(Settings(widths=(2, 4), size=16, task="both"), images=5 * LESIONS)
    write("tiny", tiny, new_model(tiny, np.random.default_rng(0)))
    for name, options in NETWORKS.items():
        settings = largest(Settings(**options, task="both", images=5 * LESIONS))
        model = new_model(settings, np.random.default_rng(0))
        if name == "noise":
            make_noise(model, settings.size)
        write(name.replace(" ", "-"), settings, model)


def write(name: str, settings: Settings, model: UShape) -> None:
    """Write a checkpoint, and a run and a study with it: their other files are those of tiny ones."""
    weights = model.state_dict()
    checkpoint.save(f"{name}.npz", {**checkpoint_header(settings), "model": weights})
    shutil.copytree("trained", name)
    shutil.copytree("studied", f"{name}-study")
    for best in (Path(name) / "best.npz", *Path(f"{name}-study").glob("*/*/best.npz")):
        state = read_state(best)
        claimed = dataclasses.replace(settings, task="outline", images=120)
        state["settings"] |= checkpoint_header(claimed)["settings"]
        state["model"] = {key: array for key, array in weights.items() if not key.startswith("diagnosis.")}
        checkpoint.save(best, state)


def largest(settings: Settings) -> Settings:
    """Return the settings with the largest size that is used without a question."""
    weights = new_model(settings, np.random.default_rng(0)).state_dict()
    while True:
        larger = dataclasses.replace(settings, size=settings.size + settings.multiple)
        try:
            prediction_memory.check_size("", larger, weights)
        except InputError:
            return settings
        settings = larger


def make_noise(model: UShape, size: int) -> None:
    """Change the weights so that every convolution amplifies noise, and half of the answers are lesion."""
    rng, weights = np.random.default_rng(5), model.eval().state_dict()
    for name, array in weights.items():
        if name.endswith("conv.weight"):
            array[...] = 2 * rng.standard_normal(array.shape)
            array[..., 1, 1] -= array.sum()
    weights["head.weight"][...] = 1000
    model.load_state_dict(weights)
    with no_grad():
        answer = model.answer(Tensor(to_input([make_lesion(size, rng)[0]]))).outline.data
    weights["head.bias"][...] -= np.median(answer)
    model.load_state_dict(weights)


def measure(commands: list[str]) -> None:
    """Print a table of the peaks."""
    with tempfile.TemporaryDirectory() as folder:
        with chdir(folder):
            make_files()
        print("| command | network | peak, MiB | allowed, MiB |\n|---|---|---|---|")
        for title in commands:
            for network in NETWORKS:
                name = network.replace(" ", "-")
                allowed = MEMORY + FACTOR * (Path(folder) / f"{name}.npz").stat().st_size
                with get_context("spawn").Pool(1) as pool:
                    taken = pool.apply(peak, (folder, COMMANDS[title], name))
                print(f"| `{title}` | {network} | {taken / MiB:.0f} | {allowed / MiB:.0f} |", flush=True)


if __name__ == "__main__":
    measure(sys.argv[1:] or list(COMMANDS))

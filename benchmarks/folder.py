"""The prediction of a folder of photographs: in one process, in several, and in PyTorch.

Each does what `r2unet predict` does, one photograph after the other: read the file, shrink it, run the
network once, enlarge the probabilities, write the mask. Only the network differs: PyTorch computes it with
all its threads. The processes are started once, as for one command, and sleep while another contender is
timed. Run as a program, this file predicts a folder once and prints the peak memory of all its processes,
which counts shared pages twice:

    python -m benchmarks.folder "r2unet, 2 processes" FOLDER 128 2

The arguments are the contender, the folder, the side of the network's images, and PyTorch's threads.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.agreement import TOLERANCE, Disagreement
from benchmarks.frameworks import OWN, import_torch_reference, installed, set_torch_threads
from benchmarks.networks import SETTINGS, draw
from benchmarks.plan import STEPS
from benchmarks.processes import ROOT, peak_bytes
from benchmarks.shared import PROCESSES
from benchmarks.timing import Spread, interleave, ratios, spread
from minidl import Tensor
from minidl.allocator import keep_freed_memory
from r2unet.data.images import read_mask
from r2unet.data.synthetic import make_lesion
from r2unet.network.fold import fold_all
from r2unet.network.model import Answer, R2UNet
from r2unet.prediction.photographs import MASK_SUFFIX, Predictor
from r2unet.processes import Processes

SHARED = f"{OWN}, {PROCESSES} processes"
PEAK = "peak"  # a task that asks a process for its memory

Work = Callable[[Path | str], Any]


class TorchModel:
    """PyTorch's network, with the attributes of a model that `Predictor` uses."""

    task, training, multiple = SETTINGS.task, False, SETTINGS.multiple

    def __init__(self, state: dict[str, np.ndarray]) -> None:
        import torch

        self.torch, self.reference = torch, import_torch_reference()
        self.weights = {name: torch.tensor(array) for name, array in state.items()}

    def answer(self, x: Tensor) -> Answer:
        """Return the logits, (N, 3, H, W) -> (N, 1, H, W)."""
        with self.torch.no_grad():
            images = self.torch.from_numpy(np.ascontiguousarray(x.data))
            logits = self.reference.r2unet(self.weights, images, len(SETTINGS.widths), STEPS, training=False)
        return Answer(Tensor(logits.numpy()), None)


def new_work(name: str, size: int, out: Path) -> Work:
    """Return what one process of a contender does: photograph -> Result, with the mask written to `out`."""
    keep_freed_memory()  # like the r2unet command
    state = draw(1, size, np.random.default_rng(0)).state
    if name == "PyTorch":
        model = TorchModel(state)
    else:
        model = R2UNet(widths=SETTINGS.widths, steps=STEPS, rng=np.random.default_rng(0))
        model.load_state_dict(state)
        model = fold_all(model.eval())
    predictor = Predictor(model, size, out)
    return lambda task: peak_bytes() if task == PEAK else predictor(task)


def contenders() -> list[str]:
    """Return the names of all contenders."""
    return [SHARED, OWN, *(name for name in installed() if name == "PyTorch")]


@contextmanager
def predicting(name: str, size: int, out: Path) -> Iterator[Callable[[list[Any]], list[Any]]]:
    """Yield a function that does a list of tasks."""
    if name == SHARED:
        with Processes(partial(new_work, name, size, out), PROCESSES) as processes:
            yield lambda tasks: list(processes.map(tasks))
    else:
        work = new_work(name, size, out)
        yield lambda tasks: list(map(work, tasks))


def write_photographs(folder: Path, side: int, count: int) -> list[Path]:
    """Write generated lesions of side x side pixels into an empty folder, as JPEGs."""
    from PIL import Image

    rng, files = np.random.default_rng(0), [folder / f"lesion_{i:03}.jpg" for i in range(count)]
    for file in files:
        Image.fromarray(make_lesion(side, rng)[0]).save(file, quality=95)
    return files


def measure(side: int, size: int, count: int, repeats: int, torch_threads: int) -> dict[str, Any]:
    """Return each contender's seconds for one photograph, the ratios, and the memory of all its processes."""
    with tempfile.TemporaryDirectory() as root, ExitStack() as stack:
        outs = {name: Path(root) / name for name in contenders()}
        photographs = Path(root) / "photographs"
        for folder in (photographs, *outs.values()):
            folder.mkdir()
        files = write_photographs(photographs, side, count)
        calls = {
            name: partial(stack.enter_context(predicting(name, size, out)), files)
            for name, out in outs.items()
        }
        for call in calls.values():
            call()
        check_masks(outs, files)
        seconds = interleave(calls, repeats)
        peaks = {name: peak_of(name, photographs, size, torch_threads) for name in outs}
    return {
        "times": {name: spread(s / count for s in values) for name, values in seconds.items()},
        "ratios": ratios(seconds, SHARED),
        "memory": {name: Spread(peak, peak, peak) for name, peak in peaks.items()},
    }


def check_masks(outs: dict[str, Path], files: list[Path]) -> None:
    """Raise Disagreement unless the masks in all folders agree, but for a thousandth of their pixels."""
    masks = {
        name: np.array([read_mask(out / f"{file.stem}{MASK_SUFFIX}") for file in files])
        for name, out in outs.items()
    }
    for name, theirs in masks.items():
        share = float((theirs != masks[OWN]).mean())
        if share > TOLERANCE:
            raise Disagreement(f"{name}: {share:.1%} of the pixels of the masks differ from ours")


def peak_of(name: str, photographs: Path, size: int, torch_threads: int) -> int:
    """Return the peak memory in bytes of a fresh process that predicts a folder, and of those it starts."""
    words = [sys.executable, "-m", "benchmarks.folder", name, photographs, size, torch_threads]
    done = subprocess.run(list(map(str, words)), cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout)


def predict_once(name: str, photographs: Path, size: int) -> int:
    """Predict a folder and return the peak memory of this process and of those that it starts."""
    with tempfile.TemporaryDirectory() as out, predicting(name, size, Path(out)) as do:
        do(sorted(photographs.iterdir()))
        if name != SHARED:
            return peak_bytes()
        return peak_bytes() + sum(do([PEAK] * PROCESSES))  # `map` gives each process one


if __name__ == "__main__":
    contender, images, network_size, threads = sys.argv[1:]
    if contender == "PyTorch":
        set_torch_threads(int(threads))
    print(predict_once(contender, Path(images), int(network_size)))

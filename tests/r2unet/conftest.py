"""What the tests of training, evaluation, prediction and the command line share: tiny data, tiny networks."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from r2unet.commands.main import main
from r2unet.data.synthetic import make_lesion
from r2unet.training.run_folder import load_datasets
from r2unet.training.settings import Settings
from r2unet.training.trainer import Trainer

# 10 images in 3 batches, the last of 2; and the same as options
TINY = Settings(size=16, widths=(2, 4), batch_size=4, epochs=2, images=10)
OPTIONS = ["--size=16", "--widths=2,4", "--batch-size=4", "--epochs=2", "--images=10", "--device=cpu"]


def write_lesion(root: Path, split: str, number: int) -> None:
    """Put a generated lesion of 32 x 24 pixels, wider than high, into the folders of ISIC 2017."""
    image, mask = make_lesion(32, np.random.default_rng(number))
    for folder, name, array in (
        ("Data", f"ISIC_{number:07}.jpg", image),
        ("Part1_GroundTruth", f"ISIC_{number:07}_segmentation.png", mask * np.uint8(255)),
    ):
        path = root / f"ISIC-2017_{split}_{folder}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array[4:28]).save(path)


@pytest.fixture
def isic(tmp_path: Path) -> Path:
    """A folder laid out like ISIC 2017, with 5 lesions for training and 3 for validation."""
    root = tmp_path / "isic"
    for number in range(8):
        write_lesion(root, "Training" if number < 5 else "Validation", number)
    return root


@pytest.fixture
def tiny() -> list[str]:
    """The options of a training that takes a second."""
    return list(OPTIONS)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that this training left, never stopped; never write into it."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["train", *OPTIONS, "--out", str(out)]) == 0
    return out


@pytest.fixture
def new_trainer():
    """Return a function that makes this training, or one of other settings or of another kind of Trainer."""

    def make(out: Path, kind: type[Trainer] = Trainer, **more: Any) -> Trainer:
        names = [name for name in more if hasattr(TINY, name)]
        settings = dataclasses.replace(TINY, **{name: more.pop(name) for name in names})
        return kind(
            settings, out, *load_datasets(settings), **{"threads": 0, "log": lambda line: None, **more}
        )

    return make


@pytest.fixture
def r2unet(capsys: pytest.CaptureFixture):
    """Return a function that runs a command line in this process and returns (exit code, stdout, stderr)."""

    def run(*words: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as stop:  # argparse ends --help and a wrong option by itself
            code = stop.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def program():
    """Return a function that starts a command line as a program of its own; `code` may come in its place."""

    def start(*words: str | Path, code: str = "sys.exit(main())", **more: Any) -> subprocess.Popen:
        command = [
            sys.executable,
            "-c",
            f"import sys; from r2unet.commands.main import main\n{code}",
            *map(str, words),
        ]
        # Output is buffered, as a person's is, whatever runs the tests.
        env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        env["OPENBLAS_NUM_THREADS"] = "1"  # each thread reserves memory, which some tests limit
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": env}
        return subprocess.Popen(command, **{**options, **more})

    return start


@pytest.fixture(scope="session")
def lee_reference() -> dict[str, np.ndarray]:
    """What `tests/torch_lee.py` stored: LeeJunHyun's four networks, an input, and their outputs for it."""
    with np.load(Path(__file__).parents[1] / "lee_reference.npz") as file:
        return dict(file)


@pytest.fixture
def lee_state(lee_reference: dict[str, np.ndarray]):
    """Return a function that gives the state_dict that PyTorch stored for a network."""

    def of(name: str) -> dict[str, np.ndarray]:
        start = f"{name}/state/"
        return {n.removeprefix(start): a.copy() for n, a in lee_reference.items() if n.startswith(start)}

    return of

"""A small study that the tests of this folder share."""

import csv
from pathlib import Path

import pytest

from r2unet.commands.main import main
from tests.r2unet.conftest import write_lesion

# Two rows with two seeds, 6 and 2 images of 16 pixels, two epochs of two steps.
ROWS = ["--variant=U-Net: model=unet", "--variant=R2U-Net: steps=1"]
SMALL = ["--size=16", "--widths=2,4", "--batch-size=4", "--epochs=2", "--device=cpu"]


def read_table(out: Path) -> list[dict[str, str]]:
    """The lines of table.csv without their times."""
    lines = list(csv.DictReader((out / "table.csv").read_text().splitlines()))
    return [{name: value for name, value in line.items() if name != "seconds_per_epoch"} for line in lines]


def trainings(out: Path) -> list[str]:
    """The folders of the trainings that have been started."""
    return sorted(path.parent.relative_to(out).as_posix() for path in out.glob("*/*/last.npz"))


@pytest.fixture(scope="session")
def isic_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the layout of ISIC 2017, with 5 lesions for training and 3 for validation."""
    root = tmp_path_factory.mktemp("data") / "isic"
    for number in range(8):
        write_lesion(root, "Training" if number < 5 else "Validation", number)
    return root


@pytest.fixture(scope="session")
def study(isic_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder and the command of a finished study that was not interrupted; tests only read it."""
    out = tmp_path_factory.mktemp("studies") / "own"
    words = ["compare", "own", *ROWS, *SMALL, "--data", str(isic_root)]
    assert main([*words, "--out", str(out)]) == 0
    return out, words

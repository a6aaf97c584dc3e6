"""What is said about kills of one of several processes; the kills are a program of their own."""

import shutil
import sys

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("the assault needs Linux", allow_module_level=True)

from r2unet.commands.main import main
from tests.assault.process_kills import OPTIONS, Kill, left_in, rows_of, summary

KEPT = Kill(0, 1.5, "1 epochs, 0 batches", 2, 1, 0.25, True, True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of the training that is killed, never stopped."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", *OPTIONS, "--out", str(out)]) == 0
    return out


def test_what_is_left_is_read_from_the_checkpoints(run, tmp_path):
    assert left_in(run) == ("4 epochs, 0 batches", True)
    assert left_in(tmp_path) == ("nothing yet", True)


@pytest.mark.parametrize("name", ["last.npz", "best.npz"])
def test_a_damaged_checkpoint_is_noticed(run, tmp_path, name):
    shutil.copytree(run, tmp_path / "run")
    content = bytearray((run / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "run" / name).write_bytes(content)
    assert left_in(tmp_path / "run") == ("damaged", False)


@pytest.mark.parametrize("broken", [{"code": 0}, {"lines": 2}, {"whole": False}, {"same": False}])
def test_each_promise_counts(broken):
    assert KEPT.kept and not KEPT._replace(**broken).kept


def test_the_table_and_its_summary():
    kills = [KEPT, KEPT._replace(rank=1, stopped=0.5, left="nothing yet"), KEPT._replace(same=False)]
    assert rows_of(kills).splitlines()[2] == ("| 0 | 1.50 s | 1 epochs, 0 batches | 2 | 0.25 s | yes | yes |")
    assert rows_of(kills).splitlines()[4].endswith("| yes | NO |")
    assert summary(kills, 2) == (
        "3 kills in 2 processes (rank 0 2 times, rank 1 1 times), 1 of them before the first epoch was "
        "saved: exit code 2 and one line in 3, all stopped within 0.50 s, checkpoints whole in 3, resumed to "
        "the same bytes in 2."
    )

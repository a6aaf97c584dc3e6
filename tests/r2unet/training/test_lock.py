"""One process at a time trains into a folder; the second one is told which process that is."""

import os
import platform
import signal
from pathlib import Path

import pytest

from r2unet.errors import InputError
from r2unet.training.lock import LOCK, locked

# Starts a training that is stopped, with SIGSTOP, after its first step.
PAUSED = """
import os, signal
from r2unet.training.trainer import Trainer

def step(self, batch, _step=Trainer.train_step):
    _step(self, batch)
    print("paused", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)

Trainer.train_step = step
sys.exit(main())
"""


@pytest.fixture
def paused(program):
    """A function that starts a command, and returns its process when its first step is done."""
    children = []

    def start(*words):
        child = program(*words, code=PAUSED)
        children.append(child)
        while "paused" not in (line := child.stdout.readline()):
            assert line, child.stderr.read()
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


class TestTwoProcesses:
    def test_train_refuses_the_folder_of_a_running_training(self, r2unet, paused, tiny, tmp_path):
        out = tmp_path / "a"
        child = paused("train", *tiny, "--out", out)
        for more in ([], ["--resume"]):
            code, _, err = r2unet("train", *tiny, "--out", out, *more)
            assert code == 2 and err.count("\n") == 1
            assert f"--out {out}: process {child.pid} on {platform.node()} trains into this folder" in err
        assert names(out) == {LOCK}
        assert r2unet("train", *tiny, "--out", out, "--profile")[0] == 0

    def test_after_a_kill_the_next_one_trains(self, r2unet, paused, tiny, tmp_path):
        child = paused("train", *tiny, "--out", tmp_path / "a")
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert r2unet("train", *tiny, "--out", tmp_path / "a")[0] == 0
        assert LOCK not in names(tmp_path)

    def test_compare_locks_the_study_and_the_run(self, r2unet, paused, tiny, tmp_path):
        study = "compare", "own", "--variant", "a: steps=1", "--variant", "b: steps=2", "--seeds", "0"
        words = *study, *tiny, "--out", tmp_path / "s"
        paused(*words)
        code, _, err = r2unet(*words)
        assert code == 2 and f"--out {tmp_path / 's'}: process " in err
        (run,) = {path.parent for path in (tmp_path / "s").rglob(LOCK)} - {tmp_path / "s"}
        code, _, err = r2unet("train", *tiny, "--resume", "--out", run)
        assert code == 2 and f"--out {run}: process " in err
        code, _, err = r2unet(*words[:2], "--only-report", "--out", tmp_path / "s")
        assert "trains into this folder" not in err


class TestLeavesNoTrace:
    def test_after_an_early_error(self, r2unet, tiny, tmp_path):
        out = tmp_path / "new" / "folder"
        assert r2unet("train", *tiny, "--out", out, "--from", tmp_path / "none.npz")[0] == 2
        assert list(tmp_path.iterdir()) == []

    def test_in_a_folder_that_existed(self, tmp_path):
        with locked("--out", tmp_path):
            assert names(tmp_path) == {LOCK}
        assert names(tmp_path) == set() and tmp_path.exists()

    def test_of_the_lock_of_a_folder_that_was_deleted_and_made_again(self, tmp_path):
        out = tmp_path / "a"
        with locked("--out", out):
            (out / LOCK).unlink()
            with locked("--out", out):
                pass
            (out / LOCK).write_text("of another process")
        assert names(out) == {LOCK}


def test_a_lock_that_is_removed_while_it_is_opened_is_created_again(tmp_path, monkeypatch):
    """As when the process that held it ends between the two steps."""
    from r2unet.training import lock as module

    lock, calls = module.lock, []

    def late(descriptor):
        if not calls:
            (tmp_path / LOCK).unlink()
        calls.append(descriptor)
        return lock(descriptor)

    monkeypatch.setattr(module, "lock", late)
    message = f"process {os.getpid()} "
    with locked("--out", tmp_path), pytest.raises(InputError, match=message), locked("--out", tmp_path):
        pass
    assert len(calls) == 3


def test_a_planted_link_is_not_followed(tmp_path):
    (tmp_path / "victim").write_text("old")
    (tmp_path / LOCK).symlink_to(tmp_path / "victim")
    with pytest.raises(InputError, match="cannot be written"), locked("--out", tmp_path):
        pass
    assert (tmp_path / "victim").read_text() == "old"

"""`r2unet train` in several processes: the same files, whatever is killed, and one line for every error."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minidl.launch import find_mpiexec
from r2unet.training.checkpoints import read_state
from tests.mpi import SECONDS, processes_of, require_mpi, wait_for
from tests.r2unet.conftest import OPTIONS
from tests.r2unet.refusal import refusal

FILES = ("last.npz", "best.npz", "history.csv", "report.json")


@pytest.fixture(scope="session")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny training in two processes, never stopped."""
    require_mpi()
    out = tmp_path_factory.mktemp("runs") / "together"
    command = [
        find_mpiexec(),
        "-n",
        "2",
        sys.executable,
        "-m",
        "r2unet",
        "train",
        *OPTIONS,
        "--out",
        str(out),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch ") == 2 and done.stdout.count("best.npz") == 1  # process 0 alone prints
    return out


@pytest.fixture
def started(program, tiny, tmp_path):
    """Return a function that starts the tiny training in two processes and waits for its first epoch."""
    require_mpi()
    running = []

    def start(out: Path) -> subprocess.Popen:
        process = program("train", *tiny, "--processes", 2, "--out", out)
        running.append(process)
        wait_for(lambda: (out / "last.npz").exists() or process.poll() is not None)
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()


def test_two_processes_end_with_the_weights_and_scores_of_one(together, trained):
    assert_close(together, trained)


def assert_close(one: Path, two: Path) -> None:
    """Assert that two runs ended with the same weights, scores and positions, up to rounding in float32.

    A bias before a batch norm has the gradient 0, up to rounding. Adam turns that into steps of any size
    below lr, in the bias and in the running mean, which cancel each other.
    """
    states = [read_state(folder / "last.npz") for folder in (one, two)]
    assert states[0]["batches_done"] == states[1]["batches_done"] == 0
    for name, array in states[0]["model"].items():
        if not name.endswith(("conv.bias", "up.bias", "running_mean")):
            np.testing.assert_allclose(array, states[1]["model"][name], rtol=1e-3, atol=1e-4, err_msg=name)
    for rows in zip(states[0]["history"], states[1]["history"], strict=True):
        np.testing.assert_allclose(*(list(row.values()) for row in rows), rtol=1e-3)


class TestKillingAProcess:
    @pytest.mark.parametrize("rank", [0, 1])
    def test_stops_the_others_with_one_line_and_leaves_a_run_to_resume(
        self, started, program, r2unet, together, trained, tmp_path, rank
    ):
        out = tmp_path / "a"
        process = started(out)
        ranks = processes_of(out)
        assert ranks.keys() == {0, 1}
        os.kill(ranks[rank], signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=SECONDS)
        assert process.returncode == 2
        assert stderr == (
            "r2unet: error: one of the 2 processes ended with signal SIGKILL; the others were stopped; if "
            f"memory was short, start fewer processes; resume with: r2unet train --resume --out {out} "
            "--device cpu --processes 2\n"
        )
        assert "BAD TERMINATION" not in stdout
        wait_for(lambda: not processes_of(out))
        assert read_state(out / "last.npz")["history"]
        if rank == 0:  # with the same number of processes, bit for bit
            resumed = program("train", "--resume", "--out", out, "--device", "cpu", "--processes", 2)
            _, stderr = resumed.communicate(timeout=SECONDS)
            assert resumed.returncode == 0, stderr
            for name in FILES:
                assert (out / name).read_bytes() == (together / name).read_bytes(), name
        else:  # with another number, up to rounding
            assert r2unet("train", "--resume", "--out", out, "--device", "cpu")[0] == 0
            assert_close(out, together)


def test_ctrl_c_saves_once_and_prints_how_to_resume(started, tmp_path):
    out = tmp_path / "a"
    process = started(out)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert stderr.startswith("stopped after 1 epochs and ") and len(stderr.splitlines()) == 1
    assert stderr.endswith(f"resume with: r2unet train --resume --out {out} --device cpu --processes 2\n")
    assert stdout.count("epoch ") == 1
    state = read_state(out / "last.npz")
    assert f"and {state['batches_done']} of 3 batches" in stderr
    wait_for(lambda: not processes_of(out))


class TestRefused:
    def test_without_mpi4py(self, r2unet, tiny, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "mpi4py", None)
        code, stdout, stderr = r2unet("train", *tiny, "--processes", 2, "--out", tmp_path / "a")
        assert (code, stdout) == (2, "") and not (tmp_path / "a").exists()
        assert stderr == (
            "r2unet: error: several processes need mpi4py; install it with: pip install -e '.[mpi]'\n"
        )

    def test_without_mpiexec(self, r2unet, tiny, tmp_path, monkeypatch):
        require_mpi()
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr("minidl.launch.sysconfig.get_path", lambda name: str(tmp_path))
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
        code, _, stderr = r2unet("train", *tiny, "--processes", 2, "--out", tmp_path / "a")
        assert code == 2 and "several processes need mpiexec, which starts them; install it" in stderr

    def test_with_the_mpiexec_of_another_mpi(self, program, tiny, tmp_path):
        require_mpi()
        # As Open MPI's mpiexec would start the first of two processes; MPICH believes that it is alone.
        env = {**os.environ, "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}
        process = program("train", *tiny, "--out", tmp_path / "a", env=env)
        _, stderr = process.communicate(timeout=SECONDS)
        assert process.returncode == 2 and not (tmp_path / "a").exists()
        assert stderr == (
            "r2unet: error: mpiexec has started 2 processes, but mpi4py sees 1: it uses MPICH, and this "
            "mpiexec belongs to another MPI; use the one that pip install -e '.[mpi]' installs\n"
        )

    def test_more_processes_than_images_in_a_batch(self, new_trainer, tmp_path):
        message = refusal(lambda: new_trainer(tmp_path, batch_size=4).settings.check_processes(5, 4))
        assert message == (
            "--processes 5: more than the 4 images of a batch; start fewer processes, or train with a larger "
            "--batch-size"
        )

    def test_processes_with_other_options(self, tiny, tmp_path):
        require_mpi()
        out = tmp_path / "a"
        command = [sys.executable, "-m", "r2unet", "train", *tiny, "--out", str(out)]
        words = [find_mpiexec(), "-n", "1", *command, ":", "-n", "1", *command, "--lr", "0.5"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == 2 and not out.exists()
        assert done.stderr.count("\n") == 1
        assert done.stderr.startswith("r2unet: error: process 1 of 2 has other options")

    @pytest.mark.parametrize("rank, lines", [(0, 1), (1, 0)])
    @pytest.mark.parametrize("mpi", ["PMI", "OMPI_COMM_WORLD"])
    def test_an_invalid_option_is_reported_by_process_0_alone(self, r2unet, monkeypatch, mpi, rank, lines):
        monkeypatch.setenv(f"{mpi}_SIZE", "2")
        monkeypatch.setenv(f"{mpi}_RANK", str(rank))
        code, _, stderr = r2unet("train", "--lr", "x")
        assert code == 2
        assert stderr.count("\n") == stderr.count("argument --lr: must be a number") == lines

"""Kills one process of a training that several share, each rank in turn, and looks at what is left.

    python -m tests.assault.process_kills --kills 20 --processes 3 --seed 0

Each time a training is started and one of its processes is killed (SIGKILL) at a random moment. The others
must stop with exit code 2 and one line, the checkpoints must be whole (`r2unet check`), and the same command
with --resume must end with the bytes of a training that was never killed. Prints a table with a row for each
kill and one sentence about all of them; the exit code is 1 if a kill broke one of these promises. It needs
Linux.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.report import table
from minidl.files import PREFIX
from r2unet.commands.main import main as r2unet
from r2unet.training.checkpoints import read_state
from tests.mpi import SECONDS, processes_of, wait_for

# Four epochs of five batches; each epoch saves its state.
OPTIONS = ["--size=16", "--widths=2,4", "--batch-size=4", "--epochs=4", "--images=20", "--device=cpu"]
FILES = ("last.npz", "best.npz", "history.csv", "report.json")


class Kill(NamedTuple):
    """What one kill did."""

    rank: int
    after: float  # seconds after all processes were there
    left: str  # what was saved
    code: int  # the exit code of the command
    lines: int  # that it printed to stderr
    stopped: float  # seconds until all processes had ended
    whole: bool  # whether all checkpoints were
    same: bool  # whether the resumed training ended with the bytes of an undisturbed one

    @property
    def kept(self) -> bool:
        """Whether all promises were kept."""
        return self.code == 2 and self.lines == 1 and self.whole and self.same


class Training:
    """A small training in several processes that writes into a folder."""

    def __init__(self, out: Path, count: int) -> None:
        self.out, self.count = out, count
        self.command = [sys.executable, "-m", "r2unet", "train", *OPTIONS, f"--processes={count}"]
        self.command += ["--out", str(out), "--resume"]  # which starts a new training if there is none

    def start(self) -> subprocess.Popen:
        """Start the training and return it when all of its processes are there, or when it has ended."""
        started = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_for(lambda: len(processes_of(self.out)) == self.count or started.poll() is not None)
        return started

    def finish(self) -> dict[str, bytes]:
        """Train to the end and return the files; `seconds` is the time since all processes were there."""
        started, began = self.start(), time.monotonic()
        _, errors = started.communicate(timeout=SECONDS)
        self.seconds = time.monotonic() - began
        assert started.returncode == 0, errors
        assert not list(self.out.glob(f"{PREFIX}*")), "a temporary file is left"
        return {name: (self.out / name).read_bytes() for name in FILES}

    def kill(self, rank: int, after: float, undisturbed: dict[str, bytes]) -> Kill | None:
        """Start the training, kill a process, and resume it; return None if it had ended before."""
        started = self.start()
        time.sleep(after)
        process = processes_of(self.out).get(rank)
        if process is None:
            started.communicate(timeout=SECONDS)
            return None
        os.kill(process, signal.SIGKILL)
        killed = time.monotonic()
        _, errors = started.communicate(timeout=SECONDS)
        wait_for(lambda: not processes_of(self.out))
        stopped = time.monotonic() - killed
        left, whole = left_in(self.out)
        same = self.finish() == undisturbed
        return Kill(rank, after, left, started.returncode, errors.count("\n"), stopped, whole, same)


def left_in(out: Path) -> tuple[str, bool]:
    """Return what is saved in the folder of a run, and whether all checkpoints there are whole."""
    saved = [out / name for name in ("last.npz", "best.npz") if (out / name).exists()]
    if not saved:
        return "nothing yet", True
    with redirect_stdout(StringIO()):
        whole = r2unet(["check", *map(str, saved)]) == 0
    if not whole:
        return "damaged", False
    state = read_state(saved[0])
    return f"{len(state['history'])} epochs, {state['batches_done']} batches", True


def rows_of(kills: Sequence[Kill]) -> str:
    """Return the kills as a table."""
    head = "rank", "killed after", "what was saved", "exit code", "all stopped after", "whole", "same bytes"
    rows = [
        (
            str(k.rank),
            f"{k.after:.2f} s",
            k.left,
            str(k.code),
            f"{k.stopped:.2f} s",
            "yes" if k.whole else "NO",
            "yes" if k.same else "NO",
        )
        for k in kills
    ]
    return table(head, rows)


def summary(kills: Sequence[Kill], count: int) -> str:
    """Return one sentence about all kills."""
    by_rank = ", ".join(f"rank {rank} {sum(k.rank == rank for k in kills)} times" for rank in range(count))
    nothing = sum(k.left == "nothing yet" for k in kills)
    return (
        f"{len(kills)} kills in {count} processes ({by_rank}), {nothing} of them before the first epoch was "
        f"saved: exit code 2 and one line in {sum((k.code, k.lines) == (2, 1) for k in kills)}, all stopped "
        f"within {max(k.stopped for k in kills):.2f} s, checkpoints whole in {sum(k.whole for k in kills)}, "
        f"resumed to the same bytes in {sum(k.same for k in kills)}."
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.assault.process_kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="how many (default %(default)s)")
    parser.add_argument("--processes", type=int, default=3, help="of each training (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    options = parser.parse_args()
    rng, kills = np.random.default_rng(options.seed), []
    with tempfile.TemporaryDirectory() as root:
        honest, trial = Training(Path(root) / "undisturbed", options.processes), 0
        undisturbed = honest.finish()
        while len(kills) < options.kills:
            training = Training(Path(root) / str(trial), options.processes)
            trial += 1
            after = float(rng.uniform(0.0, honest.seconds))
            kill = training.kill(len(kills) % options.processes, after, undisturbed)
            if kill:
                kills.append(kill)
                print(f"{len(kills)} of {options.kills}", file=sys.stderr)
    print(f"{rows_of(kills)}\n\n{summary(kills, options.processes)}")
    return 0 if all(kill.kept for kill in kills) else 1


if __name__ == "__main__":
    sys.exit(main())

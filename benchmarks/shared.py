"""A training step of R2U-Net that several processes share, to be timed next to a step in one process.

The processes are started once, by mpiexec. Between two steps each of them sleeps, waiting for a byte in a
named pipe, so that it does not slow down what is timed in the meantime. Run as a program by mpiexec, this
file is one of them:

    mpiexec -n 2 python -m benchmarks.shared FOLDER 4 128

The arguments are the folder of the pipes, the images of a batch, and their size. After each step, process 0
prints the loss, the seconds of the step, those in the Allreduce of the gradients with its copies, and those
in all exchanges, which include those of batch norm. Both contain the time in which a process waits for a
slower one. At the end it prints the peak memory of all processes together, which counts shared pages twice.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.networks import SETTINGS, Inputs, OwnNetwork, draw
from benchmarks.processes import ROOT, peak_bytes
from minidl.allocator import keep_freed_memory
from minidl.connect import connect
from minidl.launch import find_mpiexec
from minidl.optim import clip_grad_norm
from minidl.parallel import GradientSum, MPIProcesses, Processes, share_batches
from r2unet.network.losses import LOSSES

PROCESSES = 2
STEP, END = b"s", b"e"  # what the pipes carry


class PartNetwork(OwnNetwork):
    """The network of one process, and its part of the batch."""

    def __init__(self, inputs: Inputs, processes: Processes) -> None:
        self.processes, self.batch = processes, len(inputs.images)
        part = processes.part(self.batch)
        super().__init__(inputs._replace(images=inputs.images[part], masks=inputs.masks[part]))
        share_batches(self.model, processes)
        self.add_gradients = GradientSum(processes, self.optimizer.parameters)
        self.allreduce_seconds = 0.0  # of the last step

    def step(self) -> float:
        """Take one training step together and return the loss of the batch before it."""
        self.model.train()
        self.processes.divide(self.batch)
        loss = LOSSES[SETTINGS.loss](self.model(self.images), self.masks) * self.processes.weight
        self.optimizer.zero_grad()
        loss.backward()
        started = time.perf_counter()
        value = float(self.add_gradients(loss.data))
        self.allreduce_seconds = time.perf_counter() - started
        clip_grad_norm(self.optimizer.parameters, SETTINGS.clip)
        self.optimizer.step()
        return value


class TimedProcesses(MPIProcesses):
    """Processes that add up the seconds that they spend in exchanges."""

    seconds = 0.0

    def _wait(self, start: Any) -> None:
        started = time.perf_counter()
        super()._wait(start)
        self.seconds += time.perf_counter() - started


class SharedNetwork:
    """The network in several processes. A context; `memory` is known when it has ended."""

    def __init__(self, batch: int, size: int, count: int = PROCESSES) -> None:
        self.command = [find_mpiexec(), "-n", str(count), sys.executable, "-m", "benchmarks.shared"]
        self.shape, self.count = (str(batch), str(size)), count
        self.steps: list[dict[str, float]] = []
        self.memory: dict[str, int] = {}

    def __enter__(self) -> SharedNetwork:
        self.folder = tempfile.TemporaryDirectory()
        paths = [pipe(Path(self.folder.name), rank) for rank in range(self.count)]
        for path in paths:
            os.mkfifo(path)
        words = [*self.command, self.folder.name, *self.shape]
        self.started = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self.pipes = [os.open(path, os.O_RDWR) for path in paths]  # O_WRONLY would wait for the reader
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self.memory = self._ask(END)
        else:
            self.started.terminate()
        self.started.communicate()
        for descriptor in self.pipes:
            os.close(descriptor)
        self.folder.cleanup()

    def step(self) -> float:
        """Take one training step and return the loss before it."""
        self.steps.append(self._ask(STEP))
        return self.steps[-1]["loss"]

    def shares(self, what: str, last: int) -> list[float]:
        """Return the shares of "allreduce" or "exchanges" in each of the last steps."""
        return [step[what] / step["seconds"] for step in self.steps[-last:]]

    def _ask(self, command: bytes) -> dict[str, Any]:
        for descriptor in self.pipes:
            os.write(descriptor, command)
        line = self.started.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self.command)} failed; its error is printed above")
        return json.loads(line)


def pipe(folder: Path, rank: int) -> Path:
    """Return the path of the pipe of a process."""
    return folder / str(rank)


def work(folder: Path, batch: int, size: int, processes: TimedProcesses) -> None:
    """Take a step whenever the pipe says so."""
    imported = peak_bytes()
    network = PartNetwork(draw(batch, size, np.random.default_rng(0)), processes)
    with open(pipe(folder, processes.rank), "rb", buffering=0) as commands:
        while commands.read(1) == STEP:
            processes.seconds, started = 0.0, time.perf_counter()
            answer = {"loss": network.step(), "seconds": time.perf_counter() - started}
            answer |= {"allreduce": network.allreduce_seconds, "exchanges": processes.seconds}
            if processes.rank == 0:
                print(json.dumps(answer), flush=True)
    peak, imported = (int(processes.total(number)) for number in (peak_bytes(), imported))
    if processes.rank == 0:
        print(json.dumps({"peak": peak, "imported": imported}), flush=True)
    processes.close()


if __name__ == "__main__":
    keep_freed_memory()  # like the r2unet command
    connect()  # refuses another MPI than mpi4py's
    work(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), TimedProcesses())

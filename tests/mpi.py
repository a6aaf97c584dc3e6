"""Start programs in several processes, as the tests of `minidl.parallel` need; two cores are enough."""

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from minidl.launch import find_mpiexec
from minidl.parallel import ParallelError

ROOT = Path(__file__).parents[1]
SECONDS = 120  # a busy machine is slow, but no test may wait forever


def require_mpi() -> None:
    """Skip the calling test without mpi4py and mpiexec; continuous integration (CI) must have them."""
    problem = None
    if importlib.util.find_spec("mpi4py") is None:
        problem = "mpi4py is not installed; pip install -e '.[mpi]'"
    try:
        find_mpiexec()
    except ParallelError as error:
        problem = str(error)
    if problem:
        assert not os.environ.get("CI"), problem
        pytest.skip(problem)


def run_processes(count: int, program: Path, *words: object) -> None:
    """Run a Python program in `count` processes; fail with its output unless it succeeds."""
    command = [find_mpiexec(), "-n", str(count), sys.executable, str(program), *map(str, words)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stdout


def processes_of(out: Path) -> dict[int, int]:
    """Return the process ids of the running training into a folder, by rank."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment, words = ((folder / n).read_bytes().split(b"\0") for n in ("environ", "cmdline"))
        except OSError:
            continue
        ranks = [int(v.partition(b"=")[2]) for v in environment if v.startswith(b"PMI_RANK=")]
        if ranks and str(out).encode() in words:
            found[ranks[0]] = int(folder.name)
    return found


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)

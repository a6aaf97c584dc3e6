"""Start programs in several processes, as the tests of `minidl.parallel` need; two cores are enough."""

import importlib.util
import os
import subprocess
import sys
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

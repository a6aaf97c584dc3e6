"""Start a program in several processes on this machine, with the mpiexec that belongs to mpi4py's MPI.

    launch(2, [sys.executable, "-m", "r2unet", "train"])      as  mpiexec -n 2 r2unet train

This process stays between the user and mpiexec. It passes signals on, so that all processes can save and
stop. It passes their output on, except mpiexec's own report about a process that was killed, ten lines in a
frame; instead `launch` raises an error of one line.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

from minidl.connect import COUNT, EXIT_CODE
from minidl.parallel import INSTALL, ParallelError, require_mpi4py

TERMINAL = "MINIDL_TERMINAL"  # the environment variable that tells the processes of a terminal
OWN_CODES = (0, 1, 2, 130, 141)  # with which a process ends by itself, having printed why
HANGUP = getattr(signal, "SIGHUP", signal.SIGTERM)  # Windows lacks it


def launch(count: int, command: Sequence[str]) -> int:
    """Run a command in `count` processes that `minidl.connect.connect` connects; return their exit code.

    The first signal (Ctrl-C, SIGTERM, SIGHUP) is sent to all processes as SIGTERM, and so is a second Ctrl-C
    or SIGTERM. Raises ParallelError without mpi4py or mpiexec, and if a process was killed.
    """
    require_mpi4py()
    arguments = [find_mpiexec(), "-n", str(count), *command]
    environment = {**os.environ, COUNT: str(count)}
    if sys.stderr.isatty():  # for a progress bar, which then writes to a pipe
        environment |= {TERMINAL: "yes", "COLUMNS": str(shutil.get_terminal_size().columns)}
    # In its own session, a Ctrl-C of the terminal reaches only this process, which passes it on. A process
    # that reads the end of its standard input knows that this process has ended (`stop_with_launcher`).
    with (
        subprocess.Popen(
            arguments,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        ) as mpiexec,
        passing_signals_on(mpiexec) as signals,
    ):
        try:
            own_code = pass_output_on(mpiexec.stdout, sys.stdout)
        except BaseException:  # such as a closed pipe
            mpiexec.terminate()
            raise
        code = mpiexec.wait()
    if own_code is not None or code in OWN_CODES:
        return code if own_code is None else own_code
    if signals:
        raise KeyboardInterrupt  # before the processes could handle signals
    raise ParallelError(
        f"one of the {count} processes ended with {_name(code)}; the others were stopped; if memory was "
        "short, start fewer processes"
    )


def on_terminal() -> bool:
    """Return whether stderr is a terminal, also through `launch`: there it is a pipe to the terminal."""
    return sys.stderr.isatty() or TERMINAL in os.environ


def find_mpiexec() -> str:
    """Return the mpiexec beside this Python, where pip installs MPICH's, or the first in PATH."""
    beside = os.pathsep.join((sysconfig.get_path("scripts"), os.path.dirname(sys.executable)))
    found = shutil.which("mpiexec", path=beside) or shutil.which("mpiexec")
    if found is None:
        raise ParallelError(f"several processes need mpiexec, which starts them; {INSTALL}")
    return found


def _name(code: int) -> str:
    """Return the name of the signal in an exit code of mpiexec, or the code."""
    try:
        return f"signal {signal.Signals(abs(code) & 127).name}"
    except ValueError:
        return f"exit code {code}"


@contextmanager
def passing_signals_on(mpiexec: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Send signals that end a program to mpiexec, which sends them to all; yield the signals received."""
    signals: list[int] = []

    def forward(signum: int, frame: Any) -> None:
        if signum == HANGUP and signals:  # often sent twice
            return
        signals.append(signum)
        mpiexec.send_signal(signal.SIGTERM)  # for SIGINT, mpiexec would print that it was interrupted

    handled = [s for s in (signal.SIGINT, signal.SIGTERM, HANGUP) if signal.getsignal(s) != signal.SIG_IGN]
    before = {s: signal.signal(s, forward) for s in handled}
    try:
        yield signals
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


def pass_output_on(pipe: IO[bytes], out: Any) -> int | None:
    """Copy lines from mpiexec to `out`, up to its report of a killed process, a frame of `=`.

    Returns the exit code of a process that has printed an error and ended all others, which mpiexec may
    report as killed; None if there is none.
    """
    own_code = None
    empty = 0  # lines that are held back, because the report begins with one
    for line in pipe:
        if line.startswith(b"=" * 20):
            break
        if line.startswith(EXIT_CODE.encode()):
            own_code = int(line[len(EXIT_CODE) :])
            continue
        if line == b"\n":
            empty += 1
            continue
        out.write("\n" * empty + line.decode(errors="backslashreplace"))
        out.flush()
        empty = 0
    else:
        out.write("\n" * empty)
    for _ in pipe:
        pass
    return own_code

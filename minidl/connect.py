"""How the processes of a program find each other, and how they end together.

mpiexec starts the same program several times, and tells each process in environment variables how many there
are and which it is. Each implementation of MPI has its own variables. If the mpiexec belongs to another one
than mpi4py uses, every process believes that it is alone; comparing the two numbers reveals that.

**The normal end.** MPI waits at the end of a process until all have come to it.

**An error.** Most errors occur in all processes at once, such as an invalid option. Then process 0 prints one
line, and all end normally. An error in a single process must not end it normally, because MPI would wait for
the others, while they wait for an exchange with this one. So each waits for the same error in the others for
two seconds (`all_end`). If it does not come, the process prints its error and exits without MPI's farewell.
mpiexec then ends all others.

**A process that is killed.** mpiexec ends all others. What they were computing is lost, and a file that they
were writing, too; but files are written atomically (`minidl.files`).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from minidl.parallel import MPIProcesses, ParallelError, Processes

__all__ = ["connect", "processes_started"]

COUNT = "MINIDL_PROCESSES"  # the environment variable in which `minidl.launch` says how many it starts
COUNTS = (COUNT, "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")  # and those of several mpiexecs
RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")  # set by the mpiexecs of COUNTS
EXIT_CODE = "\0exit code "  # a line for `minidl.launch`, which learns from mpiexec only that processes ended

_here = Processes()


def processes_started() -> int:
    """Return how many processes an mpiexec, of whichever MPI, has started with this one; 1 without one."""
    counts = [os.environ.get(name, "") for name in COUNTS]
    return max([1, *(int(count) for count in counts if count.isdecimal())])


def connect() -> Processes:
    """Connect to the other processes, once, and return them; a single process is returned as such.

    Raises ParallelError without mpi4py, and if its MPI is not that of the mpiexec that was used.
    """
    global _here
    started = processes_started()
    if started == 1:
        return _here
    if not isinstance(_here, MPIProcesses):
        _here = MPIProcesses()
        if _here.size != started:
            vendor, _ = _here.mpi.get_vendor()
            found, _here = _here.size, Processes()
            raise ParallelError(
                f"mpiexec has started {started} processes, but mpi4py sees {found}: it uses {vendor}, and "
                "this mpiexec belongs to another MPI; use the one that pip install -e '.[mpi]' installs"
            )
        if COUNT in os.environ and _here.rank == 0:
            stop_with_launcher()
    return _here


def stop_with_launcher() -> None:
    """Send SIGTERM to this process when standard input ends: `minidl.launch` holds its other end.

    Process 0 of a launcher that was killed then saves and stops, and the others with it.
    """

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def reports() -> bool:
    """Return whether this process should print its error. Called once, before the error is printed.

    Most errors occur in all processes, and one line is enough: that of process 0. Another process prints its
    error only if it is alone with it.
    """
    if isinstance(_here, MPIProcesses):
        return _here.rank == 0 or not _here.all_end()
    ranks = [os.environ.get(name, "") for name in RANKS if processes_started() > 1]  # before `connect`
    return not any(rank.isdecimal() and int(rank) > 0 for rank in ranks)


def end_others(code: int) -> None:
    """End this process after an error, and so all of them. Without others, or if all end, do nothing.

    At the normal end of a process MPI waits for the others, and here they may be waiting for this one. But
    mpiexec ends all processes as soon as one exits without MPI's farewell.
    """
    if not isinstance(_here, MPIProcesses) or _here.closed or (_here.rank == 0 and _here.all_end()):
        return
    with suppress(OSError):
        if COUNT in os.environ:
            print(f"{EXIT_CODE}{code}", flush=True)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


@contextmanager
def ending_others() -> Iterator[None]:
    """A context in which an exception, from a mistake in the program, ends all processes."""
    try:
        yield
    except Exception:
        if not isinstance(_here, MPIProcesses):
            raise
        if reports():
            traceback.print_exc()
        end_others(1)
        sys.exit(1)

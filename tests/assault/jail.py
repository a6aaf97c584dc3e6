"""Runs hostile commands in a forked process with limits, and observes each of them.

The parent has imported everything and never runs a command. A forked child runs a batch of commands, one
after the other, and reports each through a pipe. So a command costs milliseconds instead of the second that
Python needs to start, and a child that dies or never ends costs one command: the next child continues after
it.

* **Hang.** More than 20 s of processor time, or 20 s of sleep. Waiting for the processor does not count,
  because the machine may be busy.
* **Memory.** The kernel's peak of resident memory (VmHWM in /proc) above what the process had before. The
  peak is reset before each command. Address space is limited, so that a command cannot take down the machine.

Figures are saved as empty files, because drawing takes most of the time of a training, and no attack is about
it. A program of its own (`program`) draws them.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from matplotlib.figure import Figure
from tqdm import tqdm

from minidl.allocator import release_freed_memory

SECONDS = 20.0
ADDRESS_SPACE = 2**30  # above what the process has; memory beyond it raises MemoryError
TICK = 0.5  # seconds between two looks at a silent child


class Call(NamedTuple):
    """A command to run in `folder`, the current directory of the child."""

    folder: Path
    run: Callable[[], int | None]  # returns the exit code
    decoded: Callable[[], int] = int  # bytes, the honest size of what it reads; asked later, not in the child


class Outcome(NamedTuple):
    """What a command did."""

    code: int | None = None
    out: str = ""
    err: str = ""
    memory: int = 0  # bytes, the peak above what the process had before
    decoded: int = 0
    fault: str = ""  # a traceback, a signal or a hang


def run_all(calls: Sequence[Call], captured: Path) -> list[Outcome]:
    """Run the calls in order; their output goes through files in the folder `captured`."""
    outcomes: list[Outcome] = []
    while len(outcomes) < len(calls):
        outcomes += _run_until_death(calls[len(outcomes) :], captured)
    # Pillow takes the memory of a large WebP image to read its size, which the child may not have.
    return [outcome._replace(decoded=call.decoded()) for outcome, call in zip(outcomes, calls, strict=True)]


def start(call: Call, output: Path, prepare: Callable[[], Any] = int) -> int:
    """Start a call in a process of its own, with its output in a file; return the process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        return pid
    code = 120  # a traceback
    try:
        _own_lock()
        _redirect(output, output)
        os.chdir(call.folder)
        Figure.savefig = save_nothing
        prepare()
        code = _exit_code(call)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _own_lock() -> None:
    """Give a forked process a lock of its own for progress bars.

    tqdm's lock is shared with all forked processes. One that is killed while it has it would stop all others.
    """
    tqdm.set_lock(threading.RLock())


def program(words: Sequence[str]) -> Callable[[], int]:
    """Return a call that runs a command line as a program of its own, with the same limit of memory."""

    def run() -> int:
        limit = _kilobytes("VmSize") * 1024 + ADDRESS_SPACE
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        os.execv(sys.executable, [sys.executable, "-m", "r2unet", *words])

    return run


def wait_for(pid: int) -> int | None:
    """Wait for a process; return its exit code, minus the signal that ended it, or None if it hangs."""
    watch = _Watch(pid)
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if watch.hangs():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(0.05)


def _run_until_death(calls: Sequence[Call], captured: Path) -> list[Outcome]:
    """Run calls in one child; return the outcomes up to the first call that the child did not survive."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _serve(calls, captured, writer)
    os.close(writer)
    outcomes, fault = _receive(reader, pid, len(calls))
    os.close(reader)
    if fault is None:  # all calls are done, or the child died
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        fault = f"the process died: {signal.Signals(-status).name if status < 0 else status}"
    if len(outcomes) < len(calls):
        outcomes.append(Outcome(err=_read(captured / "stderr"), fault=fault))
    return outcomes


def _receive(reader: int, pid: int, count: int) -> tuple[list[Outcome], str | None]:
    """Receive outcomes until the pipe is closed or the child hangs."""
    outcomes, text, watch = [], b"", _Watch(pid)
    while True:
        if select.select([reader], [], [], TICK)[0]:
            part = os.read(reader, 1 << 16)
            if not part:
                return outcomes, None
            *lines, text = (text + part).split(b"\n")
            outcomes += [Outcome(**json.loads(line)) for line in lines]
            watch = _Watch(pid)
        elif watch.hangs() and len(outcomes) < count:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return outcomes, f"hangs: no end after {SECONDS:.0f} s"


class _Watch:
    """Tells whether a process has used its time since this object was made."""

    def __init__(self, pid: int) -> None:
        self.pid, self.started, self.asleep = pid, self._processor_time(pid), 0.0
        self.looked = time.monotonic()

    def hangs(self) -> bool:
        """Return whether 20 s of processor time or of sleep have passed. Ask about every half second."""
        now = time.monotonic()
        sleeps = _status(self.pid, "State").startswith("S")
        self.asleep = self.asleep + min(now - self.looked, 2 * TICK) if sleeps else 0.0
        self.looked = now
        return self.asleep > SECONDS or self._processor_time(self.pid) - self.started > SECONDS

    @staticmethod
    def _processor_time(pid: int) -> float:
        try:
            return time.clock_gettime((~pid << 3) | 2)  # Linux: the clock of another process
        except OSError:
            return 0.0


def _serve(calls: Sequence[Call], captured: Path, writer: int) -> None:
    """Run the calls, and write the outcome of each to the pipe as a line of JSON."""
    try:
        limit = _kilobytes("VmSize") * 1024 + ADDRESS_SPACE
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        Figure.savefig = save_nothing
        _own_lock()
        for call in calls:
            _redirect(captured / "stdout", captured / "stderr")
            os.chdir(call.folder)
            os.write(writer, json.dumps(_observe(call, captured)._asdict()).encode() + b"\n")
    except BaseException:
        traceback.print_exc()
        os._exit(119)
    os._exit(0)


def save_nothing(figure: Figure, file: BinaryIO, **options: Any) -> None:
    """Replace matplotlib's Figure.savefig."""
    file.write(b"")


def _observe(call: Call, captured: Path) -> Outcome:
    """Run one call in this process."""
    release_freed_memory()  # that of earlier calls, which this one would use unnoticed
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak of memory
    before, code, fault = _kilobytes("VmRSS"), None, ""
    try:
        code = _exit_code(call)
    except BaseException:
        fault = f"traceback: {traceback.format_exc()}"
    memory = (_kilobytes("VmHWM") - before) * 1024
    sys.stdout.flush()
    sys.stderr.flush()
    out, err = (_read(captured / name) for name in ("stdout", "stderr"))
    return Outcome(code, out, err, memory, fault=fault)


def _exit_code(call: Call) -> int | None:
    """Run a call; argparse ends the program by itself for --help and for a wrong option."""
    try:
        return call.run()
    except SystemExit as stop:
        return stop.code


def _redirect(out: Path, err: Path) -> None:
    """Let stdout and stderr of this process, also of its C libraries, begin two empty files."""
    for number, name, path in ((1, "stdout", out), (2, "stderr", err)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
        setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115


def _read(path: Path) -> str:
    return path.read_bytes()[:100_000].decode(errors="replace") if path.exists() else ""


def _kilobytes(name: str) -> int:
    return int(_status("self", name).split()[0])


def _status(pid: int | str, name: str) -> str:
    """Return a field of /proc/PID/status, "" if there is none."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:")), "")

"""Printing to a closed pipe or a full disk: how a program that prints a table ends, without a traceback.

`... | head` closes the pipe before everything is written, and `... > FILE` may fill the disk. Python buffers
stdout, so it may notice only at exit, when no error can be handled any more. A program therefore flushes
stdout before it returns.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable


def run_program(name: str, main: Callable[[], int]) -> int:
    """Run `main` and return its exit code; print one line on stderr and return 2 if stdout cannot be written.

    A closed pipe ends the process at once, as other programs end (by the signal SIGPIPE).
    """
    if hasattr(signal, "SIGPIPE"):  # not on Windows
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        try:
            return main()
        finally:
            print(end="", flush=True)
    except OSError as error:
        if error.filename is not None:  # about another file
            raise
        discard_output()
        reason = error.strerror or error
        print(f"{name}: error: stdout: {reason}; free space, or write to another disk", file=sys.stderr)
        return 2


def discard_output() -> None:
    """Point stdout at the null device, because Python flushes it again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

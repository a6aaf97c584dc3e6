"""Runs a program for a limited time and ends it together with all processes that it has started.

`subprocess.run(..., timeout)` ends only the program itself. What the program has started runs on, and on a
GPU it still holds memory. Here the program gets a session, and with it a process group, of its own. The
processes that it starts belong to the same group, and a signal can be sent to the whole group. The terminal
sends Ctrl-C only to the caller's group; the caller sets `stopped` to end the others.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from threading import Event
from typing import Any

INTERVAL = 0.05  # seconds between two questions whether the program has ended


def run_group(command: Sequence[str], seconds: float, stopped: Event, **options: Any) -> int | None:
    """Run a command, with the options of Popen, and return its exit code.

    Returns None if it takes longer than `seconds` or if another thread sets `stopped`. In every case, also
    after an exception, no process of its group is left.
    """
    end = time.monotonic() + seconds
    process = subprocess.Popen(command, start_new_session=True, **options)
    try:
        while process.poll() is None:
            if stopped.wait(INTERVAL) or time.monotonic() > end:
                return None
        return process.returncode
    finally:
        _end_group(process)


def _end_group(process: subprocess.Popen) -> None:
    """Kill the group of a process, and wait for the process. The group may have ended already."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):  # PermissionError: macOS, if all have ended
            os.killpg(process.pid, signal.SIGKILL)
    else:  # Windows has no process groups of this kind
        process.kill()
    process.wait()

"""Interrupting a training run between two steps, so that a complete state can be saved."""

from __future__ import annotations

import signal
from typing import Any


class Interrupted(Exception):
    """Training was interrupted and its state is saved. The message ends with the command to resume.

    Callers append the options that are not part of `Settings`, such as --device, to that command.
    """


# SIGHUP is sent when the terminal is closed, often twice: by the shell and by the system. Windows lacks it.
HANGUP = getattr(signal, "SIGHUP", None)


def stop_signals() -> list[signal.Signals]:
    """Return the signals that end a training: Ctrl-C, SIGTERM and, unless nohup ignores it, SIGHUP."""
    signals = [signal.SIGINT, signal.SIGTERM]
    if HANGUP and signal.getsignal(HANGUP) != signal.SIG_IGN:
        signals.append(HANGUP)
    return signals


class StopSignal:
    """A context in which the first Ctrl-C only sets `requested`. A second one raises KeyboardInterrupt.

    SIGTERM, which job schedulers send, is handled like Ctrl-C (SIGINT). SIGHUP only sets `requested`.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignal:
        try:
            self._previous = {s: signal.signal(s, self._handle) for s in stop_signals()}
        except ValueError:  # only the main thread may install signal handlers
            self._previous = {}
        return self

    def __exit__(self, *error: object) -> None:
        for s, handler in self._previous.items():
            signal.signal(s, handler)

    def _handle(self, signum: int, frame: Any) -> None:
        if self.requested and signum != HANGUP:
            raise KeyboardInterrupt
        self.requested = True

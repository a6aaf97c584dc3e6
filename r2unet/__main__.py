"""`python -m r2unet`, and the command `r2unet`, which is installed with the program."""

import os
import signal
import sys
from typing import Any


def run() -> int:
    """Import the command line, which takes about a second, run it, and return its exit code."""
    previous = signal.getsignal(signal.SIGINT)
    if previous is signal.default_int_handler:  # not where Ctrl-C is ignored, as by nohup
        signal.signal(signal.SIGINT, _exit)
    from r2unet.commands.main import main

    signal.signal(signal.SIGINT, previous)
    return main()


def _exit(signum: int, frame: Any) -> None:
    """End the program without a traceback. There is nothing to save before the command begins."""
    os._exit(130)


if __name__ == "__main__":
    sys.exit(run())

"""The command line: `r2unet train | compare | evaluate | predict | score | explain | export | summary`.

Only what a command needs is imported, when it runs, so that --help is quick. Results go to stdout; progress
and faults go to stderr. What a person can mend is one line and exit code 2; a training that was asked to
stop exits with 130, as programs do on Ctrl-C.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

# Before NumPy is loaded: the products of matrices in a small network are too small to share between threads,
# which on a busy machine wait for each other several times as long as they work.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from minidl.allocator import keep_freed_memory
from minidl.backend import DeviceError, TooLargeError
from minidl.ops.conv import convolution
from minidl.threads import set_threads
from r2unet.commands.messages import complain
from r2unet.commands.options import build_parser
from r2unet.commands.training_commands import compare, summary, train
from r2unet.commands.use_commands import evaluate, explain, export, predict, score
from r2unet.errors import InputError

COMMANDS = {
    "train": train,
    "compare": compare,
    "evaluate": evaluate,
    "predict": predict,
    "score": score,
    "explain": explain,
    "export": export,
    "summary": summary,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    warnings.filterwarnings("ignore", module="PIL")  # what it warns of is an error here, told in one line
    try:
        try:
            options = build_parser().parse_args(argv)
            keep_freed_memory()
            set_threads(getattr(options, "threads", 1))
            with convolution(getattr(options, "conv", "auto")):
                return COMMANDS[options.command](options)
        finally:
            print(end="", flush=True)  # here, where a full disk or a closed pipe can still be answered
    except (InputError, DeviceError, TooLargeError) as fault:
        return complain(fault)
    except MemoryError:
        return complain("not enough memory; a smaller --size, or fewer --widths, needs less")
    except BrokenPipeError:  # `r2unet summary | head`: the reader has seen enough
        _forget_output()
        return 141
    except OSError as fault:
        if fault.filename is None:
            _forget_output()
        return complain(
            f"{fault.filename or 'output'}: {fault.strerror or fault}; check the path and the disk"
        )
    except KeyboardInterrupt:
        return complain("interrupted", 130)


def _forget_output() -> None:
    """Drop what could not be written to stdout, which Python would try once more on its way out."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())

"""The command line: parse it, dispatch to a command, map errors to exit codes.

Each command is a module of this folder with four names:

    HELP                    its line in `r2unet --help`
    DETAILS                 further sentences for `r2unet COMMAND --help`
    add_options(parser)     adds its options to the parser
    run(options)            runs it and returns the exit code

`run` imports what only the command needs, so that --help is quick. Results go to stdout; progress and errors
go to stderr. The exit codes:

    0      success
    1      `check` found a file that is not whole
    2      an error that the user can correct, printed in one line
    130    interrupted by Ctrl-C
    141    the program that reads stdout has ended, as in `r2unet summary | head`
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

# Set before NumPy is imported. The matrix products of a small network are too small to be shared between
# threads: on a busy machine the threads wait for each other for several times as long as they compute.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from minidl.allocator import keep_freed_memory
from minidl.backend import DeviceError, TooLargeError
from minidl.connect import end_others, ending_others
from minidl.ops.conv import convolution
from minidl.output import discard_output
from minidl.parallel import ParallelError
from minidl.threads import set_threads
from r2unet import __version__
from r2unet.commands import (
    check,
    compare,
    evaluate,
    explain,
    export,
    predict,
    report,
    score,
    summary,
    train,
)
from r2unet.commands.messages import DISCLAIMER, print_error
from r2unet.commands.options import Parser
from r2unet.commands.workers import ignore_warnings_of_pillow
from r2unet.errors import InputError

COMMANDS = {
    "train": train,
    "compare": compare,
    "evaluate": evaluate,
    "report": report,
    "predict": predict,
    "score": score,
    "explain": explain,
    "export": export,
    "summary": summary,
    "check": check,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    with ending_others():
        code = _main(sys.argv[1:] if argv is None else argv)
    if code:
        end_others(code)
    return code


def _main(argv: Sequence[str]) -> int:
    try:
        _prepare_output()
        try:
            options = build_parser().parse_args(argv)
            options.words = list(argv)  # to start the same command in several processes
            return _run(options)
        finally:
            print(end="", flush=True)  # flush here, where a full disk or a closed pipe can be handled
    except (InputError, DeviceError, ParallelError, TooLargeError) as error:
        return print_error(error)
    except MemoryError:
        return print_error("not enough memory; lower --size or --widths")
    except BrokenPipeError:
        discard_output()
        return 141
    except OSError as error:
        if error.filename is None:
            discard_output()
        return print_error(
            f"{error.filename or 'output'}: {error.strerror or error}; check the path and the disk"
        )
    except KeyboardInterrupt:
        return print_error("interrupted", 130)


def build_parser() -> Parser:
    """Return the parser of the whole command line."""
    parser = Parser(
        prog="r2unet", description=f"Segment skin lesions in dermoscopy images with R2U-Net. {DISCLAIMER}"
    )
    parser.add_argument("--version", action="version", version=f"r2unet {__version__}")
    parsers = parser.add_subparsers(dest="command", required=True, metavar="|".join(COMMANDS))
    for name, command in COMMANDS.items():
        description = f"{command.HELP[0].upper()}{command.HELP[1:]}. {command.DETAILS}"
        command.add_options(parsers.add_parser(name, help=command.HELP, description=description))
    return parser


def _prepare_output() -> None:
    """Let every line be printed, also if stdout or stderr is closed, and whatever a file name contains."""
    ignore_warnings_of_pillow()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed, as by `2>&-`; the null device then takes its place
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _run(options: argparse.Namespace) -> int:
    keep_freed_memory()
    set_threads(getattr(options, "threads", 1))
    with convolution(getattr(options, "conv", "auto")):
        return COMMANDS[options.command].run(options)


if __name__ == "__main__":
    sys.exit(main())

"""`r2unet report`: one HTML file about one or several training runs, to read and to pass on."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from minidl.backend import resolve_device
from r2unet.commands.messages import explain_memory_error
from r2unet.commands.options import DATA, add_device, add_trust
from r2unet.commands.values import given_path, new_file, number
from r2unet.errors import InputError, visible
from r2unet.files import check_outputs, check_writable, write_text

HELP = "write one HTML file that compares training runs"
DETAILS = (
    "The file opens in any browser without a network. It has the settings, the curves, the scores with "
    "intervals, images from the best to the worst, the diagnoses and the commands of the runs."
)
ENDINGS = (".html", ".htm")


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "runs", nargs="+", type=given_path, metavar="RUN", help="folder of a finished training run"
    )
    p.add_argument(
        "--out",
        type=page,
        default=Path("report.html"),
        metavar="F.html",
        help="file to write (default %(default)s)",
    )
    text = f"where the images are now, if they have moved since the training: {DATA}"
    p.add_argument("--data", metavar="DIR", help=text)
    text = "number of images to draw, which the networks predict again; 0: none (default %(default)s)"
    p.add_argument("--pictures", type=number(int, 0, 24), default=6, metavar="N", help=text)
    add_trust(p)
    add_device(p)


def page(text: str) -> Path:
    """Convert the name of the page to its path; refuse another kind of file."""
    return new_file(text, ENDINGS)


def run(options: argparse.Namespace) -> int:
    from r2unet.study.run_comparison import read_runs
    from r2unet.study.run_page import Pictures, run_page

    check_writable("--out", options.out.parent)
    check_outputs("--out", [options.out], [])
    device = resolve_device(options.device)
    runs = read_runs(options.runs)
    if options.data and all(each.settings.data is None for each in runs):
        raise InputError("--data: these runs were trained on generated lesions; omit the option")
    pictures = Pictures(options.pictures, options.data, device, options.trust)
    size = max(each.settings.size for each in runs)
    with explain_memory_error(f"--pictures {options.pictures}", 1, size, device, "give --pictures 0"):
        write_text(options.out, run_page(runs, pictures, _command(options)))
    print(visible(f"the report is in {options.out}"))
    return 0


def _command(options: argparse.Namespace) -> str:
    """Return the command line that writes the same page."""
    words = ["r2unet", "report", *map(str, options.runs), "--out", str(options.out)]
    words += ["--data", options.data] if options.data else []
    words += ["--trust"] if options.trust else []
    return shlex.join([*words, "--pictures", str(options.pictures)])

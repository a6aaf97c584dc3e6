"""`r2unet predict`: write a mask for every image."""

from __future__ import annotations

import argparse
from pathlib import Path

from minidl.backend import resolve_device
from r2unet.commands.messages import DISCLAIMER, explain_memory_error, print_error
from r2unet.commands.options import add_checkpoint, add_device, add_post_processing, post_processing
from r2unet.commands.values import number
from r2unet.errors import InputError
from r2unet.files import check_writable
from r2unet.network.fold import fold_all
from r2unet.training.checkpoints import load_model
from r2unet.training.settings import LIMITS

HELP = "write a mask for every image"
DETAILS = (
    f"An unreadable file does not stop the others: it is reported at the end, with exit code 2. {DISCLAIMER}"
)


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("paths", nargs="+", metavar="PATH", help="images of any size, or folders of images")
    add_checkpoint(p)
    text = "folder for the masks (default %(default)s)"
    p.add_argument("--out", type=Path, default=Path("predictions"), metavar="DIR", help=text)
    add_post_processing(p)
    p.add_argument("--overlay", action="store_true", help="also draw the outline on each image")
    p.add_argument(
        "--size",
        type=number(int, *LIMITS["size"]),
        metavar="N",
        help="resize images to N x N pixels for the network (default: the size it was trained at)",
    )
    add_device(p)


def run(options: argparse.Namespace) -> int:
    from r2unet.prediction.photographs import find_photographs, predict_files

    device = resolve_device(options.device)
    model, settings, state = load_model(options.checkpoint)
    files = find_photographs(options.paths)
    check_writable("--out", options.out)
    size, errors = options.size or settings.size, []
    post = post_processing(options, state)
    remedy = "lower it" + (", or use --device cpu" if device == "cuda" else "")
    with explain_memory_error(f"--size {size}", 1, size, device, remedy):
        folded = fold_all(model.to(device))
        for file, result in predict_files(folded, size, files, options.out, device, options.overlay, **post):
            if isinstance(result, InputError):
                errors.append(result)
            else:
                print(f"{file}: {result:.1%} lesion", flush=True)
    written = len(files) - len(errors)
    print(f"{written} of {len(files)} masks are in {options.out}; not a diagnosis, not a medical device")
    for error in errors:
        print_error(error)
    return 2 if errors else 0

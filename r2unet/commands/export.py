"""`r2unet export`: write the weights of a run or of a PyTorch network to a small file for prediction."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from r2unet.commands.options import add_post_processing, post_processing
from r2unet.commands.values import new_file, number
from r2unet.errors import InputError, visible
from r2unet.files import check_outputs, check_writable
from r2unet.training.export import PYTORCH_SIZE
from r2unet.training.settings import LIMITS, flag

HELP = "write weights to a small file for prediction"
DETAILS = (
    "Without --pytorch, it copies only what prediction needs from a checkpoint; with --pytorch, it converts "
    "a PyTorch network."
)


def add_options(p: argparse.ArgumentParser) -> None:
    text = "best.npz of a training run; with --pytorch, a state_dict"
    p.add_argument("source", type=Path, metavar="SOURCE", help=text)
    p.add_argument("--out", required=True, type=new_file, metavar="F.npz", help="the file to write")
    p.add_argument("--half", action="store_true", help="store the weights in half precision: half the size")
    add_post_processing(
        p, "stored as the default for predict and evaluate; default: as in SOURCE, otherwise no"
    )
    text = "licence of the weights, stored in the file and printed by predict; default: as in SOURCE"
    p.add_argument("--licence", metavar="TEXT", help=text)
    p.add_argument(
        "--pytorch",
        action="store_true",
        help="SOURCE is the state_dict of LeeJunHyun's U_Net, R2U_Net, AttU_Net or R2AttU_Net, .npz or "
        ".safetensors",
    )
    p.add_argument(
        "--steps",
        type=number(int, *LIMITS["steps"]),
        metavar="N",
        help="with --pytorch: the recurrent steps t that the network was trained with",
    )
    p.add_argument(
        "--size",
        type=number(int, *LIMITS["size"]),
        metavar="N",
        help=f"with --pytorch: images are resized to N x N pixels (default {PYTORCH_SIZE})",
    )


def run(options: argparse.Namespace) -> int:
    from r2unet.training.export import from_pytorch, from_training, to_half, write

    check_writable("--out", options.out.parent)
    check_outputs("--out", [options.out], [options.source])
    if options.pytorch:
        state = from_pytorch(options.source, options.steps, options.size or PYTORCH_SIZE)
    else:
        for name in ("steps", "size"):
            if getattr(options, name) is not None:
                raise InputError(f"{flag(name)}: has no effect without --pytorch; omit the option")
        state = from_training(options.source)
    state = {**(to_half(state) if options.half else state), "prediction": post_processing(options, state)}
    if options.licence:
        state["licence"] = options.licence
    write(state, options.source, options.out)
    numbers = sum(array.size for array in state["model"].values())
    size = options.out.stat().st_size
    print(visible(f"{options.out}: {numbers:,} numbers in {size:,} bytes; to predict with them:"))
    print(visible(f"r2unet predict --checkpoint {shlex.quote(str(options.out))} photo.jpg"))
    return 0

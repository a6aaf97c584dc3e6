"""`r2unet export`: write the weights of a run or of a PyTorch network to a small file for prediction."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path

from r2unet.commands.options import add_choice, add_post_processing, post_processing
from r2unet.commands.values import given_path, new_file, number
from r2unet.errors import InputError, visible, warn
from r2unet.files import check_outputs, check_writable
from r2unet.training.export import PYTORCH_SIZE
from r2unet.training.settings import LIMITS, flag

HELP = "write weights to a small file for prediction"
DETAILS = (
    "Without --pytorch, it copies only what prediction needs from a checkpoint; with --pytorch, it converts "
    "a PyTorch network."
)
# The settings of the diagnosis head that --refit-head can change.
HEAD = {
    "classes": "classes of the diagnosis",
    "pooled_levels": "levels of the encoder that the diagnosis reads",
}


def add_options(p: argparse.ArgumentParser) -> None:
    text = "best.npz of a training run; with --pytorch, a state_dict"
    p.add_argument("source", type=given_path, metavar="SOURCE", help=text)
    p.add_argument("--out", required=True, type=weights_file, metavar="F.npz", help="the file to write")
    text = (
        "store the mean of the weights of SOURCE and these checkpoints of the same network (with group norm)"
    )
    p.add_argument("--average", nargs="+", type=given_path, default=[], metavar="F.npz", help=text)
    p.add_argument("--half", action="store_true", help="store the weights in half precision: half the size")
    add_post_processing(
        p, "stored as the default for predict and evaluate; default: as in SOURCE, otherwise no"
    )
    text = "licence of the weights, stored in the file and printed by predict; default: as in SOURCE"
    p.add_argument("--licence", metavar="TEXT", help=text)
    text = (
        "predict, evaluate and explain resize images to N x N pixels for the network (default: as in SOURCE; "
        f"with --pytorch {PYTORCH_SIZE})"
    )
    p.add_argument("--size", type=number(int, *LIMITS["size"]), metavar="N", help=text)
    text = (
        "fit the temperature of the diagnosis, and its baselines, anew on the training split of these "
        "folders, at the size in the file; without DIR: on generated lesions, if it was trained on them"
    )
    p.add_argument("--calibrate", nargs="?", const="", metavar="DIR[:DIR]", help=text)
    text = "with --calibrate: first fit the linear head of the diagnosis anew, on the same images"
    p.add_argument("--refit-head", action="store_true", help=text)
    for name, about in HEAD.items():
        add_choice(p, name, f"with --refit-head: {about}", "as in SOURCE")
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


def weights_file(text: str) -> Path:
    """Convert the name of the file to write to its path; refuse the name of another kind of file."""
    return new_file(text, [".npz"])


def run(options: argparse.Namespace) -> int:
    from r2unet.training.checkpoints import read_settings, write_state
    from r2unet.training.export import averaged, calibrated, check_out, from_pytorch, from_training, to_half
    from r2unet.training.prediction_memory import check_size

    check_writable("--out", options.out.parent)
    check_outputs("--out", [options.out], [options.source, *options.average])
    check_out(options.out)
    _check_different(options.source, options.average)
    head = {name: value for name, value in vars(options).items() if name in HEAD}
    if options.pytorch:
        state = from_pytorch(options.source, options.steps, options.size or PYTORCH_SIZE)
    else:
        if options.steps is not None:
            raise InputError("--steps: has no effect without --pytorch; omit the option")
        state = from_training(options.source, options.size)
    _check_head(options, head, read_settings(state).task)
    if options.average:
        state = averaged(state, options.average, options.refit_head)
    state = {**(to_half(state) if options.half else state), "prediction": post_processing(options, state)}
    if options.calibrate is not None:
        if not options.size:
            check_size(options.source, read_settings(state), state["model"])
        state = calibrated(state, options.calibrate or None, head if options.refit_head else None)
    elif (options.size or options.average) and "diagnosis" in state:
        option = "--average" if options.average else "--size"
        text = "the temperature of the diagnosis is still that of SOURCE; --calibrate DIR fits it anew"
        warn(f"{option}: {text}")
    if options.licence:
        state["licence"] = options.licence
    write_state(options.out, state)
    numbers = sum(array.size for array in state["model"].values())
    size = options.out.stat().st_size
    print(visible(f"{options.out}: {numbers:,} numbers in {size:,} bytes; to predict with them:"))
    print(visible(f"r2unet predict --checkpoint {shlex.quote(str(options.out))} photo.jpg"))
    return 0


def _check_different(source: Path, others: list[Path]) -> None:
    """Raise InputError if a checkpoint would count twice in the mean."""
    counted = {os.path.realpath(source)}  # Path.resolve raises an error for a link to itself
    for path in others:
        if os.path.realpath(path) in counted:
            raise InputError(
                f"--average {path}: is given twice; SOURCE is part of the mean, so give each other one once"
            )
        counted.add(os.path.realpath(path))


def _check_head(options: argparse.Namespace, head: dict[str, str], task: str) -> None:
    """Raise InputError for an option about a diagnosis that the network does not have, or that needs more."""
    given = [*map(flag, head)]
    given += ["--refit-head"] if options.refit_head else []
    given += ["--calibrate"] if options.calibrate is not None else []
    if given and task == "outline":
        omit = "omit the option" if len(given) == 1 else "omit these options"
        raise InputError(f"{', '.join(given)}: this network predicts only the outline; {omit}")
    if options.refit_head and options.calibrate is None:
        raise InputError("--refit-head: needs the training images; add them: --calibrate DIR")
    if head and not options.refit_head:
        raise InputError(f"{flag(next(iter(head)))}: needs a new head of the diagnosis; add --refit-head")

"""The options of the command line, as a table: what each is called, what it may be, what it means.

A value that cannot be is refused here, before anything is imported, read or computed.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from minidl.backend import DEVICE_CHOICES
from minidl.ops.conv import METHODS
from r2unet import __version__
from r2unet.commands.values import new_file, number, picture, seeds, widths
from r2unet.data.isic import SPLITS
from r2unet.study.studies import SEEDS, STUDIES, Variant
from r2unet.training.export import PYTORCH_SIZE
from r2unet.training.run_folder import PRETRAINED
from r2unet.training.settings import CHOICES, LIMITS, Settings, as_text, flag

MOST_THREADS = 64
DATA = "an ISIC 2016, 2017 or 2018 folder, or one with images/ and masks/"
CONV = (
    "how to convolve; results differ by rounding alone. auto: on a GPU, direct up to 64 channels and im2col "
    "beyond (which is faster there is not measured); on the CPU, direct for a stride of 1 "
    "(default %(default)s)"
)
NOTE = "For learning and research; not a medical device."


class Parser(argparse.ArgumentParser):
    """Argparse with errors of one line: the usage, which it would print before, is what --help is for."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def build_parser() -> Parser:
    """Return the parser of the whole command line."""
    parser = Parser(
        prog="r2unet", description=f"Outline skin lesions in dermoscopy images with R2U-Net. {NOTE}"
    )
    parser.add_argument("--version", action="version", version=f"r2unet {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="|".join(COMMANDS))
    for name, (add_options, text, more) in COMMANDS.items():
        description = f"{text[0].upper()}{text[1:]}. {more}"
        add_options(commands.add_parser(name, help=text, description=description))
    return parser


def _add_train(p: argparse.ArgumentParser) -> None:
    _add_data(p)
    _add_training(p)
    _add_setting(p, "seed", int, "N", "seed of the weights, the order and the augmentation")
    _add_device(p)
    _add_cache(p)
    p.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for checkpoints and pictures (default runs/DATE)"
    )
    p.add_argument("--resume", action="store_true", help="go on with the training in --out, if there is one")
    p.add_argument(
        "--profile",
        action="store_true",
        help="take 6 steps, print what each operation takes of the last 5, and stop; no file is written",
    )


def _add_data(p: argparse.ArgumentParser) -> None:
    text = f"{DATA} (default: generated lesions)"
    p.add_argument("--data", default=argparse.SUPPRESS, metavar="DIR", help=text)


def _add_training(p: argparse.ArgumentParser) -> None:
    """Add the settings of a training but its data and seed."""
    _add_setting(p, "size", int, "N", "pixels a side that images are resized to")
    _add_network(p)
    _add_choice(p, "loss", "loss function")
    _add_setting(p, "epochs", int, "N", "passes through the training images")
    _add_setting(p, "batch_size", int, "N", "images a step")
    _add_setting(p, "lr", float, "X", "learning rate")
    _add_setting(p, "weight_decay", float, "X", "AdamW's weight decay")
    _add_setting(p, "warmup_epochs", float, "X", "epochs over which the learning rate rises")
    _add_setting(p, "clip", float, "X", "largest norm of the gradient; a longer one is scaled down to it")
    _add_setting(p, "augment", float, "X", "strength of augmentation, 0 to 2")
    _add_setting(p, "ema", float, "X", "decay of the weights' moving average, such as 0.999; 0 is none")
    _add_setting(p, "patience", int, "N", "stop after N epochs without a better Jaccard; 0 is never")
    _add_setting(p, "images", int, "N", "lesions to generate for training when there is no --data")


def _add_cache(p: argparse.ArgumentParser) -> None:
    p.add_argument("--cache", type=Path, metavar="DIR", help="keep decoded images there for the next run")


def _add_compare(p: argparse.ArgumentParser) -> None:
    about = "; ".join(f"{study.name}: {study.question}" for study in STUDIES.values() if study.variants)
    p.add_argument(
        "study", choices=STUDIES, metavar="|".join(STUDIES), help=f"{about}; own: the rows of --variant"
    )
    p.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for trainings and results")
    p.add_argument(
        "--seeds", type=seeds, metavar="A,B,...", help=f"train every row with each (default {as_text(SEEDS)})"
    )
    p.add_argument(
        "--variant",
        type=variant,
        action="append",
        default=[],
        metavar="'LABEL: SETTING=VALUE ...'",
        help="one more row, with these settings of training; may be repeated",
    )
    p.add_argument(
        "--reuse",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="another study's folder: copy its trainings with the same settings; may be repeated",
    )
    p.add_argument(
        "--only-report", action="store_true", help="train nothing, rebuild the results of what is finished"
    )
    _add_together(p)
    _add_data(p)
    _add_training(p)
    _add_device(p)
    _add_cache(p)


def _add_together(p: argparse.ArgumentParser) -> None:
    """Add how a study's trainings are run and reported together."""
    p.add_argument(
        "--jobs",
        type=number(int, 1, MOST_THREADS),
        default=1,
        metavar="N",
        help="trainings side by side, each a process with its own images (default %(default)s)",
    )
    p.add_argument("--originals", action="store_true", help="score at the images' original size")
    _add_pictures(p)


def _add_pictures(p: argparse.ArgumentParser) -> None:
    kind, text = number(int, 1, 12), "images to draw (default %(default)s)"
    p.add_argument("--pictures", type=kind, default=6, metavar="N", help=text)


def _add_checkpoint(p: argparse.ArgumentParser) -> None:
    text = "best.npz of a training, or what export wrote (default: the weights that come with this program)"
    p.add_argument("--checkpoint", type=Path, default=PRETRAINED, metavar="F", help=text)


def _add_evaluate(p: argparse.ArgumentParser) -> None:
    _add_checkpoint(p)
    text = f"{DATA} (default: generated lesions, where the network was trained on such)"
    p.add_argument("--data", metavar="DIR", help=text)
    p.add_argument(
        "--split",
        choices=SPLITS,
        default="validation",
        help="images to score; generated ones are for training or validation (default %(default)s)",
    )
    _add_post_processing(p)
    p.add_argument(
        "--json",
        type=new_file,
        nargs="?",
        const=True,
        metavar="F",
        help="print JSON, with every image's scores, instead of a table; with F, print the table, write F",
    )
    p.add_argument(
        "--compare-modes",
        action="store_true",
        help="check batch norm's running statistics: compare eval mode, which uses them, with train mode",
    )
    p.add_argument("--overlays", type=picture, metavar="F.png", help="draw images from the best to the worst")
    p.add_argument("--worst", action="store_true", help="with --overlays: draw the worst instead")
    _add_pictures(p)
    _add_device(p)


def _add_predict(p: argparse.ArgumentParser) -> None:
    p.add_argument("paths", nargs="+", metavar="PATH", help="images, or folders of images, of any size")
    _add_checkpoint(p)
    text = "folder for the masks (default %(default)s)"
    p.add_argument("--out", type=Path, default=Path("predictions"), metavar="DIR", help=text)
    _add_post_processing(p)
    p.add_argument("--overlay", action="store_true", help="also draw the outline on each image")
    p.add_argument(
        "--size",
        type=number(int, *LIMITS["size"]),
        metavar="N",
        help="pixels a side for the network (default: as trained)",
    )
    _add_device(p)


def _add_score(p: argparse.ArgumentParser) -> None:
    p.add_argument("truth", type=Path, metavar="TRUTH_DIR", help="folder of true masks, ISIC_0000000*.png")
    p.add_argument("predictions", type=Path, metavar="PREDICTION_DIR", help="folder that predict wrote")
    p.add_argument(
        "--json", type=new_file, metavar="F", help="also write JSON, with every image's scores, into a file"
    )


def _add_explain(p: argparse.ArgumentParser) -> None:
    p.add_argument("image", type=Path, metavar="IMAGE", help="an image of any size")
    _add_checkpoint(p)
    p.add_argument("--out", required=True, type=picture, metavar="F.png", help="the figure to draw")
    _add_device(p)


def _add_export(p: argparse.ArgumentParser) -> None:
    text = "best.npz of a training; with --pytorch, a state_dict"
    p.add_argument("source", type=Path, metavar="SOURCE", help=text)
    p.add_argument("--out", required=True, type=new_file, metavar="F.npz", help="the file to write")
    p.add_argument("--half", action="store_true", help="half precision: half the size")
    _add_post_processing(
        p, "advice to predict and evaluate; default: as SOURCE says, which of a training is no"
    )
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
        help="with --pytorch: the t it was trained with",
    )
    p.add_argument(
        "--size",
        type=number(int, *LIMITS["size"]),
        metavar="N",
        help=f"with --pytorch: pixels a side that images are resized to (default {PYTORCH_SIZE})",
    )


def _add_summary(p: argparse.ArgumentParser) -> None:
    _add_network(p)
    _add_setting(p, "size", int, "N", "pixels a side")
    _add_setting(p, "batch_size", int, "N", "images a training step")


def _add_network(p: argparse.ArgumentParser) -> None:
    """Add the options that say which network is meant."""
    _add_choice(p, "model", "network")
    _add_setting(p, "widths", widths, "A,B,...", "channels of each level")
    _add_setting(p, "steps", int, "N", "recurrent steps t; each convolution is applied t + 1 times")
    _add_choice(p, "share_weights", "whether the steps have one convolution, or one each")
    _add_choice(p, "skips", "how a skip meets what comes from below")
    _add_choice(p, "up", "up-sampling: a transposed convolution, or pixels repeated and a convolution")
    _add_choice(p, "norm", "batch norm with statistics per step or shared by the steps, or group norm")
    text = (
        "activation checkpointing, which writes no file: recompute blocks on the way back instead of keeping "
        "what is inside; half the memory, a third slower"
    )
    _add_choice(p, "checkpoint_blocks", text, nargs="?", const=True)


def _add_choice(p: argparse.ArgumentParser, name: str, text: str, **more: Any) -> None:
    """Add an option for a field of Settings that is one of a few."""
    words = {as_text(value): value for value in CHOICES[name]}

    def convert(word: str) -> Any:
        if word not in words:
            raise argparse.ArgumentTypeError(f"want one of {', '.join(words)}, got {word!r}")
        return words[word]

    text = f"{text}: {', '.join(words)} (default {as_text(getattr(Settings, name))})"
    metavar = "yes|no" if True in CHOICES[name] else "NAME"
    p.add_argument(flag(name), type=convert, default=argparse.SUPPRESS, metavar=metavar, help=text, **more)


def _add_setting(
    p: argparse.ArgumentParser, name: str, kind: Callable[[str], Any], metavar: str, text: str
) -> None:
    """Add an option for a field of Settings."""
    convert = number(kind, *LIMITS[name]) if kind in (int, float) else kind
    text = f"{text} (default {as_text(getattr(Settings, name))})"
    # Absent unless given, so that --resume can tell what was asked for from what was left as it is.
    p.add_argument(flag(name), type=convert, default=argparse.SUPPRESS, metavar=metavar, help=text)


def _add_post_processing(
    p: argparse.ArgumentParser, default: str = "default: as the checkpoint says; a training's says no"
) -> None:
    """Add what can be done with a trained network's answer."""
    for name, text in (
        ("--tta", "mean of 8 flips and quarter turns; 8 times as long"),
        ("--clean-up", "keep the largest lesion and fill its holes"),
    ):
        p.add_argument(name, action=argparse.BooleanOptionalAction, help=f"{text} ({default})")


def _add_device(p: argparse.ArgumentParser) -> None:
    """Add where and how a network is computed."""
    text = (
        "auto takes CUDA where it works; cuda-on-cpu runs GPU code on the CPU, slowly, to learn and test "
        "(default %(default)s)"
    )
    p.add_argument("--device", choices=DEVICE_CHOICES, default="auto", help=text)
    p.add_argument("--conv", choices=METHODS, default="auto", help=CONV)
    p.add_argument(
        "--threads",
        type=number(int, 1, MOST_THREADS),
        default=1,
        metavar="N",
        help="threads that prepare a training's batches and share wide layers (default %(default)s)",
    )


def resources_given(options: argparse.Namespace) -> str:
    """Return how to compute, where it is not the default, as options: to go on bit for bit needs the same.

    Settings are not among them: a training's folder holds its own.
    """
    parser = Parser()
    for add in (_add_together, _add_device, _add_cache):
        add(parser)
    words = []
    for name, default in vars(parser.parse_args([])).items():
        value = getattr(options, name, default)
        if value != default:
            words += [flag(name)] if value is True else [flag(name), str(value)]
    return shlex.join(words)


COMMANDS = {
    "train": (
        _add_train,
        "train on ISIC images, or on generated lesions",
        "Ctrl-C saves; the same --out with --resume goes on from there, bit for bit.",
    ),
    "compare": (
        _add_compare,
        "train variants side by side, and tell them apart",
        "All rows share data, epochs and seeds, and every row uses the settings given here, except the one "
        "it varies. Ctrl-C saves; the same command goes on where it stopped.",
    ),
    "evaluate": (
        _add_evaluate,
        "score a checkpoint beside trivial baselines",
        "With --data, masks are compared at the images' original size, as the ISIC challenge does.",
    ),
    "predict": (
        _add_predict,
        "write a mask for every image",
        "A file that is no image does not stop the others: it is named at the end, with exit code 2. " + NOTE,
    ),
    "score": (
        _add_score,
        "score a folder of masks as the ISIC challenge does",
        "The numbers are those of the official tool, isic-challenge-scoring.",
    ),
    "explain": (
        _add_explain,
        "draw what the network does with an image",
        "Features of every level, of the recurrence step by step, and of both halves on the way up.",
    ),
    "export": (
        _add_export,
        "write weights into a small file, to hand on",
        "Of a training's checkpoint it keeps what prediction needs; of PyTorch's it makes one.",
    ),
    "summary": (_add_summary, "list a network's layers, parameters, multiply-adds and memory", ""),
}


def variant(text: str) -> Variant:
    """Convert "LABEL: SETTING=VALUE ..." to a row of a study; each SETTING is an option of train."""
    label, colon, changes = (part.strip() for part in text.partition(":"))
    words = changes.split()
    if not (label and words and all("=" in word for word in words)):
        example = "'no skips: model=unet skips=none'"
        raise argparse.ArgumentTypeError(f"want LABEL: SETTING=VALUE ..., such as {example}, got {text!r}")
    parser = _VariantParser(add_help=False, allow_abbrev=False)
    _add_training(parser)
    return Variant(label, vars(parser.parse_args([f"--{word.replace('_', '-')}" for word in words])))


class _VariantParser(argparse.ArgumentParser):
    """Hands its errors to the parser whose option it reads."""

    def error(self, message: str) -> NoReturn:
        raise argparse.ArgumentTypeError(message)

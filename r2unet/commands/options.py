"""Options that several commands share, and the values that follow from them.

An invalid value is refused while the command line is parsed, before anything is read or computed. An option
of a training setting is absent from the parsed options unless it is given: --resume must distinguish a
setting that the user gave from a default.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from minidl.backend import DEVICE_CHOICES
from minidl.connect import reports
from minidl.ops.conv import METHODS
from r2unet.commands.values import given_path, number, processes, widths, workers
from r2unet.errors import visible
from r2unet.training.checkpoints import ABOUT_WEIGHTS, POST_PROCESSING, PRETRAINED
from r2unet.training.feed import FEEDS, MOST_WORKERS
from r2unet.training.settings import CHOICES, GRAPHS, LIMITS, Settings, as_text, flag

MAX_THREADS = 64
DATA = "a folder of ISIC 2016, 2017, 2018 or HAM10000, or with images/ and masks/; join several with ':'"
LABELS = (
    "table of diagnoses with a row for each image, as in ISIC 2016 (benign or malignant), in ISIC 2017 or "
    "2018 (a column for each type), or in HAM10000 (dx); default: the tables beside the images"
)


class Parser(argparse.ArgumentParser):
    """An argparse parser that prints an error in one line, without the usage in front."""

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> argparse.Namespace:
        """Parse the command line. Before 3.13, argparse fails on `--option=--` with a traceback."""
        for word in sys.argv[1:] if args is None else args:
            if word.startswith("--") and word.endswith("=--"):
                self.error(f"argument {word[:-3]}: expected a value, got '--'")
        return super().parse_args(args, namespace)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse the command line, or what follows a command, whose own help an unknown word refers to."""
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return options, unknown

    def error(self, message: str) -> NoReturn:
        text = visible(f"{self.prog}: error: {message}; see {self.prog} --help") + "\n"
        self.exit(2, text if reports() else None)


# Options of training settings


def add_data(p: argparse.ArgumentParser) -> None:
    """Add --data and --labels, the images of a training run and their diagnoses."""
    text = f"{DATA} (default: generated lesions)"
    p.add_argument("--data", default=argparse.SUPPRESS, metavar="DIR[:DIR]", help=text)
    p.add_argument("--labels", default=argparse.SUPPRESS, metavar="F", help=LABELS)


def add_training(p: argparse.ArgumentParser) -> None:
    """Add the settings of a training run, except its data and its seed."""
    add_setting(p, "size", int, "N", "image size: images are resized to N x N pixels")
    add_network(p)
    add_choice(p, "loss", "loss function of the outline")
    add_diagnosis(p)
    add_setting(p, "epochs", int, "N", "passes over the training images")
    add_setting(p, "batch_size", int, "N", "images per step")
    add_setting(p, "lr", float, "X", "learning rate")
    add_setting(p, "weight_decay", float, "X", "weight decay of AdamW")
    add_setting(p, "warmup_epochs", float, "X", "epochs of learning-rate warm-up")
    add_setting(p, "clip", float, "X", "gradient clipping: maximum norm of the gradient")
    add_setting(p, "augment", float, "X", "strength of the augmentation, from 0 (none) to 2")
    add_setting(
        p, "ema", float, "X", "decay of the exponential moving average of the weights, such as 0.999; 0: none"
    )
    text = (
        "on a CUDA GPU, let cuBLAS round float32 to TF32's 10 bits of mantissa in matrix products: those of "
        "--conv im2col and of the diagnosis, not our own kernels. Faster, less precise"
    )
    add_choice(p, "tf32", text, nargs="?", const=True)
    text = (
        "early stopping after N epochs without a better validation score (Jaccard, mean AUC of a diagnosis, "
        "or the sum of both); 0: never"
    )
    add_setting(p, "patience", int, "N", text)
    add_setting(p, "images", int, "N", "number of lesions to generate for training without --data")


def add_diagnosis(p: argparse.ArgumentParser) -> None:
    """Add the settings for training a diagnosis."""
    add_choice(p, "diagnosis_loss", "loss function of the diagnosis")
    add_setting(p, "diagnosis_weight", float, "X", "weight of the diagnosis' loss next to the outline's")
    text = "weights of the classes in the loss, by their number of images n: n^-1/2, equal, or n^-1"
    add_choice(p, "class_weights", text)
    add_setting(p, "label_smoothing", float, "X", "share of the target that is spread over all classes")
    add_choice(p, "balanced", "draw the images of all classes equally often", nargs="?", const=True)
    text = "fit the linear head of the diagnosis anew on the best epoch's features, when the training ends"
    add_choice(p, "refit_head", text, nargs="?", const=True)
    text = "keep the encoder as it is at the start (with --from)"
    add_choice(p, "freeze_encoder", text, nargs="?", const=True)


def add_network(p: argparse.ArgumentParser) -> None:
    """Add the settings that define the network."""
    add_choice(p, "model", "network")
    add_choice(p, "task", "what the network predicts: the outline, the diagnosis, or both with one encoder")
    add_choice(p, "classes", "classes of the diagnosis")
    add_choice(p, "pooling", "where the diagnosis looks: over the predicted lesion, the whole image, or both")
    add_choice(p, "pooled_levels", "levels of the encoder that the diagnosis reads")
    add_setting(p, "widths", widths, "A,B,...", "channels of each level")
    add_setting(p, "steps", int, "N", "recurrent steps t; each recurrent convolution is applied t + 1 times")
    add_choice(p, "share_weights", "whether all recurrent steps share one convolution")
    text = "whether the recurrent weights w_r equal the feed-forward weights w_f"
    add_choice(p, "tie_weights", text)
    add_choice(p, "skips", "how a skip connection is joined with the upsampled features")
    add_choice(p, "up", "upsampling: transposed convolution, or nearest neighbour and convolution")
    add_choice(p, "norm", "normalisation: batch norm with statistics per step or shared, or group norm")
    text = (
        "activation checkpointing (writes no file): recompute a block's activations in the backward pass "
        "instead of storing them; half the memory, a third slower"
    )
    add_choice(p, "checkpoint_blocks", text, nargs="?", const=True)


def add_choice(
    p: argparse.ArgumentParser, name: str, text: str, default: str | None = None, **more: Any
) -> None:
    """Add an option for a field of Settings that has a few allowed values.

    The help names its default value, unless `default` says what applies instead.
    """
    words = {as_text(value): value for value in CHOICES[name]}

    def convert(word: str) -> Any:
        if word not in words:
            raise argparse.ArgumentTypeError(f"must be one of {', '.join(words)}, got {word!r}")
        return words[word]

    default = default or as_text(getattr(Settings, name))
    text = f"{text}: {', '.join(words)} (default {default})"
    metavar = "yes|no" if True in CHOICES[name] else "NAME"
    p.add_argument(flag(name), type=convert, default=argparse.SUPPRESS, metavar=metavar, help=text, **more)


def add_setting(
    p: argparse.ArgumentParser, name: str, kind: Callable[[str], Any], metavar: str, text: str
) -> None:
    """Add an option for a field of Settings that is a number, or that `kind` converts."""
    convert = number(kind, *LIMITS[name]) if kind in (int, float) else kind
    text = f"{text} (default {as_text(getattr(Settings, name))})"
    p.add_argument(flag(name), type=convert, default=argparse.SUPPRESS, metavar=metavar, help=text)


def settings_given(options: argparse.Namespace) -> dict[str, Any]:
    """Return the training settings given on the command line."""
    names = {field.name for field in fields(Settings)}
    return {name: value for name, value in vars(options).items() if name in names}


# Options of prediction


def add_checkpoint(p: argparse.ArgumentParser) -> None:
    """Add --checkpoint and --weights, which both set `checkpoint`: the trained network."""
    group = p.add_mutually_exclusive_group()
    text = "best.npz of a training run, or a file that export wrote (default: the pretrained weights)"
    group.add_argument(
        "--checkpoint", type=given_path, default=PRETRAINED["isic2017"], metavar="F", help=text
    )
    text = "; ".join(f"{name}: {about}" for name, about in ABOUT_WEIGHTS.items())
    group.add_argument(
        "--weights",
        dest="checkpoint",
        type=pretrained,
        metavar="NAME",
        help=f"pretrained weights by name. {text} (default isic2017)",
    )


def add_size(p: argparse.ArgumentParser) -> None:
    """Add --size, at which the network sees an image."""
    p.add_argument(
        "--size",
        type=number(int, *LIMITS["size"]),
        metavar="N",
        help="resize images to N x N pixels for the network (default: the size it was trained at, unless "
        "that takes much memory)",
    )


def pretrained(name: str) -> Path:
    """Convert the name of pretrained weights to their path."""
    if name not in PRETRAINED:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(PRETRAINED)}, got {name!r}")
    return PRETRAINED[name]


def add_post_processing(
    p: argparse.ArgumentParser, default: str = "default: as stored by export, otherwise no"
) -> None:
    """Add test-time augmentation and the clean-up of masks."""
    for name, text in (
        ("--tta", "test-time augmentation: the mean over 8 flips and quarter turns; 8 times as slow"),
        ("--clean-up", "keep only the largest lesion and fill its holes"),
    ):
        p.add_argument(name, action=argparse.BooleanOptionalAction, help=f"{text} ({default})")


def post_processing(options: argparse.Namespace, state: dict[str, Any]) -> dict[str, bool]:
    """Return whether to use test-time augmentation and clean-up; an option overrides the checkpoint."""
    stored, given = state.get("prediction", {}), {name: getattr(options, name) for name in POST_PROCESSING}
    return {name: bool(stored.get(name) if value is None else value) for name, value in given.items()}


def add_trust(p: argparse.ArgumentParser) -> None:
    """Add --trust, for runs that take much memory to predict with."""
    text = "predict with the networks of these runs whatever memory their image size takes"
    p.add_argument("--trust", action="store_true", help=text)


def add_pictures(p: argparse.ArgumentParser) -> None:
    """Add --pictures, how many images to draw."""
    kind, text = number(int, 1, 12), "number of images to draw (default %(default)s)"
    p.add_argument("--pictures", type=kind, default=6, metavar="N", help=text)


# Options of the device and its resources


def add_cache(p: argparse.ArgumentParser) -> None:
    """Add --cache, a folder for decoded images."""
    p.add_argument(
        "--cache", type=given_path, metavar="DIR", help="store decoded images in DIR for later runs"
    )


def add_device(p: argparse.ArgumentParser) -> None:
    """Add the device, the convolution algorithm and the number of threads."""
    text = (
        "auto uses CUDA if it works; cuda-on-cpu runs the CUDA kernels on the CPU, slowly, for learning and "
        "testing (default %(default)s)"
    )
    p.add_argument("--device", choices=DEVICE_CHOICES, default="auto", help=text)
    text = (
        "convolution algorithm; results differ only by rounding. im2col copies every window (on the CPU it "
        "is the definition), direct avoids these copies. auto: on a GPU, direct for up to 128 channels, so "
        "that a step can be a CUDA graph, and im2col for more; on the CPU, direct for stride 1 "
        "(default %(default)s)"
    )
    p.add_argument("--conv", choices=METHODS, default="auto", help=text)
    p.add_argument(
        "--threads",
        type=number(int, 1, MAX_THREADS),
        default=1,
        metavar="N",
        help="threads for wide layers and, with --workers 0, for the preparation of training batches (at "
        "least 4 if a GPU augments them) (default %(default)s)",
    )


def add_processes(p: argparse.ArgumentParser) -> None:
    """Add --processes, between which the images are divided."""
    text = (
        "divide the images between N processes, with the same output; auto: the number of physical cores. "
        "Each reads the weights and takes the memory of one, about 0.4 GB for photographs of 12 megapixels "
        "(default %(default)s)"
    )
    p.add_argument("--processes", type=processes, default=1, metavar="N|auto", help=text)


def add_shared_training(p: argparse.ArgumentParser) -> None:
    """Add --processes, which share each batch."""
    text = (
        "processes on this machine that share each batch; auto: one for each core, but at most one for each "
        "image of a batch; more than 1 need mpi4py: pip install -e '.[mpi]' (default: 1, or all that mpiexec "
        "has started)"
    )
    p.add_argument("--processes", type=processes_or_auto, metavar="N|auto", help=text)


def processes_or_auto(text: str) -> int | str:
    """Convert a number of processes; "auto" stays, because it depends on the size of a batch, too."""
    return text if text == "auto" else processes(text)


def add_feed(p: argparse.ArgumentParser) -> None:
    """Add --feed, where the batches of a training run are augmented, and --workers, by how many processes."""
    text = (
        "where batches are augmented: device keeps all images in the GPU's memory and augments there; cpu "
        "sends augmented images. auto: device on a GPU whose free memory is at least four times that of the "
        "images (default %(default)s)"
    )
    p.add_argument("--feed", choices=FEEDS, default="auto", help=text)
    text = (
        f"processes that prepare batches; 0: the threads of --threads do. Same batches for any number. auto: "
        f"where a GPU trains, one for each core, at most {MOST_WORKERS}; otherwise 0 (default %(default)s)"
    )
    p.add_argument("--workers", type=workers, default="auto", metavar="N|auto", help=text)


def add_graph(p: argparse.ArgumentParser) -> None:
    """Add --graph, whether a training step is a CUDA graph."""
    text = (
        "launch a training step as one CUDA graph instead of kernel by kernel; same numbers, less work for "
        "Python. auto: on a GPU, if the step can be captured; yes: stop if it cannot (default %(default)s)"
    )
    p.add_argument("--graph", choices=GRAPHS, default="auto", help=text)


def resources_given(options: argparse.Namespace, *groups: Callable[[argparse.ArgumentParser], None]) -> str:
    """Return the options of these groups that differ from their defaults, as text for a command line.

    A run resumes bit for bit only on the same device, with the same convolution algorithm and threads. Its
    settings need not be repeated: its folder stores them.
    """
    parser = Parser()
    for add in groups:
        add(parser)
    words = []
    for name, default in vars(parser.parse_args([])).items():
        value = getattr(options, name)
        if value != default:
            words += [flag(name)] if value is True else [flag(name), str(value)]
    return shlex.join(words)

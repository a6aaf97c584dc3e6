"""The command line: `r2unet train | evaluate | predict | summary`.

Only what a subcommand needs is imported, when it runs, so that --help is quick. What a person can mend is
one line on stderr and exit code 2; a training that was asked to stop exits with 130, as programs do on
Ctrl-C.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from minidl.backend import DEVICES, DeviceError, resolve_device
from r2unet import __version__
from r2unet.errors import InputError


class Parser(argparse.ArgumentParser):
    """Argparse with errors of one line: the usage, which it would print before, is what --help is for."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def number(kind: type, least: float, above: bool = False) -> Callable[[str], Any]:
    """Return a converter for an option: a number of `kind`, at least (or, with `above`, more than)
    `least`."""

    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        fits = value is not None and (value > least if above else value >= least) and value < float("inf")
        if not fits:
            word = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(
                f"want {word} {'above' if above else 'from'} {least}, got {text!r}"
            )
        return value

    return convert


def widths(text: str) -> tuple[int, ...]:
    """Convert "8,16,32,64" to (8, 16, 32, 64)."""
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or min(values) < 1:
        raise argparse.ArgumentTypeError(f"want positive numbers such as 8,16,32,64, got {text!r}")
    return values


def build_parser() -> Parser:
    """Return the parser of the whole command line."""
    parser = Parser(
        prog="r2unet",
        description="Outline skin lesions in dermoscopy images with R2U-Net. For learning and research; "
        "not a medical device.",
    )
    parser.add_argument("--version", action="version", version=f"r2unet {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="train|evaluate|predict|summary")
    _add_train(commands.add_parser("train", help="train on ISIC images, or on generated lesions"))
    _add_evaluate(commands.add_parser("evaluate", help="score a checkpoint beside trivial baselines"))
    _add_predict(commands.add_parser("predict", help="write a mask for every image"))
    _add_summary(commands.add_parser("summary", help="list a network's layers, parameters and multiply-adds"))
    return parser


def _add_train(p: argparse.ArgumentParser) -> None:
    from r2unet.run import Settings

    p.set_defaults(run=train)
    default = {field.name: field.default for field in dataclasses.fields(Settings)}

    def option(flag: str, kind: Callable[[str], Any], text: str, metavar: str) -> None:
        name = flag[2:].replace("-", "_")
        shown = ",".join(map(str, default[name])) if name == "widths" else default[name]
        # No default here: what is not given on the command line is told apart from what is, for --resume.
        p.add_argument(
            flag, type=kind, default=argparse.SUPPRESS, metavar=metavar, help=f"{text} (default {shown})"
        )

    p.add_argument(
        "--data",
        default=argparse.SUPPRESS,
        metavar="DIR",
        help="an ISIC 2016, 2017 or 2018 folder, or one with images/ and masks/ (default: generated lesions)",
    )
    option("--size", number(int, 1), "pixels a side that images are resized to", "N")
    option("--widths", widths, "channels of each level", "A,B,...")
    option("--steps", number(int, 0), "recurrent steps t; each convolution is applied t + 1 times", "N")
    option("--epochs", number(int, 1), "passes through the training images", "N")
    option("--batch-size", number(int, 1), "images a step", "N")
    option("--lr", number(float, 0, above=True), "learning rate", "X")
    option("--weight-decay", number(float, 0), "AdamW's weight decay", "X")
    option("--warmup-epochs", number(float, 0), "epochs over which the learning rate rises", "X")
    option("--clip", number(float, 0, above=True), "longest gradient a step may follow", "X")
    option("--augment", number(float, 0), "strength of augmentation, 0 to 2", "X")
    option("--images", number(int, 1), "lesions to generate for training when there is no --data", "N")
    option("--seed", number(int, 0), "seed of the weights, the order and the augmentation", "N")
    _add_device(p)
    p.add_argument(
        "--threads", type=number(int, 0), default=1, metavar="N", help="threads that prepare batches"
    )
    p.add_argument("--cache", type=Path, metavar="DIR", help="keep decoded images there for the next run")
    p.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for checkpoints and pictures (default runs/DATE)"
    )
    p.add_argument("--resume", action="store_true", help="go on with the training in --out, if there is one")


def _add_device(p: argparse.ArgumentParser) -> None:
    p.add_argument("--device", choices=DEVICES, default="auto", help="auto takes CUDA where it works")


def _add_evaluate(p: argparse.ArgumentParser) -> None:
    p.set_defaults(run=evaluate)
    p.add_argument("--checkpoint", required=True, type=Path, metavar="F", help="best.npz of a training")
    p.add_argument("--data", metavar="DIR", help="as in train (default: generated lesions)")
    p.add_argument("--split", choices=("training", "validation", "test", "all"), default="validation")
    p.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    p.add_argument("--compare-modes", action="store_true", help="also compare train mode with eval mode")
    p.add_argument("--overlays", type=Path, metavar="F.png", help="draw images from the best to the worst")
    _add_device(p)


def _add_predict(p: argparse.ArgumentParser) -> None:
    p.set_defaults(run=predict)
    p.add_argument("paths", nargs="+", metavar="PATH", help="images, or folders of images, of any size")
    p.add_argument("--checkpoint", required=True, type=Path, metavar="F", help="best.npz of a training")
    p.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the masks")
    p.add_argument("--overlay", action="store_true", help="also draw the outline on each image")
    p.add_argument(
        "--size", type=number(int, 1), metavar="N", help="pixels a side for the network (default: as trained)"
    )
    _add_device(p)


def _add_summary(p: argparse.ArgumentParser) -> None:
    p.set_defaults(run=summary)
    p.add_argument("--widths", type=widths, default=(8, 16, 32, 64), metavar="A,B,...")
    p.add_argument("--size", type=number(int, 1), default=128, metavar="N")
    p.add_argument("--steps", type=number(int, 0), default=2, metavar="N")


def train(options: argparse.Namespace) -> int:
    """Run `r2unet train`."""
    from r2unet import evaluate as evaluation
    from r2unet.run import LAST, read_settings, read_state
    from r2unet.train import Interrupted, Trainer, load_datasets

    if options.resume and options.out is None:
        raise InputError("--resume: say which training goes on, with --out runs/NAME")
    out = options.out or Path("runs") / time.strftime("%Y-%m-%d-%H%M%S")
    state = read_state(out / LAST) if (out / LAST).exists() else None
    if state and not options.resume:
        raise InputError(f"{out}: holds a training already; go on with --resume, or choose another --out")
    settings = _settle(options, read_settings(state) if state else None)
    device = resolve_device(options.device)
    check_writable(out)

    print(f"training on {settings.data or 'generated lesions'} on the {device}, into {out}", flush=True)
    bar = sys.stderr.isatty()
    training, validation = load_datasets(settings, max(1, options.threads), options.cache, progress=bar)
    print(f"{len(training)} images for training, {len(validation)} for validation", flush=True)
    out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(settings, out, training, validation, device, options.threads, _say, bar)
    if state:
        trainer.load_state(state)
        print(f"going on after {len(trainer.history)} epochs and {trainer.batches_done} batches", flush=True)
    try:
        scores = trainer.run()
    except Interrupted as stopped:
        print(stopped)
        return 130
    print(evaluation.as_table(scores))
    print(*evaluation.warnings(scores), f"the weights are in {out / 'best.npz'}", sep="\n")
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _settle(options: argparse.Namespace, before: Any) -> Any:
    """Return the training's settings: the defaults and what was given, or when it goes on, what it began
    with.

    Raises InputError for an option that would change a training that goes on; `data` may have moved.
    """
    from r2unet.run import Settings

    names = [field.name for field in dataclasses.fields(Settings)]
    given = {name: getattr(options, name) for name in names if hasattr(options, name)}
    if before is None:
        return Settings(**given).check()
    for name, value in given.items():
        if name != "data" and value != getattr(before, name):
            raise InputError(
                f"--{name.replace('_', '-')} {value}: this training began with {getattr(before, name)}; "
                "leave the option out to go on, or begin another with a new --out"
            )
    return dataclasses.replace(before, data=given.get("data", before.data))


def check_writable(out: Path) -> None:
    """Raise InputError unless files can be put into `out`, before hours of work: it, or the nearest
    folder above."""
    there = out
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        raise InputError(f"--out {out}: {there} is a file; choose a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"--out {out}: no permission to write into {there}; choose another folder")


def evaluate(options: argparse.Namespace) -> int:
    """Run `r2unet evaluate`."""
    import numpy as np

    from r2unet import evaluate as evaluation
    from r2unet.isic import LesionImages, find_pairs
    from r2unet.run import load_model
    from r2unet.train import load_datasets

    device = resolve_device(options.device)
    model, settings, state = load_model(options.checkpoint)
    model.to(device)
    if options.data is None:
        training, validation = load_datasets(dataclasses.replace(settings, data=None))
        dataset = training if options.split == "training" else validation
        predictions = evaluation.predict_samples(model, dataset, settings.batch_size, device)
    else:
        pairs = find_pairs(options.data, options.split)
        predictions = evaluation.score_files(model, pairs, settings.size, device)
    if options.overlays:
        predictions = list(predictions)
    scores = evaluation.report(predictions, state.get("mean_mask"), np.random.default_rng(settings.seed))
    answer: dict[str, Any] = {"checkpoint": str(options.checkpoint), "split": options.split, "scores": scores}
    if options.compare_modes:
        if options.data is not None:
            dataset = LesionImages(pairs, settings.size)
        answer["modes"] = evaluation.compare_modes(model, dataset, settings.batch_size)
    if options.overlays:
        from r2unet import plots

        plots.plot_overlays(evaluation.from_best_to_worst(predictions, rows=6), options.overlays)
    if options.json:
        print(json.dumps(answer, indent=2))
        return 0
    print(evaluation.as_table(scores))
    if options.compare_modes:
        print("train mode against eval mode, on the same batches:")
        print(
            *(f"  {name.replace('_', ' '):20} {value:.4f}" for name, value in answer["modes"].items()),
            sep="\n",
        )
    print(*evaluation.warnings(scores), sep="\n", end="")
    return 0


def predict(options: argparse.Namespace) -> int:
    """Run `r2unet predict`."""
    from r2unet.predict import find_images, predict_files
    from r2unet.run import load_model

    device = resolve_device(options.device)
    model, settings, _ = load_model(options.checkpoint)
    files = find_images(options.paths)
    check_writable(options.out)
    size = options.size or settings.size
    for file, share in predict_files(model.to(device), size, files, options.out, device, options.overlay):
        print(f"{file}: {share:.1%} lesion", flush=True)
    print(f"{len(files)} masks are in {options.out}; this is no diagnosis, and no medical device")
    return 0


def summary(options: argparse.Namespace) -> int:
    """Run `r2unet summary`."""
    import numpy as np

    from r2unet.run import Settings, new_model
    from r2unet.summary import as_table, image_of_zeros, summarize

    settings = Settings(size=options.size, widths=options.widths, steps=options.steps).check()
    model = new_model(settings, np.random.default_rng(0))
    print(as_table(summarize(model, image_of_zeros(settings.size))))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        options = build_parser().parse_args(argv)
        return options.run(options)
    except (InputError, DeviceError) as fault:
        print(f"r2unet: error: {fault}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("r2unet: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
